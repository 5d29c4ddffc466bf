// SPDX-License-Identifier: Apache-2.0
// What moves bytes between sockets and files in the server: readiness of many sockets, files sent
// without a copy, threads with stacks of a chosen size.
#ifndef ROOTLINK_CLINUX_ENGINE_H
#define ROOTLINK_CLINUX_ENGINE_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct clinux_readiness {
  uint64_t data;
  uint32_t events; /* EPOLLIN and so on. */
};
enum {
  clinux_EPOLLIN = EPOLLIN, clinux_EPOLLOUT = EPOLLOUT, clinux_EPOLLHUP = EPOLLHUP,
  clinux_EPOLLERR = EPOLLERR, clinux_EPOLLRDHUP = EPOLLRDHUP,
  clinux_EPOLL_CTL_ADD = EPOLL_CTL_ADD, clinux_EPOLL_CTL_MOD = EPOLL_CTL_MOD,
  clinux_EPOLL_CTL_DEL = EPOLL_CTL_DEL,
  clinux_MSG_MORE = MSG_MORE, clinux_MSG_DONTWAIT = MSG_DONTWAIT,
  clinux_SO_SNDBUF = SO_SNDBUF, clinux_SO_RCVBUF = SO_RCVBUF,
  clinux_SO_RCVLOWAT = SO_RCVLOWAT,
};
static const uint32_t clinux_EPOLLEXCLUSIVE = EPOLLEXCLUSIVE;

int clinux_readiness_open(void);
int clinux_readiness_change(int set, int operation, int fd, uint32_t events, uint64_t data);
/* How many are ready, at most `room` and 256. -1 ms: for ever. */
int clinux_readiness_wait(int set, struct clinux_readiness *into, int room,
                          int timeout_milliseconds);

/* Sends up to `count` bytes of a file from `*offset` on, which moves along; 0 at the file's end. */
static inline long clinux_sendfile(int socket, int fd, int64_t *offset, size_t count) {
  off_t at = *offset;
  ssize_t n = sendfile(socket, fd, &at, count);
  *offset = at;
  return n < 0 ? -errno : n;
}
/* 1 when all pages of the range lie in the page cache, 0 when some do not; -ENOSYS before Linux
   6.5. */
int clinux_is_cached(int fd, uint64_t offset, uint64_t count);

/* A shared mapping of a file, none of it in memory yet; NULL when there is no room. */
void *clinux_map_file(int fd, size_t count, int is_writable);
/* Has pages that are in memory entered into the tables: not one by one, when they are touched. */
int clinux_enter_pages(void *start, size_t count);
/* 1 when a file has at least `count` bytes and no holes. */
int clinux_file_is_whole(int fd, uint64_t count);

/* Copies into memory that may be gone: -EFAULT then, with a part of it done. Only after
   clinux_guard_copies has returned 0, which is called once. -ENOSYS: not on this architecture. */
int clinux_copy_guarded(void *to, const void *from, size_t count);
int clinux_guard_copies(void);

/* sendmsg(2) of pieces, at most 1024. */
static inline long clinux_send_pieces(int fd, const struct iovec *pieces, size_t count, int flags) {
  struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = count};
  ssize_t n = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
  return n < 0 ? -errno : n;
}

/* A blocking receive gives up after so long (EAGAIN); 0 is never. */
int clinux_set_receive_timeout(int fd, unsigned milliseconds);

/* Cheap, and behind by up to a tick of the kernel (1 to 10 ms). */
static inline uint64_t clinux_coarse_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline long clinux_processor_count(void) { return sysconf(_SC_NPROCESSORS_ONLN); }
/* Starts a detached thread without SIGPIPE: sendfile(2) cannot be told not to raise it. */
int clinux_start_thread(size_t stack_byte_count, void *(*body)(void *), void *argument);
#endif
