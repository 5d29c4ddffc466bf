// SPDX-License-Identifier: Apache-2.0
// What the first process of a machine needs: mounts, modules, programs, raw sockets.
#ifndef ROOTLINK_CLINUX_INIT_H
#define ROOTLINK_CLINUX_INIT_H
#include "clinux_socket.h"
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* `type` and `data` may be NULL. */
static inline int clinux_mount(const char *source, const char *target, const char *type,
                               unsigned long flags, const char *data) {
  return mount(source, target, type, flags, data) < 0 ? -errno : 0;
}
static inline int clinux_detach_mount(const char *target) {
  return umount2(target, MNT_DETACH) < 0 ? -errno : 0;
}
static const unsigned long clinux_MS_RDONLY = MS_RDONLY, clinux_MS_NOSUID = MS_NOSUID,
                           clinux_MS_NODEV = MS_NODEV, clinux_MS_NOEXEC = MS_NOEXEC,
                           clinux_MS_SYNCHRONOUS = MS_SYNCHRONOUS, clinux_MS_DIRSYNC = MS_DIRSYNC,
                           clinux_MS_NOATIME = MS_NOATIME, clinux_MS_NODIRATIME = MS_NODIRATIME,
                           clinux_MS_RELATIME = MS_RELATIME,
                           clinux_MS_STRICTATIME = MS_STRICTATIME, clinux_MS_MOVE = MS_MOVE,
                           clinux_MS_SILENT = MS_SILENT,
                           clinux_MS_LAZYTIME = 1 << 25; /* Not in every libc; linux/mount.h. */

/* `parameters` as on insmod(8)'s line. */
static inline int clinux_load_module(int fd, const char *parameters) {
  return syscall(SYS_finit_module, fd, parameters, 0) < 0 ? -errno : 0;
}
/* Replaces this program, the environment kept. `words` holds `count` NUL-terminated words, the
   path first; -E2BIG over 255. Comes back only when it cannot be done. */
int clinux_execute(const char *words, size_t count);
/* The next child that has ended: its number, and in `status` its exit status or 256 + the signal.
   A negated errno when there is no child. */
int clinux_wait_any(int *status);
int clinux_set_host_name(const char *name, size_t count);
/* Standard streams to `path` where they are not open. */
int clinux_open_streams(const char *path);
/* In a child: a session of its own with the terminal `path` as its standard streams. */
int clinux_take_terminal(const char *path);
static inline int clinux_chdir(const char *path) { return chdir(path) < 0 ? -errno : 0; }
static inline int clinux_chroot(const char *path) { return chroot(path) < 0 ? -errno : 0; }
/* 0 when this process may execute `path`. */
static inline int clinux_may_execute(const char *path) {
  return access(path, X_OK) < 0 ? -errno : 0;
}
static inline void clinux_default_signal(int number) { signal(number, SIG_DFL); }
static inline void clinux_sync(void) { sync(); }
/* Removes all that lies in `path` on its own file system, which must live in memory (ramfs or
   tmpfs; -EXDEV for another). What cannot be removed stays. */
int clinux_remove_contents(const char *path);

/* IPv4 datagrams with their headers, of every interface's peer or to all, over one interface. */
int clinux_packet_socket(uint32_t interface);
int clinux_packet_broadcast(int fd, uint32_t interface, const void *bytes, size_t count);
/* Never blocks. `is_checksum_complete` is 0 when the sender left the UDP checksum to hardware. */
long clinux_packet_receive(int fd, void *into, size_t count, int *is_checksum_complete);

/* Router advertisements that come over one interface. */
int clinux_router_socket(uint32_t interface);
/* Asks all routers of the link. */
int clinux_router_solicit(int fd, uint32_t interface, const void *bytes, size_t count);
/* Never blocks; 0 for a message that did not come from a link-local address with hop limit 255. */
long clinux_router_receive(int fd, void *into, size_t count);

enum { clinux_NETLINK_ROUTE = 0, clinux_SO_BROADCAST = SO_BROADCAST };
#endif
