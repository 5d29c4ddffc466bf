// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <sys/prctl.h>

long clinux_netlink_receive(int fd, void *into, size_t count, uint32_t *from_port) {
  struct sockaddr_nl from = {0};
  socklen_t length = sizeof from;
  ssize_t n = recvfrom(fd, into, count, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from,
                       &length);
  *from_port = from.nl_pid;
  return n < 0 ? -errno : n;
}

static void close_between(int first, int last) {
  if (first > last) return;
  if (syscall(SYS_close_range, first, last, 0) == 0) return;
  for (int fd = first; fd <= last && fd < 4096; fd++) close(fd); /* Before Linux 5.9. */
}

void clinux_nbd_become_holder(const int *kept, int count) {
  setsid();
  char *name = (char *)clinux_argument(0);
  if (name && name[0]) name[0] = '@';
  prctl(PR_SET_NAME, "rootlink-nbd");
  int next = 0;
  for (int i = 0; i < count; i++) {
    close_between(next, kept[i] - 1);
    next = kept[i] + 1;
  }
  close_between(next, 0x7fffffff);
  /* The lowest numbers are free now, unless one of them is kept: open(2) fills them in order. */
  for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;)
    if (fd > 2) {
      close(fd);
      break;
    }
  if (chdir("/") < 0) return;
}

int clinux_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }
