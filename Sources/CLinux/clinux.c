// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <arpa/inet.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

static int argument_count;
static char **arguments;

/* glibc hands a constructor the arguments, musl does not. Both have set `environ` by then to where
   the kernel put it: behind the count, the arguments and a null pointer. */
__attribute__((constructor)) static void keep_arguments(void) {
  char **slot = environ - 1;
  int count = 0;
  while ((uintptr_t)slot[-1] != (uintptr_t)count) {
    slot--;
    count++;
  }
  arguments = slot;
  argument_count = count;
}
int clinux_argument_count(void) { return argument_count; }
const char *clinux_argument(int index) {
  return index >= 0 && index < argument_count ? arguments[index] : NULL;
}
const char *clinux_environment(const char *name) { return getenv(name); }

static uint64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
uint64_t clinux_monotonic_nanoseconds(void) { return now(CLOCK_MONOTONIC); }
uint64_t clinux_boottime_nanoseconds(void) { return now(CLOCK_BOOTTIME); }
int64_t clinux_realtime_seconds(void) { return (int64_t)time(NULL); }
void clinux_sleep_nanoseconds(uint64_t nanoseconds) {
  struct timespec t = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  while (nanosleep(&t, &t) < 0 && errno == EINTR) {
  }
}
uint64_t clinux_random(void) {
  uint64_t value = 0;
  while (getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value) {
    if (errno != EINTR) return now(CLOCK_MONOTONIC) * 0x9e3779b97f4a7c15u; /* too early in boot */
  }
  return value;
}
int clinux_wait(int pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}
int clinux_run(const char *words, size_t count) {
  const char *list[64];
  if (count == 0 || count >= 64) return -E2BIG;
  for (size_t index = 0; index < count; index++, words += strlen(words) + 1) list[index] = words;
  list[count] = NULL;
  pid_t pid = fork();
  if (pid < 0) return -errno;
  if (pid == 0) {
    execv(list[0], (char *const *)list);
    _exit(127);
  }
  return clinux_wait(pid);
}

static void take_status(const struct stat *s, struct clinux_status *into) {
  *into = (struct clinux_status){
      .size = s->st_size, .mtime_seconds = s->st_mtim.tv_sec, .device = s->st_dev,
      .inode = s->st_ino, .rdev = s->st_rdev, .mode = s->st_mode,
      .rdev_major = major(s->st_rdev), .rdev_minor = minor(s->st_rdev)};
}
int clinux_fstat(int fd, struct clinux_status *into) {
  struct stat s;
  if (fstat(fd, &s) < 0) return -errno;
  take_status(&s, into);
  return 0;
}
int clinux_stat(const char *path, struct clinux_status *into) {
  struct stat s;
  if (stat(path, &s) < 0) return -errno;
  take_status(&s, into);
  return 0;
}
int clinux_O_DIRECT(void) { return O_DIRECT; }
int clinux_O_PATH(void) { return O_PATH; }
int clinux_fallocate(int fd, int mode, int64_t offset, int64_t count) {
  return fallocate(fd, mode, offset, count) < 0 ? -errno : 0;
}
int clinux_opendir(const char *path, void **into) {
  *into = opendir(path);
  return *into ? 0 : -errno;
}
const char *clinux_readdir(void *directory) {
  struct dirent *entry = readdir(directory);
  return entry ? entry->d_name : NULL;
}
void clinux_closedir(void *directory) { closedir(directory); }

void clinux_address_v4(struct clinux_address *into, const uint8_t octets[4], uint16_t port) {
  memset(into, 0, sizeof *into);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  memcpy(&a.sin_addr, octets, 4);
  memcpy(&into->storage, &a, sizeof a);
  into->byte_count = sizeof a;
}
void clinux_address_v6(struct clinux_address *into, const uint8_t octets[16], uint16_t port,
                       uint32_t scope) {
  memset(into, 0, sizeof *into);
  struct sockaddr_in6 a = {
      .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = scope};
  memcpy(&a.sin6_addr, octets, 16);
  memcpy(&into->storage, &a, sizeof a);
  into->byte_count = sizeof a;
}
int clinux_address_unix(struct clinux_address *into, const uint8_t *path, size_t count) {
  memset(into, 0, sizeof *into);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (count >= sizeof a.sun_path) return -ENAMETOOLONG;
  memcpy(a.sun_path, path, count);
  memcpy(&into->storage, &a, sizeof a);
  int is_abstract = count > 0 && path[0] == 0;
  into->byte_count = (uint32_t)(offsetof(struct sockaddr_un, sun_path) + count + !is_abstract);
  return 0;
}
/* A text with room for so many characters and the zero that is always behind them. */
struct room {
  char *end;
  size_t left;
};
static void add_bytes(struct room *room, const char *text, size_t count) {
  if (count > room->left) count = room->left;
  memcpy(room->end, text, count);
  room->end += count;
  room->left -= count;
  *room->end = 0;
}
static void add(struct room *room, const char *text) { add_bytes(room, text, strlen(text)); }
static void add_number(struct room *room, unsigned number) {
  char digits[10];
  size_t first = sizeof digits;
  do digits[--first] = (char)('0' + number % 10);
  while (number /= 10);
  add_bytes(room, digits + first, sizeof digits - first);
}

