// SPDX-License-Identifier: Apache-2.0
#ifndef ROOTLINK_CLINUX_NBD_H
#define ROOTLINK_CLINUX_NBD_H
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* One datagram; its sender's netlink address (0 is the kernel) goes to `from_port`. The result is
   the datagram's own length, which is above `count` when it was cut. Never blocks. */
long clinux_netlink_receive(int fd, void *into, size_t count, uint32_t *from_port);
static inline int clinux_netlink_set(int fd, int option) {
  int one = 1;
  return setsockopt(fd, 270 /* SOL_NETLINK */, option, &one, sizeof one) < 0 ? -errno : 0;
}
enum { clinux_NETLINK_CAP_ACK = 10, clinux_NETLINK_EXT_ACK = 11 };

static inline long clinux_page_size(void) { return sysconf(_SC_PAGESIZE); }
static inline int clinux_process_id(void) { return getpid(); }
/* Close-on-exec. */
int clinux_pipe(int ends[2]);
#endif
