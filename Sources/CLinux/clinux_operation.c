// SPDX-License-Identifier: Apache-2.0
#include "CLinux.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

int clinux_parse_address(const char *text, uint8_t into[16]) {
  if (inet_pton(AF_INET, text, into) == 1) return 4;
  return inet_pton(AF_INET6, text, into) == 1 ? 16 : 0;
}
void clinux_format_address(const uint8_t *octets, int count, char *into) {
  into[0] = 0;
  inet_ntop(count == 4 ? AF_INET : AF_INET6, octets, into, INET6_ADDRSTRLEN);
}

int clinux_is_listening(int fd) {
  int type = 0, listens = 0;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM) return 0;
  size = sizeof listens;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}
int clinux_set_close_on_exec(int fd) {
  return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

void clinux_remove_from_environment(const char *name) { unsetenv(name); }

int clinux_file_identity(int fd, uint64_t *device, uint64_t *inode) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  *device = status.st_dev;
  *inode = status.st_ino;
  return 0;
}

void clinux_own_usage(struct clinux_usage *into) {
  memset(into, 0, sizeof *into);
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    into->cpu_microseconds =
        (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
        (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    into->resident_maximum_bytes = (uint64_t)usage.ru_maxrss * 1024;
  }
  FILE *file = fopen("/proc/self/statm", "re");
  if (file) {
    unsigned long long size, resident;
    if (fscanf(file, "%llu %llu", &size, &resident) == 2)
      into->resident_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    fclose(file);
  }
  DIR *directory = opendir("/proc/self/fd");
  if (directory) {
    while (readdir(directory)) into->descriptor_count++;
    /* `.`, `..` and the directory itself. */
    into->descriptor_count -= into->descriptor_count > 3 ? 3 : into->descriptor_count;
    closedir(directory);
  }
}
