// SPDX-License-Identifier: Apache-2.0
// What the generator is told to do, and how it gives up.

#ifndef BENCH_JOB_H
#define BENCH_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "client.h"

enum { DEPTH_MAXIMUM = 256 };

enum kind { KIND_DATA, KIND_HANDSHAKE, KIND_IDLE };

struct job {
  enum kind kind;
  const char *text;
  bool random;
  unsigned write_percent;
  uint32_t block;
  unsigned depth, connections, threads;
  uint64_t span;   // Only this much from the start on; 0: all.
  uint64_t count;  // Handshakes until the end; 0: until the time is up.
};

// Says why on standard error, and ends with status 1.
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

// The memory, or the end.
void *need(void *memory);

uint64_t parse_number(const char *text, const char *what, uint64_t maximum);

// Takes a job apart, as load.c describes it.
void parse_job(char *text, struct job *job);

// Writes the pattern into a file, or into an export.
int fill_file(const char *path, uint64_t byte_count, const uint8_t *pattern);
int fill_export(const struct address *server, const char *export, uint64_t byte_count,
                const uint8_t *pattern);

// Ends a session, and waits until the server has ended it, too.
void disconnect(int fd);

#endif
