// SPDX-License-Identifier: Apache-2.0
// What the generator is told to do, and what it does before and after: fill, disconnect, give up.

#define _GNU_SOURCE
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("load: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

void *need(void *memory) {
  if (!memory) fail("out of memory");
  return memory;
}

uint64_t parse_number(const char *text, const char *what, uint64_t maximum) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno || *end || end == text || value > maximum) fail("%s: a number is expected", what);
  return value;
}

void parse_job(char *text, struct job *job) {
  *job = (struct job){.block = 4096, .depth = 1, .connections = 1, .threads = 1};
  job->text = need(strdup(text));
  for (char *word; (word = strsep(&text, ","));) {
    char *value = strchr(word, '=');
    if (value) *value++ = 0;
    if (!strcmp(word, "read")) job->write_percent = 0;
    else if (!strcmp(word, "write")) job->write_percent = 100;
    else if (!strcmp(word, "handshake")) job->kind = KIND_HANDSHAKE;
    else if (!strcmp(word, "idle")) job->kind = KIND_IDLE;
    else if (!strcmp(word, "random")) job->random = true;
    else if (!strcmp(word, "sequential")) job->random = false;
    else if (!value) fail("job '%s': unknown word '%s'", job->text, word);
    else if (!strcmp(word, "writes")) job->write_percent = (unsigned)parse_number(value, word, 100);
    else if (!strcmp(word, "block"))
      job->block = (uint32_t)parse_number(value, word, REQUEST_MAXIMUM);
    else if (!strcmp(word, "depth"))
      job->depth = (unsigned)parse_number(value, word, DEPTH_MAXIMUM);
    else if (!strcmp(word, "connections"))
      job->connections = (unsigned)parse_number(value, word, 20000);
    else if (!strcmp(word, "threads")) job->threads = (unsigned)parse_number(value, word, 64);
    else if (!strcmp(word, "span")) job->span = parse_number(value, word, INT64_MAX);
    else if (!strcmp(word, "count")) job->count = parse_number(value, word, INT64_MAX);
    else fail("job '%s': unknown setting '%s'", job->text, word);
  }
  if (!job->block || !job->depth || !job->connections || !job->threads)
    fail("job '%s': nothing to do", job->text);
  if (job->threads > job->connections && job->kind != KIND_HANDSHAKE)
    job->threads = job->connections;
}

void disconnect(int fd) {
  uint8_t request[REQUEST_BYTES], rest[64];
  put_request(request, CMD_DISC, 0, 0, 0);
  // What the server did with it shows in its closing the connection.
  if (send_all(fd, request, sizeof request))
    while (recv(fd, rest, sizeof rest, 0) > 0) continue;
  close(fd);
}

int fill_export(const struct address *server, const char *export, uint64_t byte_count,
                const uint8_t *pattern) {
  uint8_t request[REQUEST_BYTES], reply[REPLY_BYTES];
  uint64_t size;
  const char *why;
  int fd = enter_export(server, export, &size, &why);
  if (fd < 0) fail("%s", why);
  for (uint64_t offset = 0; offset < byte_count && offset < size;) {
    uint64_t left = (byte_count < size ? byte_count : size) - offset;
    uint32_t part = left < REQUEST_MAXIMUM ? (uint32_t)left : REQUEST_MAXIMUM;
    put_request(request, CMD_WRITE, 0, offset, part);
    if (!send_all(fd, request, sizeof request) ||
        !send_all(fd, pattern_at(pattern, offset), part) ||
        !receive_all(fd, reply, sizeof reply) || get32(reply) != REPLY_MAGIC || get32(reply + 4))
      fail("the server did not take the pattern");
    offset += part;
  }
  disconnect(fd);
  return 0;
}

int fill_file(const char *path, uint64_t byte_count, const uint8_t *pattern) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail("%s: %s", path, strerror(errno));
  for (uint64_t offset = 0; offset < byte_count;) {
    size_t part = byte_count - offset < REQUEST_MAXIMUM ? byte_count - offset : REQUEST_MAXIMUM;
    ssize_t written = write(fd, pattern_at(pattern, offset), part);
    if (written <= 0) fail("%s: %s", path, strerror(errno));
    offset += (uint64_t)written;
  }
  return close(fd) == 0 ? 0 : 1;
}
