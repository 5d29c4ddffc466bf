// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

/* musl 1.2.3 has no preadv2. The offset goes as two words; a kernel of 64 bits reads the first. */
long clinux_read_without_waiting(int fd, void *into, size_t count, int64_t offset) {
  struct iovec part = {.iov_base = into, .iov_len = count};
  long n = syscall(SYS_preadv2, fd, &part, 1, (long)offset, (long)(offset >> 32), RWF_NOWAIT);
  return n < 0 ? -errno : n;
}

int clinux_prefetch(int fd, int64_t offset, int64_t count) {
  return -posix_fadvise(fd, offset, count, POSIX_FADV_WILLNEED);
}

int clinux_file_is_in_memory(int fd) {
  struct statfs status;
  if (fstatfs(fd, &status) < 0) return -errno;
  unsigned long type = (unsigned long)status.f_type;
  return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC;
}
