// SPDX-License-Identifier: Apache-2.0
#ifndef ROOTLINK_CLINUX_SOCKET_H
#define ROOTLINK_CLINUX_SOCKET_H
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* An address of any family that we use, with its length: 0 for none. */
struct clinux_address {
  struct sockaddr_storage storage;
  uint32_t byte_count;
};

/* `octets` are 4 or 16 in network order; `scope` is an interface index, 0 for none. */
void clinux_address_v4(struct clinux_address *into, const uint8_t octets[4], uint16_t port);
void clinux_address_v6(struct clinux_address *into, const uint8_t octets[16], uint16_t port,
                       uint32_t scope);
/* An abstract name begins with NUL. -ENAMETOOLONG when it does not fit in sun_path. */
int clinux_address_unix(struct clinux_address *into, const uint8_t *path, size_t count);
/* For people: the numeric text of the address, "192.0.2.1:10809" or "[2001:db8::1]:10809". */
int clinux_address_text(const struct clinux_address *address, char *into, size_t count);

/* 0 for an unknown name. */
uint32_t clinux_interface_index(const char *name);

/* Non-blocking and close-on-exec. */
static inline int clinux_socket(int family, int type, int protocol) {
  int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
  return fd < 0 ? -errno : fd;
}
static inline int clinux_connect(int fd, const struct clinux_address *to) {
  return connect(fd, (const struct sockaddr *)&to->storage, to->byte_count) < 0 ? -errno : 0;
}
static inline int clinux_bind(int fd, const struct clinux_address *to) {
  return bind(fd, (const struct sockaddr *)&to->storage, to->byte_count) < 0 ? -errno : 0;
}
static inline int clinux_listen(int fd, int backlog) {
  return listen(fd, backlog) < 0 ? -errno : 0;
}
int clinux_accept(int fd, struct clinux_address *from);
int clinux_local_address(int fd, struct clinux_address *into);
int clinux_peer_address(int fd, struct clinux_address *into);
static inline long clinux_recv(int fd, void *into, size_t count, int flags) {
  ssize_t n = recv(fd, into, count, flags);
  return n < 0 ? -errno : n;
}
static inline long clinux_send(int fd, const void *from, size_t count, int flags) {
  ssize_t n = send(fd, from, count, flags | MSG_NOSIGNAL);
  return n < 0 ? -errno : n;
}
static inline long clinux_sendto(int fd, const void *from, size_t count,
                                 const struct clinux_address *to) {
  ssize_t n = sendto(fd, from, count, MSG_NOSIGNAL, (const struct sockaddr *)&to->storage,
                     to->byte_count);
  return n < 0 ? -errno : n;
}
long clinux_recvfrom(int fd, void *into, size_t count, struct clinux_address *from);
/* Ends a connection at once, whoever waits on it: over TCP nothing unsent is sent any more, and the
   peer is told by a reset. */
static inline void clinux_cut_connection(int fd) {
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  if (connect(fd, &none, sizeof none) < 0) shutdown(fd, SHUT_RDWR);
  shutdown(fd, SHUT_RDWR);
}
static inline int clinux_shutdown(int fd) { return shutdown(fd, SHUT_RDWR) < 0 ? -errno : 0; }
static inline int clinux_set_option(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}
/* SO_ERROR: the pending error as a negated errno, 0 for none. */
int clinux_socket_error(int fd);
int clinux_set_blocking(int fd, int blocking);
int clinux_bind_to_device(int fd, const char *interface);
/* Waits for readiness; events that came, 0 after the time, or a negated errno. -1 ms: for ever. */
int clinux_poll(int fd, short events, int timeout_milliseconds);
/* Netlink: an address of the kernel for `protocol`, bound; joins nothing. */
int clinux_netlink_open(int protocol, uint32_t groups);
int clinux_netlink_join(int fd, uint32_t group);
enum {
  clinux_AF_INET = AF_INET, clinux_AF_INET6 = AF_INET6, clinux_AF_UNIX = AF_UNIX,
  clinux_SOCK_STREAM = SOCK_STREAM, clinux_SOCK_DGRAM = SOCK_DGRAM,
  clinux_POLLIN = POLLIN, clinux_POLLOUT = POLLOUT,
  clinux_SOL_SOCKET = SOL_SOCKET, clinux_SO_KEEPALIVE = SO_KEEPALIVE,
  clinux_SO_REUSEADDR = SO_REUSEADDR, clinux_IPPROTO_TCP = IPPROTO_TCP,
  clinux_IPPROTO_IPV6 = IPPROTO_IPV6, clinux_IPV6_V6ONLY = IPV6_V6ONLY,
  clinux_TCP_NODELAY = TCP_NODELAY, clinux_TCP_USER_TIMEOUT = TCP_USER_TIMEOUT,
  clinux_TCP_KEEPIDLE = TCP_KEEPIDLE, clinux_TCP_KEEPINTVL = TCP_KEEPINTVL,
  clinux_TCP_KEEPCNT = TCP_KEEPCNT, clinux_MSG_PEEK = MSG_PEEK,
  clinux_NETLINK_GENERIC = NETLINK_GENERIC,
};
#endif
