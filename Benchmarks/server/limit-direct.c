// SPDX-License-Identifier: Apache-2.0
// The bare responder past the page cache: one io_uring a connection. A receive and the requests to
// the disk wait in it side by side; the replies to all that one look finds finished leave in one
// call.
//
// Each of SLOTS requests has a buffer of REQUEST_MAXIMUM bytes, in huge pages: a disk is told of
// every piece of memory that is not next to the one before. Nothing is received while all slots are
// taken. Of a write whose data are not all there yet, the rest is received into the slot at once.

#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "client.h"
#include "limit.h"
#include "wire.h"

enum { SLOTS = 256, RECEIVED = SLOTS };

struct direct {
  int fd;
  struct io_uring ring;
  uint8_t *buffer, *memory;
  size_t have;
  bool receiving;
  struct {
    uint64_t cookie;
    uint32_t length;
    bool is_write;
  } slots[SLOTS];
  unsigned free_slots[SLOTS], free_count;
  struct iovec pieces[2 * SLOTS];
  uint8_t replies[SLOTS][REPLY_BYTES];
  unsigned finished[SLOTS], finished_count;
};

// Starts what is asked for in the buffer. False when the client is gone.
static bool start(struct direct *direct) {
  size_t looked = 0;
  while (direct->free_count > 0 && direct->have - looked >= REQUEST_BYTES) {
    const uint8_t *request = direct->buffer + looked;
    unsigned command = get16(request + 6), number = direct->free_slots[--direct->free_count];
    uint64_t offset = get64(request + 16);
    uint32_t length = get32(request + 24);
    uint8_t *memory = direct->memory + (size_t)number * REQUEST_MAXIMUM;
    looked += REQUEST_BYTES;
    direct->slots[number].cookie = get64(request + 8);
    direct->slots[number].length = length;
    direct->slots[number].is_write = command != CMD_READ;
    if (command == CMD_DISC) return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&direct->ring);
    if (command == CMD_READ) {
      io_uring_prep_read(sqe, limit_file, memory, length, offset);
    } else if (command == CMD_WRITE) {
      size_t here = direct->have - looked < length ? direct->have - looked : length;
      memcpy(memory, direct->buffer + looked, here);
      looked += here;
      if (!receive_all(direct->fd, memory + here, length - here)) return false;
      io_uring_prep_write(sqe, limit_file, memory, length, offset);
    } else {
      io_uring_prep_fsync(sqe, limit_file, IORING_FSYNC_DATASYNC);
    }
    io_uring_sqe_set_data64(sqe, number);
  }
  direct->have -= looked;
  memmove(direct->buffer, direct->buffer + looked, direct->have);
  return true;
}

static bool reply(struct direct *direct) {
  unsigned count = 0;
  for (unsigned i = 0; i < direct->finished_count; i++) {
    unsigned number = direct->finished[i];
    uint8_t *head = direct->replies[i];
    put32(head, REPLY_MAGIC);
    put32(head + 4, 0);
    put64(head + 8, direct->slots[number].cookie);
    direct->pieces[count++] = (struct iovec){head, REPLY_BYTES};
    if (!direct->slots[number].is_write)
      direct->pieces[count++] = (struct iovec){
          direct->memory + (size_t)number * REQUEST_MAXIMUM, direct->slots[number].length};
  }
  if (!limit_send(direct->fd, direct->pieces, count, 0)) return false;
  for (unsigned i = 0; i < direct->finished_count; i++)
    direct->free_slots[direct->free_count++] = direct->finished[i];
  direct->finished_count = 0;
  return true;
}

// One look at what has finished. False when the client is gone, or the disk failed.
static bool turn(struct direct *direct) {
  if (!direct->receiving && direct->free_count > 0) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&direct->ring);
    io_uring_prep_recv(sqe, direct->fd, direct->buffer + direct->have,
                       LIMIT_BUFFER_BYTES - direct->have, 0);
    io_uring_sqe_set_data64(sqe, RECEIVED);
    direct->receiving = true;
  }
  int submitted = io_uring_submit_and_wait(&direct->ring, 1);
  if (submitted < 0 && submitted != -EINTR) return false;
  struct io_uring_cqe *cqe;
  while (io_uring_peek_cqe(&direct->ring, &cqe) == 0) {
    uint64_t what = io_uring_cqe_get_data64(cqe);
    int result = cqe->res;
    io_uring_cqe_seen(&direct->ring, cqe);
    if (what == RECEIVED) {
      if (result <= 0) return false;
      direct->have += (size_t)result;
      direct->receiving = false;
    } else {
      if (result < 0) return false;
      direct->finished[direct->finished_count++] = (unsigned)what;
    }
  }
  if (direct->finished_count > 0 && !reply(direct)) return false;
  // What is in the buffer while a receive is under way has been looked at already.
  return direct->receiving || start(direct);
}

void limit_serve_direct(int fd) {
  struct direct *direct = calloc(1, sizeof *direct);
  uint8_t *buffer = malloc(LIMIT_BUFFER_BYTES);
  uint8_t *memory = mmap(NULL, (size_t)SLOTS * REQUEST_MAXIMUM, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory != MAP_FAILED) madvise(memory, (size_t)SLOTS * REQUEST_MAXIMUM, MADV_HUGEPAGE);
  if (direct && buffer && memory != MAP_FAILED &&
      io_uring_queue_init(2 * SLOTS, &direct->ring,
                          IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0) {
    direct->fd = fd;
    direct->buffer = buffer;
    direct->memory = memory;
    while (direct->free_count < SLOTS) {
      direct->free_slots[direct->free_count] = SLOTS - 1 - direct->free_count;
      direct->free_count++;
    }
    while (turn(direct)) continue;
    io_uring_queue_exit(&direct->ring);
  }
  if (memory != MAP_FAILED) munmap(memory, (size_t)SLOTS * REQUEST_MAXIMUM);
  free(buffer);
  free(direct);
}
