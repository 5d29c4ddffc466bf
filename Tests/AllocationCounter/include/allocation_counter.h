// SPDX-License-Identifier: Apache-2.0
// Counts what threads allocate. Linked into a program it stands in for malloc(3) and its kin, for
// every library of the program, and hands on to glibc's own.
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H
#include <stdint.h>

/* From here on what the calling thread allocates is counted. */
void allocation_counter_begin_thread(void);
/* What all such threads have allocated so far, in calls. */
uint64_t allocation_counter_total(void);
#endif
