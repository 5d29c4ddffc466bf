// SPDX-License-Identifier: Apache-2.0
// The static client is linked with musl and Debian's archives of librdmacm and libibverbs, which were
// compiled for glibc. They call its checked variants of common functions, which musl lacks: here they
// are. Structures that both sides share are alike in both libraries on 64-bit machines.
#ifdef RDMA_STATIC_PROVIDERS
#include <netdb.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int __vasprintf_chk(char **into, int flag, const char *format, va_list list);
int __asprintf_chk(char **into, int flag, const char *format, ...);
int __vfprintf_chk(FILE *file, int flag, const char *format, va_list list);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);
int __printf_chk(int flag, const char *format, ...);
int __snprintf_chk(char *into, size_t count, int flag, size_t room, const char *format, ...);
int __sprintf_chk(char *into, int flag, size_t room, const char *format, ...);
void __syslog_chk(int priority, int flag, const char *format, ...);
void *__memcpy_chk(void *into, const void *from, size_t count, size_t room);
ssize_t __pread_chk(int fd, void *into, size_t count, off_t offset, size_t room);
char *__strcpy_chk(char *into, const char *from, size_t room);
char *__strncat_chk(char *into, const char *from, size_t count, size_t room);
long __fdelt_chk(long descriptor);

/* The length was wrong already: there is nothing to go on with. */
static void check(size_t count, size_t room) {
  if (count > room) abort();
}

int __vasprintf_chk(char **into, int flag, const char *format, va_list list) {
  (void)flag;
  return vasprintf(into, format, list);
}
int __asprintf_chk(char **into, int flag, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int count = __vasprintf_chk(into, flag, format, list);
  va_end(list);
  return count;
}
int __vfprintf_chk(FILE *file, int flag, const char *format, va_list list) {
  (void)flag;
  return vfprintf(file, format, list);
}
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int count = __vfprintf_chk(file, flag, format, list);
  va_end(list);
  return count;
}
int __printf_chk(int flag, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int count = __vfprintf_chk(stderr, flag, format, list); /* Standard output is for results. */
  va_end(list);
  return count;
}
int __snprintf_chk(char *into, size_t count, int flag, size_t room, const char *format, ...) {
  (void)flag;
  check(count, room);
  va_list list;
  va_start(list, format);
  int length = vsnprintf(into, count, format, list);
  va_end(list);
  return length;
}
int __sprintf_chk(char *into, int flag, size_t room, const char *format, ...) {
  (void)flag;
  va_list list;
  va_start(list, format);
  int length = vsnprintf(into, room, format, list);
  va_end(list);
  if (length >= 0) check((size_t)length + 1, room);
  return length;
}
/* syslog(3) would open a socket, and nobody is there to read it. */
void __syslog_chk(int priority, int flag, const char *format, ...) {
  (void)priority;
  (void)flag;
  (void)format;
}
void *__memcpy_chk(void *into, const void *from, size_t count, size_t room) {
  check(count, room);
  return memcpy(into, from, count);
}
ssize_t __pread_chk(int fd, void *into, size_t count, off_t offset, size_t room) {
  check(count, room);
  return pread(fd, into, count, offset);
}
char *__strcpy_chk(char *into, const char *from, size_t room) {
  check(strlen(from) + 1, room);
  return strcpy(into, from);
}
char *__strncat_chk(char *into, const char *from, size_t count, size_t room) {
  check(strlen(into) + strnlen(from, count) + 1, room);
  return strncat(into, from, count);
}
long __fdelt_chk(long descriptor) {
  if (descriptor < 0) abort();
  check((size_t)descriptor, 1023); /* FD_SETSIZE - 1 */
  return descriptor / (long)(8 * sizeof(long));
}

/* librdmacm can look up names; we give it addresses, and it must not look. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **into) {
  (void)name;
  (void)service;
  (void)hints;
  (void)into;
  return EAI_FAIL;
}
void freeaddrinfo(struct addrinfo *list) { (void)list; }
#else
typedef int cverbs_nothing_static; /* A translation unit has at least one declaration. */
#endif
