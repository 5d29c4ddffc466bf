// SPDX-License-Identifier: Apache-2.0
// What the media of the server need of libc and the kernel.
#ifndef ROOTLINK_CLINUX_BACKEND_H
#define ROOTLINK_CLINUX_BACKEND_H
#include <linux/fs.h>
#include <stddef.h>
#include <stdint.h>

/* Requests whose numbers are macros that Swift cannot import. Source: linux/fs.h. */
static const unsigned long clinux_BLKIOOPT = BLKIOOPT;
static const unsigned long clinux_BLKROTATIONAL = BLKROTATIONAL;

/* To what memory and offsets of direct transfers of an open file are aligned, in bytes; -EOPNOTSUPP
   when the file system does not say. */
int clinux_direct_alignment(int fd, uint32_t *memory, uint32_t *offset);

/* Reads what is in the page cache: as many bytes as are there from the start on, -EAGAIN for none,
   -EOPNOTSUPP when the file system cannot tell. */
long clinux_read_without_waiting(int fd, void *into, size_t count, int64_t offset);

/* Begins to read a range into the page cache. */
int clinux_prefetch(int fd, int64_t offset, int64_t count);

/* 1 for a file of tmpfs, ramfs or hugetlbfs. */
int clinux_file_is_in_memory(int fd);
#endif
