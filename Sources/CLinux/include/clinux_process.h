// SPDX-License-Identifier: Apache-2.0
#ifndef ROOTLINK_CLINUX_PROCESS_H
#define ROOTLINK_CLINUX_PROCESS_H
#include <errno.h>
#include <stdint.h>
#include <sys/wait.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Embedded Swift has no CommandLine: a constructor keeps the arguments. */
int clinux_argument_count(void);
const char *clinux_argument(int index);
const char *clinux_environment(const char *name);

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t clinux_monotonic_nanoseconds(void);
/* CLOCK_BOOTTIME, in nanoseconds: the clock of the kernel log. */
uint64_t clinux_boottime_nanoseconds(void);
/* CLOCK_REALTIME, in seconds. */
int64_t clinux_realtime_seconds(void);
void clinux_sleep_nanoseconds(uint64_t nanoseconds);
/* From the kernel's generator. */
uint64_t clinux_random(void);

static inline int clinux_fork(void) {
  pid_t pid = fork();
  return pid < 0 ? -errno : pid;
}
/* That directory becomes the root and the working directory of this process. */
static inline int clinux_enter_root(int directory) {
  return fchdir(directory) < 0 || chroot(".") < 0 ? -errno : 0;
}
static inline int clinux_setsid(void) { return setsid() < 0 ? -errno : 0; }
/* The exit status, 256 + the signal, or a negated errno. */
int clinux_wait(int pid);
/* Runs a program with the standard streams of ours and waits; result as clinux_wait, 127 when it
   cannot be executed. `words` holds `count` NUL-terminated words, the path first; -E2BIG over 63. */
int clinux_run(const char *words, size_t count);
/* A descriptor that becomes readable when a process ends, any process; -ESRCH when it has. */
static inline int clinux_pidfd_open(int pid) {
  long fd = syscall(SYS_pidfd_open, pid, 0);
  return fd < 0 ? -errno : (int)fd;
}
static inline int clinux_kill(int pid, int signal) { return kill(pid, signal) < 0 ? -errno : 0; }
__attribute__((noreturn)) static inline void clinux_exit_now(int status) { _exit(status); }
static inline void clinux_ignore_signal(int number) { signal(number, SIG_IGN); }
#endif
