// SPDX-License-Identifier: Apache-2.0
// limit: what the sockets and the copy alone cost. A responder that believes everything it is told:
// no offset, length or flag is checked, so let nobody else connect to it.
//
//   limit [OPTION...] unix:PATH|tcp:ADDRESS:PORT FILE
//
// The file is mapped. One receive takes all requests that have arrived, and the replies to all of
// them leave in one call, data straight from the mapping; long reads go by sendfile(2). What is
// written is copied into the mapping, or received there if it is long.
//
// A thread serves one connection and waits in its receive, or, with --threads, so many threads
// serve all connections that epoll finds ready. Neither is best for everything.

#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client.h"
#include "wire.h"

int limit_file;
uint64_t limit_file_bytes;

static uint8_t *mapping;
static uint32_t sendfile_from = 64 << 10;
static int listener;

struct connection {
  int fd;
  // Received: what lies between `looked` and `have` has not been looked at yet.
  uint8_t *buffer;
  size_t have, looked;
  // The rest of a long write: where it belongs, and what to answer then.
  uint8_t *write_to;
  size_t write_left;
  uint64_t write_cookie;
};

// What one thread is about to send.
struct outbox {
  struct iovec pieces[2 * REPLIES];
  uint8_t replies[REPLIES][REPLY_BYTES];
  unsigned piece_count, reply_count;
};

bool limit_send(int fd, struct iovec *piece, size_t count, int flags) {
  for (struct iovec *end = piece + count; piece < end;) {
    struct msghdr message = {.msg_iov = piece, .msg_iovlen = (size_t)(end - piece)};
    ssize_t sent = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    size_t left = (size_t)sent;
    for (; piece < end && left >= piece->iov_len; piece++) left -= piece->iov_len;
    if (left == 0) continue;
    piece->iov_base = (uint8_t *)piece->iov_base + left;
    piece->iov_len -= left;
  }
  return true;
}

static bool send_out(int fd, struct outbox *outbox, int flags) {
  size_t count = outbox->piece_count;
  outbox->piece_count = outbox->reply_count = 0;
  return limit_send(fd, outbox->pieces, count, flags);
}

static void add_reply(struct outbox *outbox, uint64_t cookie, const uint8_t *data, size_t length) {
  uint8_t *reply = outbox->replies[outbox->reply_count++];
  put32(reply, REPLY_MAGIC);
  put32(reply + 4, 0);
  put64(reply + 8, cookie);
  outbox->pieces[outbox->piece_count++] = (struct iovec){reply, REPLY_BYTES};
  if (length > 0)
    outbox->pieces[outbox->piece_count++] = (struct iovec){(void *)(uintptr_t)data, length};
}

static bool send_from_file(int fd, uint64_t offset, size_t left) {
  for (off_t position = (off_t)offset; left > 0;) {
    ssize_t sent = sendfile(fd, limit_file, &position, left);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    left -= (size_t)sent;
  }
  return true;
}

// Does what the requests in the buffer ask for. False when the client is gone.
static bool answer(struct connection *connection, struct outbox *outbox) {
  while (connection->have - connection->looked >= REQUEST_BYTES) {
    const uint8_t *request = connection->buffer + connection->looked;
    uint64_t cookie = get64(request + 8), offset = get64(request + 16);
    uint32_t length = get32(request + 24);
    connection->looked += REQUEST_BYTES;
    switch (get16(request + 6)) {
      case CMD_READ:
        if (length >= sendfile_from) {
          add_reply(outbox, cookie, NULL, 0);
          if (!send_out(connection->fd, outbox, MSG_MORE)) return false;
          if (!send_from_file(connection->fd, offset, length)) return false;
        } else {
          add_reply(outbox, cookie, mapping + offset, length);
        }
        break;
      case CMD_WRITE: {
        size_t here = connection->have - connection->looked;
        if (here > length) here = length;
        memcpy(mapping + offset, connection->buffer + connection->looked, here);
        connection->looked += here;
        if (here == length) {
          add_reply(outbox, cookie, NULL, 0);
          break;
        }
        connection->write_to = mapping + offset + here;
        connection->write_left = length - here;
        connection->write_cookie = cookie;
        break;
      }
      case CMD_DISC:
        return false;
      default:
        add_reply(outbox, cookie, NULL, 0);
    }
    if (outbox->reply_count == REPLIES && !send_out(connection->fd, outbox, 0)) return false;
  }
  return send_out(connection->fd, outbox, 0);
}

// One receive, and what follows from it. False when the client is gone.
static bool serve_some(struct connection *connection, struct outbox *outbox, int flags) {
  if (connection->write_left > 0) {
    ssize_t received = recv(connection->fd, connection->write_to, connection->write_left, flags);
    if (received <= 0) return received < 0 && (errno == EAGAIN || errno == EINTR);
    connection->write_to += received;
    connection->write_left -= (size_t)received;
    if (connection->write_left > 0) return true;
    add_reply(outbox, connection->write_cookie, NULL, 0);
    return send_out(connection->fd, outbox, 0);
  }
  if (connection->looked > 0) {
    connection->have -= connection->looked;
    memmove(connection->buffer, connection->buffer + connection->looked, connection->have);
    connection->looked = 0;
  }
  ssize_t received = recv(connection->fd, connection->buffer + connection->have,
                          LIMIT_BUFFER_BYTES - connection->have, flags);
  if (received <= 0) return received < 0 && (errno == EAGAIN || errno == EINTR);
  connection->have += (size_t)received;
  return answer(connection, outbox);
}

// MARK: The handshake

