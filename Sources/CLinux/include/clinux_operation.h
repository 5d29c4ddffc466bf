// SPDX-License-Identifier: Apache-2.0
// What a server needs of libc to live beside a service manager, and to tell addresses apart.
#ifndef ROOTLINK_CLINUX_OPERATION_H
#define ROOTLINK_CLINUX_OPERATION_H
#include "clinux_socket.h"
#include <stdint.h>

/* Numeric text, without brackets, port and scope: 4 or 16 octets are written, and their number is
   the result; 0 for anything else. */
int clinux_parse_address(const char *text, uint8_t into[16]);
/* `count` is 4 or 16; as inet_ntop(3) writes it. `into` has room for 46 bytes. */
void clinux_format_address(const uint8_t *octets, int count, char *into);

/* 1 for a stream socket that waits for connections, else 0. */
int clinux_is_listening(int fd);
int clinux_set_close_on_exec(int fd);

void clinux_remove_from_environment(const char *name);

/* Device and inode of an open file; 0, or a negated errno. */
int clinux_file_identity(int fd, uint64_t *device, uint64_t *inode);

/* Of this process: seconds of CPU time in microseconds, bytes resident, its greatest, descriptors
   in use. What cannot be told is 0. */
struct clinux_usage {
  uint64_t cpu_microseconds, resident_bytes, resident_maximum_bytes, descriptor_count;
};
void clinux_own_usage(struct clinux_usage *into);
#endif
