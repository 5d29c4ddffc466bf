// SPDX-License-Identifier: Apache-2.0
// What a process needs that watches over sockets which the kernel uses.
#ifndef ROOTLINK_CLINUX_KEEPER_H
#define ROOTLINK_CLINUX_KEEPER_H
#include <errno.h>
#include <poll.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* poll(2) on several; how many are ready, 0 after the time, or a negated errno. */
static inline int clinux_poll_all(struct pollfd *set, unsigned long count, int milliseconds) {
  int n = poll(set, count, milliseconds);
  return n < 0 ? -errno : n;
}
/* Bytes that the peer's TCP has acknowledged, and bytes received in order. -EPROTONOSUPPORT where the
   kernel does not count them (before Linux 4.1), another negated errno for what is no TCP socket.
   Source: `struct tcp_info` in Linux `include/uapi/linux/tcp.h`, which libc's header cuts short. */
static inline int clinux_tcp_byte_counts(int fd, uint64_t *acknowledged, uint64_t *received) {
  enum { acked_at = 120, received_at = 128, end = 136, option = 11 /* TCP_INFO */ };
  unsigned char raw[end];
  socklen_t length = sizeof raw;
  if (getsockopt(fd, IPPROTO_TCP, option, raw, &length) < 0) return -errno;
  if (length < sizeof raw) return -EPROTONOSUPPORT;
  memcpy(acknowledged, raw + acked_at, sizeof *acknowledged);
  memcpy(received, raw + received_at, sizeof *received);
  return 0;
}
/* How often what is out on a TCP connection was sent again since the peer last acknowledged
   anything; a negated errno for what is no TCP socket. Source: as above. */
static inline int clinux_tcp_repeats(int fd) {
  enum { retransmits_at = 2, end = 8, option = 11 /* TCP_INFO */ };
  unsigned char raw[end];
  socklen_t length = sizeof raw;
  return getsockopt(fd, IPPROTO_TCP, option, raw, &length) < 0 ? -errno : raw[retransmits_at];
}
/* The user and the process at the other end of a Unix socket. */
int clinux_peer_process(int fd, uint32_t *user, int *process);
enum { clinux_POLLRDHUP = 0x2000 /* Swift sees no GNU names. */, clinux_POLLHUP = POLLHUP, clinux_POLLERR = POLLERR };
#endif
