// SPDX-License-Identifier: Apache-2.0
// What a process needs that outlives its system: signs of the end, and the end itself.
#ifndef ROOTLINK_CLINUX_SHUTDOWN_H
#define ROOTLINK_CLINUX_SHUTDOWN_H
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int clinux_mkfifo(const char *path, unsigned mode) {
  return mkfifo(path, mode) < 0 ? -errno : 0;
}
/* Whether a signal that this thread blocks has come. */
static inline int clinux_signal_is_pending(int number) {
  sigset_t set;
  return sigpending(&set) == 0 && sigismember(&set, number) == 1;
}
/* Two connected Unix stream sockets, not inherited; the second does not block. */
static inline int clinux_socket_pair(int *first, int *second) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
  if (fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0) {
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    return -error;
  }
  *first = ends[0];
  *second = ends[1];
  return 0;
}
/* Ends the machine now, without a sync. Returns only when it cannot be done. */
static inline int clinux_reboot(int command) { return reboot(command) < 0 ? -errno : 0; }
enum {
  clinux_SIGPWR = SIGPWR,
  clinux_POWER_OFF = (int)RB_POWER_OFF,
  clinux_RESTART = (int)RB_AUTOBOOT,
  clinux_HALT = (int)RB_HALT_SYSTEM
};
#endif
