// SPDX-License-Identifier: Apache-2.0
// Counts the instructions that a server's own code takes, where the processor's counter is not to
// be had: by going through them one by one with ptrace(2). That takes a thousand times as long, so
// nothing else can be measured meanwhile; but it is exact, and the same on a busy machine.
//
// An instruction that repeats itself (rep movsb) stops after every repetition and counts once. The
// kernel's part of a request is not in it.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "usage.h"

struct stepped {
  pid_t thread;
  unsigned long place;
  bool is_gone;
};

static struct stepped *threads;
static size_t thread_count;
static pthread_t stepper;
static pthread_barrier_t attached;
static atomic_bool counting, ending;
static atomic_ullong steps;

#ifdef __x86_64__

static void attach(pid_t thread) {
  // Fails for the kernel's own threads among them, such as those of an io_uring.
  if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) < 0) return;
  struct stepped *grown = realloc(threads, (thread_count + 1) * sizeof *grown);
  if (!grown) return;
  threads = grown;
  threads[thread_count++] = (struct stepped){.thread = thread};
  ptrace(PTRACE_INTERRUPT, thread, NULL, NULL);
}

static void step_once(struct stepped *one, int status) {
  unsigned long signal = 0;
  bool is_event = status >> 16 != 0;
  if (WSTOPSIG(status) == SIGTRAP && !is_event) {
    errno = 0;
    unsigned long place = (unsigned long)ptrace(
        PTRACE_PEEKUSER, one->thread, offsetof(struct user_regs_struct, rip), NULL);
    if (place != one->place && atomic_load_explicit(&counting, memory_order_relaxed))
      atomic_fetch_add_explicit(&steps, 1, memory_order_relaxed);
    one->place = place;
  } else if (!is_event) {
    signal = (unsigned long)WSTOPSIG(status);
  }
  // Called out in the middle of a step, it has the end of that step before it, which would kill it
  // if nobody took it.
  siginfo_t pending;
  struct __ptrace_peeksiginfo_args first = {.nr = 1};
  if (!atomic_load(&ending)) {
    ptrace(PTRACE_SINGLESTEP, one->thread, NULL, signal);
  } else if (ptrace(PTRACE_PEEKSIGINFO, one->thread, &first, &pending) > 0) {
    ptrace(PTRACE_CONT, one->thread, NULL, signal);
  } else {
    ptrace(PTRACE_DETACH, one->thread, NULL, signal);
    one->is_gone = true;
  }
}

// Only the thread that attached may step: all of it happens here.
static void *step_all(void *root) {
  usage_threads(*(pid_t *)root, attach);
  pthread_barrier_wait(&attached);
  bool asked = false;
  for (size_t left = thread_count; left > 0;) {
    int status;
    // Never for long: the generator keeps the server at work until all are let go.
    pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0) break;
    if (atomic_load(&ending) && !asked) {
      // Those that wait in the kernel have to be called out of it.
      for (size_t i = 0; i < thread_count; i++)
        if (!threads[i].is_gone) ptrace(PTRACE_INTERRUPT, threads[i].thread, NULL, NULL);
      asked = true;
    }
    for (size_t i = 0; i < thread_count; i++) {
      if (threads[i].thread != thread || threads[i].is_gone) continue;
      if (WIFSTOPPED(status)) step_once(&threads[i], status);
      else threads[i].is_gone = true;
      if (threads[i].is_gone) left--;
    }
  }
  return NULL;
}

bool steps_attach(pid_t root) {
  static pid_t pid;
  pid = root;
  pthread_barrier_init(&attached, NULL, 2);
  if (pthread_create(&stepper, NULL, step_all, &pid) != 0) return false;
  pthread_barrier_wait(&attached);
  return thread_count > 0;
}

#else

bool steps_attach(pid_t root) { return (void)root, false; }

#endif

void steps_count(bool on) { atomic_store(&counting, on); }

uint64_t steps_detach(void) {
  atomic_store(&ending, true);
  pthread_join(stepper, NULL);
  return atomic_load(&steps);
}
