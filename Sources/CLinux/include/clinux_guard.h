// SPDX-License-Identifier: Apache-2.0
// What a process does to itself before a block device depends on it.
#ifndef ROOTLINK_CLINUX_GUARD_H
#define ROOTLINK_CLINUX_GUARD_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER /* Required, not tested for: a guard once compiled such a call away. */
#error "this program needs the headers of Linux 5.6 or later"
#endif

/* Every page, present and to come. */
static inline int clinux_lock_memory(void) {
  return mlockall(MCL_CURRENT | MCL_FUTURE) < 0 ? -errno : 0;
}
/* This task and those it makes serve a block device: their allocations must not wait for it. */
static inline int clinux_set_io_flusher(void) {
  return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* This task is scheduled before ordinary ones, round robin at the lowest priority of real time. Not
   by sched_setscheduler(3), which musl refuses. */
static inline int clinux_set_real_time(void) {
  int priority = 1; /* All of struct sched_param. */
  return syscall(SYS_sched_setscheduler, 0, 2 /* SCHED_RR */, &priority) < 0 ? -errno : 0;
}

/* This task is scheduled as others are. */
static inline int clinux_set_ordinary(void) {
  int priority = 0; /* All of struct sched_param. */
  return syscall(SYS_sched_setscheduler, 0, 0 /* SCHED_OTHER */, &priority) < 0 ? -errno : 0;
}

/* Becomes a process that stays: a session of its own, argv[0] beginning with `@` (systemd's last
   killing spree spares it), `name` for ps(1), every signal ignored that may be (SIGPWR stays
   pending, as a sign that the system goes down), no descriptor but the `count` ones of `kept`, which is sorted, with /dev/null (or nothing) for those of the standard
   streams that are not kept, and / as its directory. */
void clinux_become_keeper(const char *name, const int *kept, int count);

/* Begins this program anew from a copy of it in memory, with the same arguments; returns 0 when it
   runs from there already (a memfd, an initramfs, a tmpfs), else a negated errno. */
int clinux_run_from_memory(void);

/* Allocation. In the static client the linker sends malloc(3) and its kin here (--wrap); elsewhere
   nothing is counted and clinux_allocation_is_guarded() is 0. */
struct clinux_allocation_counts {
  uint64_t after_seal;    /* Allocations since the seal, wherever they came from. */
  uint64_t from_system;   /* Of these, what the reserve could not give. */
  uint64_t in_bare_task;  /* Of these, by a task that must not allocate at all. */
  uint64_t reserve_used;  /* The most that was taken of the reserve, in bytes. */
};
int clinux_allocation_is_guarded(void);
/* From here on allocations are taken from a reserve of `byte_count` bytes, which is made, touched
   and locked now. Once a process. -ENOMEM. */
int clinux_seal_allocation(size_t byte_count);
/* This thread must not allocate any more, not even from the reserve. */
void clinux_bare_task(void);
void clinux_read_allocation_counts(struct clinux_allocation_counts *into);
/* For tests: the first allocation by a bare task or from the system ends the process (SIGABRT), as
   does the first file opened or program started by any thread (SIGSYS). */
int clinux_seal_strictly(void);
#endif
