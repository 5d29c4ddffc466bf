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

/* The structure is 256 bytes; libc's may end before the fields that are wanted. Source: linux/stat.h
   of Linux 6.1. */
int clinux_direct_alignment(int fd, uint32_t *memory, uint32_t *offset) {
  const uint32_t wanted = 0x2000; /* STATX_DIOALIGN */
  union {
    uint32_t words[64];
    uint64_t alignment;
  } status = {.words = {0}};
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, wanted, &status) < 0) return -errno;
  if (!(status.words[0] & wanted) || status.words[39] == 0) return -EOPNOTSUPP;
  *memory = status.words[38]; /* stx_dio_mem_align at 152, stx_dio_offset_align at 156 */
  *offset = status.words[39];
  return 0;
}
