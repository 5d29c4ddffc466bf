// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

int clinux_readiness_open(void) {
  int fd = epoll_create1(EPOLL_CLOEXEC);
  return fd < 0 ? -errno : fd;
}
int clinux_readiness_change(int set, int operation, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  return epoll_ctl(set, operation, fd, &event) < 0 ? -errno : 0;
}
int clinux_readiness_wait(int set, struct clinux_readiness *into, int room,
                          int timeout_milliseconds) {
  struct epoll_event list[256];
  int n = epoll_wait(set, list, room < 256 ? room : 256, timeout_milliseconds);
  if (n < 0) return -errno;
  for (int index = 0; index < n; index++)
    into[index] = (struct clinux_readiness){list[index].data.u64, list[index].events};
  return n;
}

/* Of the kernel's interface, which may be newer than the headers. Source: linux/mman.h. */
struct cached_range { uint64_t offset, count; };
struct cached_counts { uint64_t cached, dirty, writeback, evicted, recently_evicted; };
int clinux_is_cached(int fd, uint64_t offset, uint64_t count) {
  enum { cachestat = 451 }; /* One number on every architecture. */
  struct cached_range range = {offset, count};
  struct cached_counts counts;
  if (count == 0) return 1;
  if (syscall(cachestat, fd, &range, &counts, 0) < 0) return -errno;
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  return counts.cached >= (offset + count + page - 1) / page - offset / page;
}

void *clinux_map_file(int fd, size_t count, int is_writable) {
  void *memory = mmap(NULL, count, is_writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | MAP_NORESERVE, fd, 0);
  return memory == MAP_FAILED ? NULL : memory;
}
int clinux_enter_pages(void *start, size_t count) {
  enum { populate_read = 22 }; /* Source: linux/mman.h, MADV_POPULATE_READ. */
  return madvise(start, count, populate_read) < 0 ? -errno : 0;
}
int clinux_file_is_whole(int fd, uint64_t count) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  uint64_t held = (uint64_t)status.st_blocks * 512;
  return (uint64_t)status.st_size >= count && held >= (uint64_t)status.st_size;
}

int clinux_set_receive_timeout(int fd, unsigned milliseconds) {
  struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
  return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) < 0 ? -errno : 0;
}

int clinux_start_thread(size_t stack_byte_count, void *(*body)(void *), void *argument) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_byte_count);
  sigset_t pipe, before; /* The thread inherits what is blocked. */
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  int error = pthread_create(&thread, &attributes, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return -error;
}
