// SPDX-License-Identifier: Apache-2.0
// What the server needs of libc and the client does not.
#ifndef ROOTLINK_CLINUX_SERVER_H
#define ROOTLINK_CLINUX_SERVER_H
#include "clinux_socket.h"
#include <stddef.h>
#include <sys/file.h>
#include <stdint.h>

/* The address number `index` of a host name for a listener; 0, a negated errno, or 1 when there is
   no such index. -EADDRNOTAVAIL: no such host. */
int clinux_resolve_listener(const char *host, uint16_t port, unsigned index,
                            struct clinux_address *into);

/* An unlinked file in a directory, open for reading and writing. */
int clinux_open_unlinked(const char *directory);

/* Anonymous memory, zeroed, taken from the system page by page when first touched; NULL: none. */
void *clinux_map_memory(size_t count);
/* The same, of huge pages as far as there are; `count` is in whole pages. */
void *clinux_map_memory_in_huge_pages(size_t count);
void clinux_unmap_memory(void *memory, size_t count);
/* Gives pages back; they read as zeroes afterwards. */
void clinux_discard_memory(void *memory, size_t count);

/* Blocks SIGTERM, SIGINT and SIGHUP in this and later threads; a descriptor that becomes readable
   when one arrives. */
int clinux_signal_descriptor(void);
/* The number of a signal that arrived, 0 for none. */
int clinux_next_signal(int fd);

/* poll(2) for reading on several descriptors; ready[i] is 1 for those that are. */
int clinux_poll_readable(const int *fds, uint8_t *ready, size_t count, int timeout_milliseconds);

int clinux_bind_unix_private(int fd, const struct clinux_address *to);
/* Raises the soft limit on open files to the hard one. */
int clinux_raise_open_file_limit(void);

/* Names what `path` leads to below the directory `at`, links included, with O_PATH. -EXDEV when it
   leads out of it; -ELOOP for links of /proc. */
int clinux_open_beneath(int at, const char *path);
/* A counter that is readable when it is not 0: signal adds, clear takes all. None of them blocks. */
int clinux_event_descriptor(void);
int clinux_event_signal(int fd);
int clinux_event_clear(int fd);

/* Locks a file for whoever has it open; -EWOULDBLOCK when somebody else has. */
static inline int clinux_lock_file(int fd) {
  return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}
static inline int clinux_unlock_file(int fd) { return flock(fd, LOCK_UN) < 0 ? -errno : 0; }
static inline int clinux_shutdown_reading(int fd) { return shutdown(fd, SHUT_RD) < 0 ? -errno : 0; }
static inline int clinux_shutdown_writing(int fd) { return shutdown(fd, SHUT_WR) < 0 ? -errno : 0; }
#endif
