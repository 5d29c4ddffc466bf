// SPDX-License-Identifier: Apache-2.0
// io_uring through liburing. Everything is made when the ring is opened; nothing allocates later.
// Each call that queues something submits first when the queue is full, and then returns what that
// gave; 0 otherwise. `data` comes back in the completion.
#ifndef ROOTLINK_CLINUX_URING_H
#define ROOTLINK_CLINUX_URING_H
#include <stddef.h>
#include <stdint.h>

struct clinux_ring;
struct clinux_completion {
  uint64_t data;
  int32_t result; /* A negated errno, or what the operation gives. */
  uint32_t flags;
};
enum {
  clinux_ring_wide_commands = 1, /* Submissions of 128 bytes: commands of up to 80. */
  clinux_ring_one_thread = 2,    /* Only the thread that opened it submits; it also runs what the
                                    kernel has to do for the ring, and only while it waits. */
};
int clinux_ring_open(struct clinux_ring **into, unsigned entries, unsigned flags);
void clinux_ring_close(struct clinux_ring *ring);
/* IORING_OP_URING_CMD: `count` bytes of command, at most 16, or 80 in a ring of wide ones. */
int clinux_ring_command(struct clinux_ring *ring, int fd, uint32_t operation, const void *command,
                        size_t count, uint64_t data);
int clinux_ring_receive(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t data);
int clinux_ring_read(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t data);
int clinux_ring_read_at(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t offset,
                        uint64_t data);
/* `is_durable`: as if fdatasync(2) had followed. */
int clinux_ring_write_at(struct clinux_ring *ring, int fd, const void *from, size_t count,
                         uint64_t offset, int is_durable, uint64_t data);
/* Hands over what is queued, has what has ended ready to be taken, and waits for nothing. */
int clinux_ring_submit(struct clinux_ring *ring);
/* Once; poll(2)'s events. */
int clinux_ring_poll(struct clinux_ring *ring, int fd, uint32_t events, uint64_t data);
/* Submits, and waits until `count` completions are there or the time is up (-ETIME). A negative
   time is for ever. */
int clinux_ring_wait(struct clinux_ring *ring, unsigned count, int64_t nanoseconds);
/* Takes completions that are there. */
unsigned clinux_ring_take(struct clinux_ring *ring, struct clinux_completion *into, unsigned room);
#endif
