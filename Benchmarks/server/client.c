// SPDX-License-Identifier: Apache-2.0
// The client's half of the handshake, with blocking calls. Simple replies: what Linux's driver
// uses.

#define _GNU_SOURCE
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire.h"

enum { PATIENCE_SECONDS = 60 };

bool parse_address(const char *text, struct address *address) {
  memset(address, 0, sizeof *address);
  if (strncmp(text, "unix:", 5) == 0) {
    struct sockaddr_un *name = (struct sockaddr_un *)&address->name;
    size_t length = strlen(text + 5);
    if (length == 0 || length >= sizeof name->sun_path) return false;
    name->sun_family = AF_UNIX;
    memcpy(name->sun_path, text + 5, length + 1);
    address->length = sizeof *name;
    return true;
  }
  const char *colon = strrchr(text, ':');
  char host[64];
  if (strncmp(text, "tcp:", 4) != 0 || colon < text + 4) return false;
  size_t length = (size_t)(colon - (text + 4));
  if (length >= sizeof host) return false;
  memcpy(host, text + 4, length);
  host[length] = 0;
  struct sockaddr_in *name = (struct sockaddr_in *)&address->name;
  name->sin_family = AF_INET;
  name->sin_port = htons((uint16_t)atoi(colon + 1));
  address->length = sizeof *name;
  return inet_pton(AF_INET, host, &name->sin_addr) == 1;
}

bool send_all(int socket, const void *bytes, size_t count) {
  while (count > 0) {
    ssize_t sent = send(socket, bytes, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes = (const char *)bytes + sent;
    count -= (size_t)sent;
  }
  return true;
}

bool receive_all(int socket, void *bytes, size_t count) {
  while (count > 0) {
    ssize_t received = recv(socket, bytes, count, MSG_WAITALL);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    bytes = (char *)bytes + received;
    count -= (size_t)received;
  }
  return true;
}

static int open_socket(const struct address *address) {
  int one = 1, fd = socket(address->name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (address->name.ss_family == AF_INET)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  for (int attempt = 0; connect(fd, (const struct sockaddr *)&address->name, address->length) < 0;
       attempt++) {
    // A full backlog of a Unix socket: EAGAIN at once, where TCP would try again by itself.
    if ((errno != EAGAIN && errno != EINTR) || attempt == 20000) goto failed;
    usleep(500);
  }
  return fd;
failed:
  close(fd);
  return -1;
}

// Reads replies to GO until the final one.
static bool receive_go(int fd, uint64_t *byte_count, const char **why) {
  for (bool sized = false;;) {
    uint8_t head[OPTION_REPLY_BYTES], data[4096];
    *why = "the connection ended during the handshake";
    if (!receive_all(fd, head, sizeof head)) return false;
    uint32_t type = get32(head + 12), length = get32(head + 16);
    *why = "malformed reply to NBD_OPT_GO";
    if (get64(head) != OPTION_REPLY_MAGIC || length > sizeof data) return false;
    if (!receive_all(fd, data, length)) return false;
    *why = "the server refuses the export";
    if (type == REP_ACK) return sized;
    if (type != REP_INFO) return false;
    if (length >= 12 && get16(data) == INFO_EXPORT) {
      *byte_count = get64(data + 2);
      sized = true;
    }
  }
}

int enter_export(const struct address *address, const char *export, uint64_t *byte_count,
                 const char **why) {
  uint8_t greeting[GREETING_BYTES], out[4 + OPTION_BYTES + 4 + 256 + 2];
  size_t name_length = strlen(export);
  *why = "the name of the export is too long";
  if (name_length > 256) return -1;
  int fd = open_socket(address);
  *why = strerror(errno);
  if (fd < 0) return -1;
  *why = "no NBD greeting";
  if (!receive_all(fd, greeting, sizeof greeting) || get64(greeting) != GREETING_MAGIC ||
      get64(greeting + 8) != OPTION_MAGIC)
    goto failed;
  put32(out, FLAG_FIXED_NEWSTYLE | (get16(greeting + 16) & FLAG_NO_ZEROES));
  put64(out + 4, OPTION_MAGIC);
  put32(out + 12, OPT_GO);
  put32(out + 16, (uint32_t)(4 + name_length + 2));
  put32(out + 20, (uint32_t)name_length);
  memcpy(out + 24, export, name_length);
  put16(out + 24 + name_length, 0);
  *why = "the connection failed during the handshake";
  if (!send_all(fd, out, 26 + name_length)) goto failed;
  if (receive_go(fd, byte_count, why)) return fd;
failed:
  close(fd);
  return -1;
}
