// SPDX-License-Identifier: Apache-2.0
// What the load generator and the bare responder both know of the NBD wire, and of what the served
// medium holds. Source: NBD doc/proto.md.

#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define GREETING_MAGIC UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define OPTION_MAGIC UINT64_C(0x49484156454f5054)   /* "IHAVEOPT" */
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define REQUEST_MAGIC UINT32_C(0x25609513)
#define REPLY_MAGIC UINT32_C(0x67446698)

enum {
  GREETING_BYTES = 18,
  OPTION_BYTES = 16,
  OPTION_REPLY_BYTES = 20,
  REQUEST_BYTES = 28,
  REPLY_BYTES = 16,

  FLAG_FIXED_NEWSTYLE = 1,
  FLAG_NO_ZEROES = 2,

  OPT_EXPORT_NAME = 1,
  OPT_ABORT = 2,
  OPT_GO = 7,
  REP_ACK = 1,
  REP_INFO = 3,
  INFO_EXPORT = 0,

  CMD_READ = 0,
  CMD_WRITE = 1,
  CMD_DISC = 2,
  CMD_FLUSH = 3,

  // A read or write is at most this long: what every peer takes without being asked for more.
  REQUEST_MAXIMUM = 1 << 20,
};
#define REP_ERR_UNSUP UINT32_C(0x80000001)

static inline void put16(uint8_t *at, uint16_t value) {
  value = htobe16(value);
  memcpy(at, &value, sizeof value);
}
static inline void put32(uint8_t *at, uint32_t value) {
  value = htobe32(value);
  memcpy(at, &value, sizeof value);
}
static inline void put64(uint8_t *at, uint64_t value) {
  value = htobe64(value);
  memcpy(at, &value, sizeof value);
}
static inline uint16_t get16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return be16toh(value);
}
static inline uint32_t get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return be32toh(value);
}
static inline uint64_t get64(const uint8_t *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return be64toh(value);
}

static inline void put_request(
    uint8_t *at, uint16_t command, uint64_t cookie, uint64_t offset, uint32_t length) {
  put32(at, REQUEST_MAGIC);
  put16(at + 4, 0);
  put16(at + 6, command);
  put64(at + 8, cookie);
  put64(at + 16, offset);
  put32(at + 24, length);
}

// The pattern: byte x of the medium is byte x % PATTERN_PERIOD of a table of random bytes. The
// period is 257 blocks of 4 KiB, a prime, so that no two neighbours are alike and a block that was
// exchanged with another shows up. All writes write the pattern, so that reads can be compared with
// it at any time, and a block of it lies in the table in one piece, so that neither costs more than
// a look at the table.
enum { PATTERN_PERIOD = 257 * 4096 };

// A table of PATTERN_PERIOD + REQUEST_MAXIMUM bytes; never freed. Null when there is no memory.
uint8_t *pattern_table(void);

static inline const uint8_t *pattern_at(const uint8_t *table, uint64_t offset) {
  return table + offset % PATTERN_PERIOD;
}

static inline uint64_t next_random(uint64_t *state) {  // xorshift64*, by Marsaglia and Vigna.
  uint64_t x = *state;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  *state = x;
  return x * UINT64_C(0x2545f4914f6cdd1d);
}

#endif
