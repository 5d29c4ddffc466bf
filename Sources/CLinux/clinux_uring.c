// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <liburing.h>
#include <linux/fs.h>

struct clinux_ring { struct io_uring uring; };

int clinux_ring_open(struct clinux_ring **into, unsigned entries, unsigned flags) {
  struct io_uring_params params = {0};
  if (flags & clinux_ring_wide_commands) params.flags |= IORING_SETUP_SQE128;
  if (flags & clinux_ring_one_thread)
    params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  struct clinux_ring *ring = malloc(sizeof *ring);
  if (!ring) return -ENOMEM;
  int result = io_uring_queue_init_params(entries, &ring->uring, &params);
  if (result < 0) {
    free(ring);
    return result;
  }
  *into = ring;
  return 0;
}
void clinux_ring_close(struct clinux_ring *ring) {
  io_uring_queue_exit(&ring->uring);
  free(ring);
}

static struct io_uring_sqe *next(struct clinux_ring *ring, uint8_t operation, int fd, uint64_t data,
                                 int *error) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
  if (!sqe) {
    int submitted = io_uring_submit(&ring->uring);
    sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe) {
      *error = submitted < 0 ? submitted : -EBUSY;
      return NULL;
    }
  }
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = operation;
  sqe->fd = fd;
  sqe->user_data = data;
  return sqe;
}
int clinux_ring_command(struct clinux_ring *ring, int fd, uint32_t operation, const void *command,
                        size_t count, uint64_t data) {
  int error;
  struct io_uring_sqe *sqe = next(ring, IORING_OP_URING_CMD, fd, data, &error);
  if (!sqe) return error;
  size_t room = ring->uring.flags & IORING_SETUP_SQE128 ? 80 : 16;
  sqe->cmd_op = operation;
  memcpy((uint8_t *)sqe + offsetof(struct io_uring_sqe, cmd), command, count < room ? count : room);
  return 0;
}
static int transfer(struct clinux_ring *ring, uint8_t operation, int fd, void *into, size_t count,
                    uint64_t offset, uint64_t data) {
  int error;
  struct io_uring_sqe *sqe = next(ring, operation, fd, data, &error);
  if (!sqe) return error;
  sqe->addr = (uintptr_t)into;
  sqe->len = (uint32_t)count;
  sqe->off = offset;
  return 0;
}
int clinux_ring_receive(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t data) {
  return transfer(ring, IORING_OP_RECV, fd, into, count, 0, data);
}
int clinux_ring_read(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t data) {
  return transfer(ring, IORING_OP_READ, fd, into, count, (uint64_t)-1, data);
}
int clinux_ring_read_at(struct clinux_ring *ring, int fd, void *into, size_t count, uint64_t offset,
                        uint64_t data) {
  return transfer(ring, IORING_OP_READ, fd, into, count, offset, data);
}
int clinux_ring_write_at(struct clinux_ring *ring, int fd, const void *from, size_t count,
                         uint64_t offset, int is_durable, uint64_t data) {
  int error;
  struct io_uring_sqe *sqe = next(ring, IORING_OP_WRITE, fd, data, &error);
  if (!sqe) return error;
  sqe->addr = (uintptr_t)from;
  sqe->len = (uint32_t)count;
  sqe->off = offset;
  sqe->rw_flags = is_durable ? RWF_DSYNC : 0;
  return 0;
}
int clinux_ring_submit(struct clinux_ring *ring) {
  int result = io_uring_submit_and_get_events(&ring->uring);
  return result < 0 ? result : 0;
}
int clinux_ring_poll(struct clinux_ring *ring, int fd, uint32_t events, uint64_t data) {
  int error;
  struct io_uring_sqe *sqe = next(ring, IORING_OP_POLL_ADD, fd, data, &error);
  if (!sqe) return error;
  io_uring_prep_poll_add(sqe, fd, events); /* Knows the byte order that the kernel wants. */
  sqe->user_data = data;
  return 0;
}
int clinux_ring_wait(struct clinux_ring *ring, unsigned count, int64_t nanoseconds) {
  struct io_uring_cqe *first;
  struct __kernel_timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
  int result = nanoseconds < 0
                   ? io_uring_submit_and_wait(&ring->uring, count)
                   : io_uring_submit_and_wait_timeout(&ring->uring, &first, count, &time, NULL);
  return result < 0 ? result : 0;
}
unsigned clinux_ring_take(struct clinux_ring *ring, struct clinux_completion *into, unsigned room) {
  struct io_uring_cqe *cqe;
  unsigned head, taken = 0;
  io_uring_for_each_cqe(&ring->uring, head, cqe) {
    if (taken == room) break;
    into[taken++] = (struct clinux_completion){cqe->user_data, cqe->res, cqe->flags};
  }
  io_uring_cq_advance(&ring->uring, taken);
  return taken;
}
