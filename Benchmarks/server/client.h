// SPDX-License-Identifier: Apache-2.0
// A client's way into an export: the address, the connection, the handshake.

#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct address {
  struct sockaddr_storage name;
  socklen_t length;
};

// "unix:PATH" or "tcp:ADDRESS:PORT" (IPv4). False when it is neither.
bool parse_address(const char *text, struct address *address);

// Connects, asks for `export` with NBD_OPT_GO and returns the socket, with the size of the export;
// or -1, with the reason in `*why`.
int enter_export(const struct address *address, const char *export, uint64_t *byte_count,
                 const char **why);

// Sends all of it, or receives all of it. False when the connection failed or ended.
bool send_all(int socket, const void *bytes, size_t count);
bool receive_all(int socket, void *bytes, size_t count);

#endif
