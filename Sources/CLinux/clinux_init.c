// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/icmp6.h>
#include <sys/vfs.h>

int clinux_execute(const char *words, size_t count) {
  const char *list[256];
  if (count == 0 || count >= 256) return -E2BIG;
  for (size_t index = 0; index < count; index++, words += strlen(words) + 1) list[index] = words;
  list[count] = NULL;
  execv(list[0], (char *const *)list);
  return -errno;
}
int clinux_wait_any(int *status) {
  int raw;
  pid_t pid;
  while ((pid = waitpid(-1, &raw, 0)) < 0)
    if (errno != EINTR) return -errno;
  *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 256 + WTERMSIG(raw);
  return pid;
}
int clinux_set_host_name(const char *name, size_t count) {
  return sethostname(name, count) < 0 ? -errno : 0;
}
int clinux_open_streams(const char *path) {
  for (;;) {
    int fd = open(path, O_RDWR | O_NOCTTY);
    if (fd < 0) return -errno;
    if (fd <= 2) continue; /* The lowest number that was free. */
    close(fd);
    return 0;
  }
}
int clinux_take_terminal(const char *path) {
  setsid();
  int fd = open(path, O_RDWR);
  if (fd < 0) return -errno;
  ioctl(fd, TIOCSCTTY, 1);
  for (int stream = 0; stream <= 2; stream++) dup2(fd, stream);
  if (fd > 2) close(fd);
  return 0;
}

/* Takes `directory`. Depth is bounded by the descriptors that a process may have. */
static void remove_below(int directory, dev_t device) {
  DIR *list = fdopendir(directory);
  if (!list) {
    close(directory);
    return;
  }
  for (struct dirent *entry; (entry = readdir(list));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    struct stat status;
    if (fstatat(dirfd(list), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (status.st_dev != device) continue; /* Somebody mounted something there. */
    if (!S_ISDIR(status.st_mode)) {
      unlinkat(dirfd(list), entry->d_name, 0);
      continue;
    }
    int below = openat(dirfd(list), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below >= 0) remove_below(below, device);
    unlinkat(dirfd(list), entry->d_name, AT_REMOVEDIR);
  }
  closedir(list);
}
int clinux_remove_contents(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct statfs kind;
  struct stat status;
  int error = fstatfs(fd, &kind) < 0 || fstat(fd, &status) < 0 ? errno : 0;
  /* Source: RAMFS_MAGIC, TMPFS_MAGIC in Linux include/uapi/linux/magic.h. */
  if (!error && (unsigned)kind.f_type != 0x858458f6u && (unsigned)kind.f_type != 0x01021994u)
    error = EXDEV;
  if (error) {
    close(fd);
    return -error;
  }
  remove_below(fd, status.st_dev);
  return 0;
}

int clinux_packet_socket(uint32_t interface) {
  int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_IP));
  if (fd < 0) return -errno;
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)interface};
  int one = 1;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
int clinux_packet_broadcast(int fd, uint32_t interface, const void *bytes, size_t count) {
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP),
                           .sll_ifindex = (int)interface, .sll_halen = 6,
                           .sll_addr = {255, 255, 255, 255, 255, 255}};
  return sendto(fd, bytes, count, MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}
long clinux_packet_receive(int fd, void *into, size_t count, int *is_checksum_complete) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
  } control;
  struct iovec part = {into, count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                           .msg_controllen = sizeof control};
  *is_checksum_complete = 1;
  ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);
  if (n < 0) return -errno;
  struct cmsghdr *one = CMSG_FIRSTHDR(&message); /* Only one kind was asked for. */
  if (one && one->cmsg_level == SOL_PACKET && one->cmsg_type == PACKET_AUXDATA) {
    struct tpacket_auxdata data;
    memcpy(&data, CMSG_DATA(one), sizeof data);
    if (data.tp_status & TP_STATUS_CSUMNOTREADY) *is_checksum_complete = 0;
  }
  return n;
}

int clinux_router_socket(uint32_t interface) {
  int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6);
  if (fd < 0) return -errno;
  struct icmp6_filter filter;
  ICMP6_FILTER_SETBLOCKALL(&filter);
  ICMP6_FILTER_SETPASS(ND_ROUTER_ADVERT, &filter);
  int one = 1, hops = 255, index = (int)interface;
  char name[IF_NAMESIZE];
  if (!if_indextoname(interface, name) ||
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, strlen(name) + 1) < 0 ||
      setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter) < 0 ||
      setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one) < 0 ||
      setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops) < 0 ||
      setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
int clinux_router_solicit(int fd, uint32_t interface, const void *bytes, size_t count) {
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_scope_id = interface};
  to.sin6_addr.s6_addr[0] = 0xff; /* ff02::2 */
  to.sin6_addr.s6_addr[1] = 0x02;
  to.sin6_addr.s6_addr[15] = 2;
  return sendto(fd, bytes, count, MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}
long clinux_router_receive(int fd, void *into, size_t count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct sockaddr_in6 from = {0};
  struct iovec part = {into, count};
  struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part,
                           .msg_iovlen = 1, .msg_control = &control,
                           .msg_controllen = sizeof control};
  ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);
  if (n < 0) return -errno;
  int hops = 0;
  struct cmsghdr *one = CMSG_FIRSTHDR(&message);
  if (one && one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_HOPLIMIT)
    memcpy(&hops, CMSG_DATA(one), sizeof hops);
  return hops == 255 && IN6_IS_ADDR_LINKLOCAL(&from.sin6_addr) ? n : 0;
}
