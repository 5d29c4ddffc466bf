// SPDX-License-Identifier: Apache-2.0
// What a process needs that watches over sockets which the kernel uses.
#ifndef ROOTLINK_CLINUX_KEEPER_H
#define ROOTLINK_CLINUX_KEEPER_H
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* poll(2) on several; how many are ready, 0 after the time, or a negated errno. */
static inline int clinux_poll_all(struct pollfd *set, unsigned long count, int milliseconds) {
  int n = poll(set, count, milliseconds);
  return n < 0 ? -errno : n;
}
/* Ends a TCP connection at once, whoever else holds the socket: what is not sent yet is dropped and
   nothing is sent again. */
static inline int clinux_abort_connection(int fd) {
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  return connect(fd, &none, sizeof none) < 0 ? -errno : 0;
}
/* The user and the process at the other end of a Unix socket. */
int clinux_peer_process(int fd, uint32_t *user, int *process);
enum { clinux_POLLRDHUP = 0x2000 /* Swift sees no GNU names. */, clinux_POLLHUP = POLLHUP, clinux_POLLERR = POLLERR };
#endif
