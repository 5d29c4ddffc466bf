// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"

long clinux_netlink_receive(int fd, void *into, size_t count, uint32_t *from_port) {
  struct sockaddr_nl from = {0};
  socklen_t length = sizeof from;
  ssize_t n = recvfrom(fd, into, count, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from,
                       &length);
  *from_port = from.nl_pid;
  return n < 0 ? -errno : n;
}

int clinux_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }
