// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <linux/openat2.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

int clinux_resolve_listener(const char *host, uint16_t port, unsigned index,
                            struct clinux_address *into) {
  struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
  char service[6];
  snprintf(service, sizeof service, "%u", port);
  int r = getaddrinfo(host, service, &hints, &list);
  if (r == EAI_SYSTEM) return -errno;
  if (r == EAI_AGAIN) return -EAGAIN;
  if (r == EAI_MEMORY) return -ENOMEM;
  if (r != 0) return -EADDRNOTAVAIL;
  r = 1;
  for (struct addrinfo *at = list; at; at = at->ai_next) {
    if (index-- > 0) continue;
    memset(into, 0, sizeof *into);
    memcpy(&into->storage, at->ai_addr, at->ai_addrlen);
    into->byte_count = at->ai_addrlen;
    r = 0;
    break;
  }
  freeaddrinfo(list);
  return r;
}

int clinux_open_unlinked(const char *directory) {
  int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd < 0 ? -errno : fd;
  char path[4096]; /* a file system without O_TMPFILE: NFS, overlayfs of old */
  if (snprintf(path, sizeof path, "%s/rootlinkd-XXXXXX", directory) >= (int)sizeof path)
    return -ENAMETOOLONG;
  fd = mkostemp(path, O_CLOEXEC);
  if (fd < 0) return -errno;
  unlink(path);
  return fd;
}

void *clinux_map_memory(size_t count) {
  void *memory = mmap(NULL, count, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}
void *clinux_map_memory_in_huge_pages(size_t count) {
  const size_t huge = 2 << 20; /* Of x86-64, and of arm64 with pages of 4 KiB. */
  uint8_t *mapped = clinux_map_memory(count + huge);
  if (!mapped) return NULL;
  size_t before = -(uintptr_t)mapped % huge;
  if (before > 0) munmap(mapped, before);
  munmap(mapped + before + count, huge - before);
  madvise(mapped + before, count, MADV_HUGEPAGE); /* Best effort: ordinary pages otherwise. */
  return mapped + before;
}
void clinux_unmap_memory(void *memory, size_t count) { munmap(memory, count); }
void clinux_discard_memory(void *memory, size_t count) { madvise(memory, count, MADV_DONTNEED); }

int clinux_signal_descriptor(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (error) return -error;
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  return fd < 0 ? -errno : fd;
}
int clinux_next_signal(int fd) {
  struct signalfd_siginfo info;
  return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

int clinux_poll_readable(const int *fds, uint8_t *ready, size_t count, int timeout_milliseconds) {
  struct pollfd list[256];
  if (count > sizeof list / sizeof *list) return -E2BIG;
  for (size_t index = 0; index < count; index++)
    list[index] = (struct pollfd){.fd = fds[index], .events = POLLIN};
  int n = poll(list, count, timeout_milliseconds);
  if (n < 0) return -errno;
  for (size_t index = 0; index < count; index++) ready[index] = list[index].revents != 0;
  return n;
}

/* umask(2) is the process's, so this is for a time with one thread. */
int clinux_bind_unix_private(int fd, const struct clinux_address *to) {
  mode_t old = umask(0077);
  int r = clinux_bind(fd, to);
  umask(old);
  return r;
}

int clinux_raise_open_file_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

int clinux_open_beneath(int at, const char *path) {
  struct open_how how = {
      .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
  int fd = syscall(SYS_openat2, at, path, &how, sizeof how);
  return fd < 0 ? -errno : fd;
}
int clinux_event_descriptor(void) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? -errno : fd;
}
int clinux_event_signal(int fd) { return eventfd_write(fd, 1) < 0 ? -errno : 0; }
int clinux_event_clear(int fd) {
  eventfd_t count;
  return eventfd_read(fd, &count) < 0 ? -errno : 0;
}
