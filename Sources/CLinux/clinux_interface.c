// SPDX-License-Identifier: Apache-2.0
#include "clinux_interface.h"
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>

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
    memcpy(into->name, one->ifa_name, strnlen(one->ifa_name, sizeof into->name - 1));
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

/* The attribute of an address message that has `type`; NULL for none. */
static struct rtattr *attribute(struct nlmsghdr *message, unsigned type) {
  int rest = (int)IFA_PAYLOAD(message);
  for (struct rtattr *one = IFA_RTA(NLMSG_DATA(message)); RTA_OK(one, rest);
       one = RTA_NEXT(one, rest))
    if (one->rta_type == type) return one;
  return NULL;
}

static int holds(struct nlmsghdr *message, const uint8_t *octets, size_t count) {
  struct rtattr *address = attribute(message, IFA_LOCAL); /* IPv6 has only IFA_ADDRESS. */
  if (!address) address = attribute(message, IFA_ADDRESS);
  return address && RTA_PAYLOAD(address) == count && memcmp(RTA_DATA(address), octets, count) == 0;
}

/* Sends the message back as the kernel gave it, but for the lifetimes; the rest stays as it is. */
static int without_lifetime(int fd, struct nlmsghdr *message) {
  struct rtattr *times = attribute(message, IFA_CACHEINFO);
  if (!times || RTA_PAYLOAD(times) < sizeof(struct ifa_cacheinfo)) return 0;
  struct ifa_cacheinfo *lifetime = RTA_DATA(times);
  if (lifetime->ifa_valid == UINT32_MAX) return 0;
  lifetime->ifa_valid = lifetime->ifa_prefered = UINT32_MAX;
  message->nlmsg_type = RTM_NEWADDR;
  message->nlmsg_flags = NLM_F_REQUEST | NLM_F_REPLACE | NLM_F_ACK;
  message->nlmsg_pid = 0;
  message->nlmsg_seq = 2;
  if (send(fd, message, message->nlmsg_len, 0) < 0) return -errno;
  union {
    struct nlmsghdr header;
    char bytes[4096];
  } answer;
  for (;;) {
    ssize_t n = recv(fd, &answer, sizeof answer, 0);
    if (n < 0) return -errno;
    if (!NLMSG_OK(&answer.header, (unsigned)n)) return -EBADMSG;
    if (answer.header.nlmsg_type != NLMSG_ERROR || answer.header.nlmsg_seq != 2) continue;
    return ((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error;
  }
}

int clinux_keep_address(const struct clinux_address *local) {
  const uint8_t *octets;
  size_t count = octets_of((const struct sockaddr *)(const void *)&local->storage, &octets);
  if (count == 0) return -EAFNOSUPPORT;
  int fd = clinux_netlink_open(NETLINK_ROUTE, 0);
  if (fd < 0) return fd;
  struct {
    struct nlmsghdr header;
    struct ifaddrmsg address;
  } request = {.header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_GETADDR,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1},
               .address = {.ifa_family = (uint8_t)local->storage.ss_family}};
  static union {
    struct nlmsghdr header;
    char bytes[65536];
  } batch, found;
  int result = send(fd, &request, sizeof request, 0) < 0 ? -errno : 0, is_done = 0;
  found.header.nlmsg_len = 0;
  while (result == 0 && !is_done) {
    ssize_t n = recv(fd, &batch, sizeof batch, 0);
    if (n < 0) result = -errno;
    unsigned rest = n < 0 ? 0 : (unsigned)n;
    for (struct nlmsghdr *one = &batch.header; NLMSG_OK(one, rest); one = NLMSG_NEXT(one, rest)) {
      if (one->nlmsg_type == NLMSG_DONE || one->nlmsg_type == NLMSG_ERROR) is_done = 1;
      if (one->nlmsg_type == RTM_NEWADDR && holds(one, octets, count))
        memcpy(&found, one, one->nlmsg_len);
    }
  }
  if (result == 0)
    result = found.header.nlmsg_len ? without_lifetime(fd, &found.header) : -ENODEV;
  close(fd);
  return result;
}
