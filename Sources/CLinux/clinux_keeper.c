// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"

int clinux_peer_process(int fd, uint32_t *user, int *process) {
  struct ucred peer = {0};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
  *user = peer.uid;
  *process = peer.pid;
  return 0;
}
