// SPDX-License-Identifier: Apache-2.0
#ifndef ROOTLINK_CLINUX_FILE_H
#define ROOTLINK_CLINUX_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <dirent.h>
#include <unistd.h>

static inline int clinux_open(const char *path, int flags, unsigned mode) {
  int fd = open(path, flags | O_CLOEXEC, mode);
  return fd < 0 ? -errno : fd;
}
static inline int clinux_openat(int dir, const char *path, int flags, unsigned mode) {
  int fd = openat(dir, path, flags | O_CLOEXEC, mode);
  return fd < 0 ? -errno : fd;
}
int clinux_O_DIRECT(void); /* differs between architectures */
int clinux_O_PATH(void);
static inline int clinux_close(int fd) { return close(fd) < 0 ? -errno : 0; }
static inline int clinux_dup_cloexec(int fd) {
  int r = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return r < 0 ? -errno : r;
}
static inline long clinux_read(int fd, void *into, size_t count) {
  ssize_t n = read(fd, into, count);
  return n < 0 ? -errno : n;
}
static inline long clinux_write(int fd, const void *from, size_t count) {
  ssize_t n = write(fd, from, count);
  return n < 0 ? -errno : n;
}
static inline long clinux_pread(int fd, void *into, size_t count, int64_t offset) {
  ssize_t n = pread(fd, into, count, offset);
  return n < 0 ? -errno : n;
}
static inline long clinux_pwrite(int fd, const void *from, size_t count, int64_t offset) {
  ssize_t n = pwrite(fd, from, count, offset);
  return n < 0 ? -errno : n;
}
static inline int clinux_fsync(int fd) { return fsync(fd) < 0 ? -errno : 0; }
static inline int clinux_fdatasync(int fd) { return fdatasync(fd) < 0 ? -errno : 0; }
int clinux_fallocate(int fd, int mode, int64_t offset, int64_t count);
enum { clinux_SEEK_END = SEEK_END };
static inline int64_t clinux_lseek(int fd, int64_t offset, int whence) {
  off_t at = lseek(fd, offset, whence);
  return at < 0 ? -errno : at;
}
static inline int clinux_ftruncate(int fd, int64_t size) {
  return ftruncate(fd, size) < 0 ? -errno : 0;
}
static inline int clinux_unlink(const char *path) { return unlink(path) < 0 ? -errno : 0; }
static inline int clinux_rename(const char *from, const char *to) {
  return rename(from, to) < 0 ? -errno : 0;
}
static inline int clinux_symlink(const char *target, const char *path) {
  return symlink(target, path) < 0 ? -errno : 0;
}
static inline int clinux_mkdir(const char *path, unsigned mode) {
  return mkdir(path, mode) < 0 ? -errno : 0;
}
static inline long clinux_readlink(const char *path, char *into, size_t count) {
  ssize_t n = readlink(path, into, count);
  return n < 0 ? -errno : n;
}

/* What fstat(2) says, in types of one width on every architecture. */
struct clinux_status {
  int64_t size, mtime_seconds;
  uint64_t device, inode, rdev;
  uint32_t mode, rdev_major, rdev_minor;
};
int clinux_fstat(int fd, struct clinux_status *into);
int clinux_stat(const char *path, struct clinux_status *into);
enum {
  clinux_mode_type_mask = S_IFMT, clinux_mode_regular = S_IFREG, clinux_mode_block = S_IFBLK,
  clinux_mode_directory = S_IFDIR,
};

/* A node of a block device, or of a character device. */
static inline int clinux_mknod_device(const char *path, int is_block, unsigned mode,
                                      unsigned major, unsigned minor) {
  return mknod(path, (is_block ? S_IFBLK : S_IFCHR) | mode, makedev(major, minor)) < 0 ? -errno : 0;
}

/* A shared mapping of a file, its pages in memory at once; NULL when there is none. */
static inline void *clinux_map_shared(int fd, size_t count, int is_writable) {
  void *memory = mmap(NULL, count, is_writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | MAP_POPULATE, fd, 0);
  return memory == MAP_FAILED ? NULL : memory;
}
static inline void clinux_unmap(void *memory, size_t count) { munmap(memory, count); }

/* ioctl(2) is variadic. */
static inline int clinux_ioctl_value(int fd, unsigned long request, unsigned long value) {
  int r = ioctl(fd, request, value);
  return r < 0 ? -errno : r;
}
static inline int clinux_ioctl_pointer(int fd, unsigned long request, void *argument) {
  int r = ioctl(fd, request, argument);
  return r < 0 ? -errno : r;
}
/* Requests whose numbers are macros that Swift cannot import. Source: linux/fs.h. */
static const unsigned long clinux_BLKGETSIZE64 = BLKGETSIZE64;
static const unsigned long clinux_BLKSSZGET = BLKSSZGET;
static const unsigned long clinux_BLKPBSZGET = BLKPBSZGET;
static const unsigned long clinux_BLKRRPART = BLKRRPART;
static const unsigned long clinux_BLKDISCARD = BLKDISCARD;
static const unsigned long clinux_BLKZEROOUT = BLKZEROOUT;
static const unsigned long clinux_BLKROGET = BLKROGET;

/* Names in a directory, one a call; NULL at the end. The pointer lives until the next call. */
int clinux_opendir(const char *path, void **into);
const char *clinux_readdir(void *directory);
void clinux_closedir(void *directory);
#endif
