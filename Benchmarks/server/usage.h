// SPDX-License-Identifier: Apache-2.0
// What a server costs: the processor time, the instructions and the memory of its processes.

#ifndef BENCH_USAGE_H
#define BENCH_USAGE_H

#include <stdint.h>
#include <sys/types.h>

struct usage {
  uint64_t cpu_ns;        // User and system time of all its processes, the ended ones too.
  uint64_t anon_bytes;    // Memory of their own, shared pages counted once.
  unsigned processes;
};

// Adds up process `root` and all that descend from it. False when there is no such process.
_Bool usage_of(pid_t root, struct usage *usage);

// A cheap estimate of anon_bytes for the processes that usage_of() found last, for looking often.
// Nothing for more than 16 processes: looking would cost too much.
uint64_t usage_anon_quick(void);

// Counts instructions of process `root`, its descendants, and what they start from here on.
// False where the machine has no such counter, or the system does not let us have it.
_Bool instructions_start(pid_t root);
uint64_t instructions_stop(void);

// Calls `visit` with every thread of process `root` and its descendants.
void usage_threads(pid_t root, void (*visit)(pid_t thread));

// The same as instructions_start() by other means, see steps.c: the server's own code only, and so
// slow that nothing else can be measured meanwhile. False where that cannot be had.
_Bool steps_attach(pid_t root);
void steps_count(_Bool on);
uint64_t steps_detach(void);

#endif
