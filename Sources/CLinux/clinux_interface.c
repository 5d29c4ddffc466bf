// SPDX-License-Identifier: Apache-2.0
#include "clinux_interface.h"
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <stdio.h>

/* The octets of an IP address and their count; 0 for another family. */
static size_t octets_of(const struct sockaddr *address, const uint8_t **octets) {
  switch (address ? address->sa_family : AF_UNSPEC) {
  case AF_INET:
    *octets = (const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
    return 4;
  case AF_INET6:
    *octets = (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    return 16;
  default:
    return 0;
  }
}

int clinux_interface_holding(const struct clinux_address *local, struct clinux_interface *into) {
  const uint8_t *wanted, *held, *mask;
  size_t count = octets_of((const struct sockaddr *)(const void *)&local->storage, &wanted);
  memset(into, 0, sizeof *into);
  if (count == 0) return -EAFNOSUPPORT;
  struct ifaddrs *list;
  if (getifaddrs(&list) < 0) return -errno;
  for (struct ifaddrs *one = list; one && into->index == 0; one = one->ifa_next) {
    if (octets_of(one->ifa_addr, &held) != count || memcmp(held, wanted, count) != 0) continue;
    into->index = if_nametoindex(one->ifa_name);
    snprintf(into->name, sizeof into->name, "%s", one->ifa_name);
    if (octets_of(one->ifa_netmask, &mask) == count)
      for (size_t i = 0; i < count; i++)
        into->prefix_length += (uint32_t)__builtin_popcount(mask[i]);
  }
  for (struct ifaddrs *one = list; one && into->index != 0; one = one->ifa_next) {
    if (!one->ifa_addr || one->ifa_addr->sa_family != AF_PACKET) continue;
    const struct sockaddr_ll *link = (const void *)one->ifa_addr;
    if (link->sll_ifindex != (int)into->index) continue;
    if (link->sll_halen > sizeof into->hardware_address) continue;
    memcpy(into->hardware_address, link->sll_addr, link->sll_halen);
    into->hardware_byte_count = link->sll_halen;
  }
  freeifaddrs(list);
  return into->index != 0 ? 0 : -ENODEV;
}
