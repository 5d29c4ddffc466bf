// SPDX-License-Identifier: Apache-2.0
// What the served medium holds; see wire.h.

#include <stdlib.h>

#include "wire.h"

uint8_t *pattern_table(void) {
  enum { BYTES = PATTERN_PERIOD + REQUEST_MAXIMUM };
  uint8_t *table = malloc(BYTES);
  uint64_t state = 0x726f6f746c696e6b;
  if (!table) return NULL;
  for (size_t i = 0; i < PATTERN_PERIOD; i += sizeof state) {
    uint64_t word = next_random(&state);
    memcpy(table + i, &word, sizeof word);
  }
  memcpy(table + PATTERN_PERIOD, table, BYTES - PATTERN_PERIOD);
  return table;
}
