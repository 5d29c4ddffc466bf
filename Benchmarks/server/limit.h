// SPDX-License-Identifier: Apache-2.0
// What the two ways of the bare responder to a medium have in common.

#ifndef BENCH_LIMIT_H
#define BENCH_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
  LIMIT_BUFFER_BYTES = 256 << 10,
  REPLIES = 500,  // In one call; two pieces each, and the kernel takes 1024 pieces.
};

extern int limit_file;
extern uint64_t limit_file_bytes;

// Sends all pieces, which it changes. False when the client is gone.
bool limit_send(int socket, struct iovec *pieces, size_t count, int flags);

// Sees the client through its handshake. False when it leaves before the end.
bool limit_handshake(int socket);

// Serves one client past the page cache, until it leaves.
void limit_serve_direct(int socket);

#endif