static bool reply_to_option(int fd, uint32_t option, uint32_t type) {
  uint8_t out[2 * OPTION_REPLY_BYTES + 12], *at = out;
  if (option == OPT_GO) {
    put64(at, OPTION_REPLY_MAGIC);
    put32(at + 8, option);
    put32(at + 12, REP_INFO);
    put32(at + 16, 12);
    put16(at + 20, INFO_EXPORT);
    put64(at + 22, limit_file_bytes);
    put16(at + 30, 1 | 4 | 0x100);  // HAS_FLAGS, SEND_FLUSH, CAN_MULTI_CONN.
    at += OPTION_REPLY_BYTES + 12;
  }
  put64(at, OPTION_REPLY_MAGIC);
  put32(at + 8, option);
  put32(at + 12, type);
  put32(at + 16, 0);
  return send_all(fd, out, (size_t)(at - out) + OPTION_REPLY_BYTES);
}

bool limit_handshake(int fd) {
  uint8_t greeting[GREETING_BYTES], head[4 + OPTION_BYTES], data[4096];
  put64(greeting, GREETING_MAGIC);
  put64(greeting + 8, OPTION_MAGIC);
  put16(greeting + 16, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
  if (!send_all(fd, greeting, sizeof greeting)) return false;
  // The flags come with the first option in one call.
  for (size_t flags = 4;; flags = 0) {
    uint8_t *option = head + 4;
    if (!receive_all(fd, option - flags, flags + OPTION_BYTES)) return false;
    uint32_t length = get32(option + 12);
    if (length > sizeof data || !receive_all(fd, data, length)) return false;
    switch (get32(option + 8)) {
      case OPT_GO:
        return reply_to_option(fd, OPT_GO, REP_ACK);
      case OPT_ABORT:
        return reply_to_option(fd, OPT_ABORT, REP_ACK) && false;
      default:
        if (!reply_to_option(fd, get32(option + 8), REP_ERR_UNSUP)) return false;
    }
  }
}

// MARK: Threads

static void *serve_one(void *argument) {
  static __thread struct outbox outbox;
  struct connection connection = {.fd = (int)(intptr_t)argument};
  connection.buffer = malloc(LIMIT_BUFFER_BYTES);
  if (connection.buffer && limit_handshake(connection.fd))
    while (serve_some(&connection, &outbox, 0)) continue;
  free(connection.buffer);
  close(connection.fd);
  return NULL;
}

static void *serve_one_direct(void *argument) {
  int fd = (int)(intptr_t)argument;
  if (limit_handshake(fd)) limit_serve_direct(fd);
  close(fd);
  return NULL;
}

static int accept_one(void) {
  int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

// One of the threads that share all connections. The handshake is waited for: this client is quick.
static void *serve_ready(void *argument) {
  static __thread struct outbox outbox;
  int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = NULL};
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    struct epoll_event events[64];
    int ready = epoll_wait(set, events, 64, -1);
    for (int i = 0; i < ready; i++) {
      struct connection *connection = events[i].data.ptr;
      if (connection) {
        if (serve_some(connection, &outbox, MSG_DONTWAIT)) continue;
        close(connection->fd);
        free(connection->buffer);
        free(connection);
        continue;
      }
      int fd = accept_one();
      connection = fd < 0 ? NULL : calloc(1, sizeof *connection);
      if (!connection) continue;
      connection->fd = fd;
      connection->buffer = malloc(LIMIT_BUFFER_BYTES);
      event = (struct epoll_event){.events = EPOLLIN, .data.ptr = connection};
      if (connection->buffer && limit_handshake(fd) &&
          epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0)
        continue;
      close(fd);
      free(connection->buffer);
      free(connection);
    }
  }
  return argument;
}

static int fail(const char *what) {
  fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argument_count, char **arguments) {
  unsigned threads = 0;
  bool direct = false;
  static const struct option options[] = {
      {"threads", required_argument, NULL, 't'},
      {"sendfile-from", required_argument, NULL, 's'},
      {"direct", no_argument, NULL, 'd'},
      {NULL, 0, NULL, 0},
  };
  for (int option; (option = getopt_long(argument_count, arguments, "", options, NULL)) != -1;) {
    if (option == 't') threads = (unsigned)atoi(optarg);
    else if (option == 's') sendfile_from = (uint32_t)atoll(optarg);
    else if (option == 'd') direct = true;
    else return 2;
  }
  struct address address;
  if (argument_count - optind != 2 || !parse_address(arguments[optind], &address)) {
    fputs("Usage: limit [--threads=N] [--sendfile-from=BYTES] [--direct]\n"
          "             unix:PATH|tcp:ADDRESS:PORT FILE\n", stderr);
    return 2;
  }
  const char *path = arguments[optind + 1];
  struct stat status;
  limit_file = open(path, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (limit_file < 0 || fstat(limit_file, &status) < 0) return fail(path);
  limit_file_bytes = (uint64_t)status.st_size;
  if (!direct) {
    mapping = mmap(NULL, limit_file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                   limit_file, 0);
    if (mapping == MAP_FAILED) return fail("mmap");
  }
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  int one = 1;
  listener = socket(address.name.ss_family,
                    SOCK_STREAM | SOCK_CLOEXEC | (threads > 0 ? SOCK_NONBLOCK : 0), 0);
  if (address.name.ss_family == AF_INET)
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address.name, address.length) < 0) return fail("bind");
  if (listen(listener, 4096) < 0) return fail("listen");

  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 256 << 10);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  for (unsigned i = 1; i < threads; i++)
    if (pthread_create(&thread, &attributes, serve_ready, NULL) != 0) return fail("pthread_create");
  if (threads > 0) serve_ready(NULL);
  for (;;) {
    int fd = accept_one();
    if (fd < 0) continue;
    void *(*serve)(void *) = direct ? serve_one_direct : serve_one;
    if (pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd) != 0) close(fd);
  }
}