/* What printf would do takes 10 KiB of the client. */
int clinux_address_text(const struct clinux_address *address, char *into, size_t count) {
  char text[INET6_ADDRSTRLEN], scope[IF_NAMESIZE];
  if (count == 0) return 0;
  struct room room = {.end = into, .left = count - 1};
  switch (address->storage.ss_family) {
  case AF_INET: {
    const struct sockaddr_in *a = (const void *)&address->storage;
    inet_ntop(AF_INET, &a->sin_addr, text, sizeof text);
    add(&room, text);
    add(&room, ":");
    add_number(&room, ntohs(a->sin_port));
    break;
  }
  case AF_INET6: {
    const struct sockaddr_in6 *a = (const void *)&address->storage;
    inet_ntop(AF_INET6, &a->sin6_addr, text, sizeof text);
    add(&room, "[");
    add(&room, text);
    if (a->sin6_scope_id && if_indextoname(a->sin6_scope_id, scope)) {
      add(&room, "%");
      add(&room, scope);
    }
    add(&room, "]:");
    add_number(&room, ntohs(a->sin6_port));
    break;
  }
  case AF_UNIX: {
    const struct sockaddr_un *a = (const void *)&address->storage;
    add(&room, "unix:");
    add_bytes(&room, a->sun_path, strnlen(a->sun_path, sizeof a->sun_path));
    break;
  }
  default:
    add(&room, "family ");
    add_number(&room, address->storage.ss_family);
  }
  return (int)(room.end - into);
}
uint32_t clinux_interface_index(const char *name) { return if_nametoindex(name); }

int clinux_accept(int fd, struct clinux_address *from) {
  socklen_t count = sizeof from->storage;
  int r = accept4(fd, (struct sockaddr *)&from->storage, &count, SOCK_CLOEXEC | SOCK_NONBLOCK);
  from->byte_count = count;
  return r < 0 ? -errno : r;
}
int clinux_local_address(int fd, struct clinux_address *into) {
  socklen_t count = sizeof into->storage;
  int r = getsockname(fd, (struct sockaddr *)&into->storage, &count);
  into->byte_count = count;
  return r < 0 ? -errno : 0;
}
int clinux_peer_address(int fd, struct clinux_address *into) {
  socklen_t count = sizeof into->storage;
  int r = getpeername(fd, (struct sockaddr *)&into->storage, &count);
  into->byte_count = count;
  return r < 0 ? -errno : 0;
}
long clinux_recvfrom(int fd, void *into, size_t count, struct clinux_address *from) {
  socklen_t length = sizeof from->storage;
  ssize_t n = recvfrom(fd, into, count, 0, (struct sockaddr *)&from->storage, &length);
  from->byte_count = length;
  return n < 0 ? -errno : n;
}
int clinux_socket_error(int fd) {
  int error = 0;
  socklen_t count = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &count) < 0) return -errno;
  return -error;
}
int clinux_set_blocking(int fd, int blocking) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  flags = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}
int clinux_bind_to_device(int fd, const char *interface) {
  return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, strlen(interface) + 1) < 0
             ? -errno : 0;
}
int clinux_poll(int fd, short events, int timeout_milliseconds) {
  struct pollfd p = {.fd = fd, .events = events};
  int n = poll(&p, 1, timeout_milliseconds);
  if (n < 0) return -errno;
  return n == 0 ? 0 : p.revents;
}
int clinux_netlink_open(int protocol, uint32_t groups) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) return -errno;
  struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = groups};
  if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
int clinux_netlink_join(int fd, uint32_t group) {
  return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0 ? -errno : 0;
}

#ifndef __GLIBC__
/* Embedded Swift seeds its hash tables with this; musl has no such function. */
void arc4random_buf(void *into, size_t count) {
  uint8_t *bytes = into;
  for (size_t index = 0; index < count; index++) bytes[index] = (uint8_t)clinux_random();
}
#endif
