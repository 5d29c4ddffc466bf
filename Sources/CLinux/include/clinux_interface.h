// SPDX-License-Identifier: Apache-2.0
#ifndef ROOTLINK_CLINUX_INTERFACE_H
#define ROOTLINK_CLINUX_INTERFACE_H
#include "clinux_socket.h"
#include <net/if.h>
#include <stdint.h>

/* A network interface and the prefix of one of its addresses. */
struct clinux_interface {
  char name[IF_NAMESIZE];
  uint32_t index;
  uint32_t prefix_length;
  uint8_t hardware_address[8]; /* The first hardware_byte_count of them. */
  uint32_t hardware_byte_count; /* 6 for Ethernet; 0 when it has none, or one longer than 8. */
};

/* The interface that holds the address of `local`; its port does not matter. -ENODEV for none. */
int clinux_interface_holding(const struct clinux_address *local, struct clinux_interface *into);

/* Takes the lifetime from the address of `local`: it stays until somebody removes it. 0 also when it
 * had none; -ENODEV when this machine has no such address. */
int clinux_keep_address(const struct clinux_address *local);
#endif
