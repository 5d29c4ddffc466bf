// SPDX-License-Identifier: Apache-2.0
// load: keeps an NBD server busy and says how fast it was, what it cost, and whether it was right.
//
//   load [OPTION...] ADDRESS JOB...         ADDRESS is unix:PATH or tcp:ADDRESS:PORT
//   load --fill FILE|ADDRESS BYTES          writes the pattern into a file or an export
//
// Each JOB runs with threads of its own, all at the same time. A job is a kind and settings, all
// joined by commas: `read,random,block=4096,depth=32,connections=4`. Kinds: read, write, handshake
// (one after the other in each thread: connect, GO, disconnect) and idle. Of each connection the
// queue is kept full: whatever one receive brought to an end is replaced by new requests that leave
// in one call.
//
// One JSON object on standard output; times in microseconds. Exit status 1 when a request failed.

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "job.h"
#include "usage.h"
#include "wire.h"

enum {
  RECEIVE_BYTES = 256 << 10,  // Stays in the cache of a processor.
  PAGE_BYTES = 4096,
  BUCKETS = 64 * 32,
};

struct slot {
  uint64_t started_ns, offset;
  bool is_write, in_flight;
};

struct connection {
  int fd;
  uint64_t next_offset, done_count;
  struct slot *slots;
  unsigned *free_slots, free_count, in_flight;
  // Requests that have been written down and not yet sent.
  uint8_t *headers;
  struct iovec *pieces;
  unsigned piece_count, piece_sent;
  // The reply that is being received: its header, then its data.
  uint8_t reply[REPLY_BYTES];
  unsigned reply_have, reply_slot;
  uint32_t data_left;
};

struct worker {
  pthread_t thread;
  const struct job *job;
  struct connection *connections;
  unsigned first, connection_count;
  uint64_t random_state, done_count, longest_ns;
  uint64_t buckets[BUCKETS];
};

static struct address server;
static const char *export_name = "";
static bool verify, stepping;
static atomic_ullong stepped_count;  // Requests that ended while stepping.
static uint64_t seed = 1, export_bytes;
static const uint8_t *pattern;
static pthread_barrier_t all_connected;
static atomic_bool measuring, stopping;
static atomic_uint finished_workers;

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// Buckets of latencies: 32 to each power of two, so that a value is known to 3 %.
static unsigned bucket_of(uint64_t ns) {
  if (ns < 32) return (unsigned)ns;
  unsigned power = 63 - (unsigned)__builtin_clzll(ns);
  return (power - 4) * 32 + (unsigned)(ns >> (power - 5) & 31);
}
static double bucket_middle_us(unsigned bucket) {
  if (bucket < 32) return bucket / 1000.0;
  unsigned power = bucket / 32 + 4;
  return (32.5 + bucket % 32) * (double)(UINT64_C(1) << (power - 5)) / 1000.0;
}

static void count(struct worker *worker, struct connection *connection, uint64_t ns) {
  if (!atomic_load_explicit(&measuring, memory_order_relaxed)) return;
  worker->done_count++;
  worker->buckets[bucket_of(ns)]++;
  if (ns > worker->longest_ns) worker->longest_ns = ns;
  if (connection) connection->done_count++;
  if (stepping) atomic_fetch_add_explicit(&stepped_count, 1, memory_order_relaxed);
}

// MARK: One connection

static uint64_t next_offset(struct worker *worker, struct connection *connection) {
  const struct job *job = worker->job;
  uint64_t blocks = (job->span && job->span < export_bytes ? job->span : export_bytes) / job->block;
  if (job->random) return next_random(&worker->random_state) % blocks * job->block;
  uint64_t offset = connection->next_offset;
  connection->next_offset = (offset / job->block + 1) % blocks * job->block;
  return offset;
}

static void add_piece(struct connection *connection, const void *bytes, size_t byte_count) {
  struct iovec *next = connection->pieces + connection->piece_count;
  if (next > connection->pieces && (uint8_t *)next[-1].iov_base + next[-1].iov_len == bytes) {
    next[-1].iov_len += byte_count;
    return;
  }
  *next = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = byte_count};
  connection->piece_count++;
}

// Writes down a request for every slot that is free. Only when nothing is left to be sent.
static void compose(struct worker *worker, struct connection *connection) {
  const struct job *job = worker->job;
  uint64_t now = now_ns();
  uint8_t *at = connection->headers;
  connection->piece_count = connection->piece_sent = 0;
  while (connection->free_count > 0) {
    unsigned number = connection->free_slots[--connection->free_count];
    struct slot *slot = &connection->slots[number];
    slot->started_ns = now;
    slot->offset = next_offset(worker, connection);
    slot->in_flight = true;
    slot->is_write = job->write_percent == 100 ||
        (job->write_percent > 0 && next_random(&worker->random_state) % 100 < job->write_percent);
    connection->in_flight++;
    put_request(at, slot->is_write ? CMD_WRITE : CMD_READ, number, slot->offset, job->block);
    add_piece(connection, at, REQUEST_BYTES);
    at += REQUEST_BYTES;
    if (slot->is_write) add_piece(connection, pattern_at(pattern, slot->offset), job->block);
  }
}

static bool has_unsent(const struct connection *connection) {
  return connection->piece_sent < connection->piece_count;
}

// Sends as much as the socket takes now.
static void send_requests(struct worker *worker, struct connection *connection) {
  if (!has_unsent(connection)) {
    if (connection->free_count == 0) return;
    if (atomic_load_explicit(&stopping, memory_order_relaxed)) return;
    compose(worker, connection);
  }
  while (has_unsent(connection)) {
    struct msghdr message = {
        .msg_iov = connection->pieces + connection->piece_sent,
        .msg_iovlen = connection->piece_count - connection->piece_sent,
    };
    ssize_t sent = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) fail("sending a request: %s", strerror(errno));
    for (size_t left = (size_t)sent; left > 0;) {
      struct iovec *piece = &connection->pieces[connection->piece_sent];
      size_t part = left < piece->iov_len ? left : piece->iov_len;
      piece->iov_base = (uint8_t *)piece->iov_base + part;
      piece->iov_len -= part;
      left -= part;
      if (piece->iov_len == 0) connection->piece_sent++;
    }
  }
}

static void complete(struct worker *worker, struct connection *connection, uint64_t now) {
  struct slot *slot = &connection->slots[connection->reply_slot];
  slot->in_flight = false;
  connection->in_flight--;
  connection->free_slots[connection->free_count++] = connection->reply_slot;
  connection->reply_have = 0;
  count(worker, connection, now - slot->started_ns);
}

static void take_header(struct worker *worker, struct connection *connection) {
  const uint8_t *reply = connection->reply;
  uint64_t cookie = get64(reply + 8);
  if (get32(reply) != REPLY_MAGIC) fail("a reply begins with 0x%08x", get32(reply));
  if (cookie >= worker->job->depth || !connection->slots[cookie].in_flight)
    fail("a reply to a request that was not sent");
  if (get32(reply + 4)) fail("a request failed with error %u", get32(reply + 4));
  connection->reply_slot = (unsigned)cookie;
  connection->data_left = connection->slots[cookie].is_write ? 0 : worker->job->block;
}

// Takes apart what one receive brought.
static void take(
    struct worker *worker, struct connection *connection, const uint8_t *bytes, size_t left) {
  uint64_t now = now_ns();
  while (left > 0) {
    if (connection->reply_have < REPLY_BYTES) {
      size_t part = REPLY_BYTES - connection->reply_have;
      if (part > left) part = left;
      memcpy(connection->reply + connection->reply_have, bytes, part);
      connection->reply_have += (unsigned)part;
      bytes += part;
      left -= part;
      if (connection->reply_have < REPLY_BYTES) return;
      take_header(worker, connection);
    } else {
      size_t part = connection->data_left < left ? connection->data_left : left;
      if (verify) {
        const struct slot *slot = &connection->slots[connection->reply_slot];
        uint64_t offset = slot->offset + worker->job->block - connection->data_left;
        if (memcmp(bytes, pattern_at(pattern, offset), part) != 0)
          fail("wrong data between byte %llu and %llu", (unsigned long long)offset,
               (unsigned long long)(offset + part));
      }
      connection->data_left -= (uint32_t)part;
      bytes += part;
      left -= part;
    }
    if (connection->data_left == 0) complete(worker, connection, now);
  }
}

// Where to receive to, so that data begin on a page, as those of a kernel's or an emulator's client
// do. On Zen 3 and 4 the kernel copies at a third of the speed to an address that is 1 to 15 bytes
// ahead of its source, counted within a page, and a client that receives wherever the last receive
// has ended comes upon such a distance and keeps it: being slow, it finds a full queue every time.
static uint8_t *aligned(
    const struct worker *worker, const struct connection *connection, uint8_t *buffer) {
  if (connection->reply_have < REPLY_BYTES)
    return buffer + PAGE_BYTES - (REPLY_BYTES - connection->reply_have);
  return buffer + (worker->job->block - connection->data_left) % PAGE_BYTES;
}

// One receive into a buffer on a page, one page longer than what is asked for. False when nothing
// was there.
static bool receive(
    struct worker *worker, struct connection *connection, uint8_t *buffer, int flags) {
  buffer = aligned(worker, connection, buffer);
  ssize_t received = recv(connection->fd, buffer, RECEIVE_BYTES, flags);
  if (received < 0 && (errno == EINTR || (errno == EAGAIN && flags & MSG_DONTWAIT))) return false;
  if (received < 0) fail("receiving: %s", errno == EAGAIN ? "no answer" : strerror(errno));
  if (received == 0) fail("the server ended the connection");
  take(worker, connection, buffer, (size_t)received);
  return true;
}

// MARK: The loops

// A single connection needs no epoll: the receive waits.
static void run_one(struct worker *worker, uint8_t *buffer) {
  struct connection *connection = worker->connections;
  for (;;) {
    send_requests(worker, connection);
    if (connection->in_flight == 0) return;
    if (!has_unsent(connection)) {
      receive(worker, connection, buffer, 0);
      continue;
    }
    struct pollfd waiting = {.fd = connection->fd, .events = POLLIN | POLLOUT};
    if (poll(&waiting, 1, 60000) == 0) fail("no answer");
    if (waiting.revents & ~POLLOUT) receive(worker, connection, buffer, MSG_DONTWAIT);
  }
}

static void run_many(struct worker *worker, uint8_t *buffer) {
  int set = epoll_create1(EPOLL_CLOEXEC);
  unsigned busy = worker->connection_count;
  for (unsigned i = 0; i < worker->connection_count; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    if (epoll_ctl(set, EPOLL_CTL_ADD, worker->connections[i].fd, &event) < 0) fail("epoll_ctl");
  }
  for (unsigned i = 0; i < worker->connection_count; i++) {
    struct connection *connection = &worker->connections[i];
    send_requests(worker, connection);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = i};
    if (has_unsent(connection)) epoll_ctl(set, EPOLL_CTL_MOD, connection->fd, &event);
  }
  while (busy > 0) {
    struct epoll_event events[64];
    int ready = epoll_wait(set, events, 64, 60000);
    if (ready == 0) fail("no answer");
    for (int i = 0; i < ready; i++) {
      struct connection *connection = &worker->connections[events[i].data.u32];
      bool waited = has_unsent(connection);
      if (events[i].events & ~EPOLLOUT) receive(worker, connection, buffer, MSG_DONTWAIT);
      send_requests(worker, connection);
      bool waits = has_unsent(connection);
      struct epoll_event event = {
          .events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.u32 = events[i].data.u32};
      if (waits != waited) epoll_ctl(set, EPOLL_CTL_MOD, connection->fd, &event);
      if (connection->in_flight > 0) continue;
      epoll_ctl(set, EPOLL_CTL_DEL, connection->fd, NULL);
      busy--;
    }
  }
  close(set);
}

static void run_handshakes(struct worker *worker) {
  const struct job *job = worker->job;
  uint64_t share = job->count / job->threads, made = 0;
  while (!atomic_load_explicit(&stopping, memory_order_relaxed) && (!job->count || made < share)) {
    uint64_t started = now_ns(), byte_count;
    const char *why;
    int fd = enter_export(&server, export_name, &byte_count, &why);
    if (fd < 0) fail("handshake %llu: %s", (unsigned long long)made, why);
    disconnect(fd);
    made++;
    count(worker, NULL, now_ns() - started);
  }
}

static void open_connection(struct worker *worker, unsigned number) {
  const struct job *job = worker->job;
  struct connection *connection = &worker->connections[number];
  const char *why;
  uint64_t byte_count;
  unsigned position = worker->first + number;
  connection->fd = enter_export(&server, export_name, &byte_count, &why);
  if (connection->fd < 0) fail("connection %u: %s", position, why);
  if (job->kind != KIND_DATA) return;
  if (byte_count < job->block || byte_count < job->span)
    fail("the export has %llu bytes only", (unsigned long long)byte_count);
  export_bytes = byte_count;  // The same for all.
  uint64_t blocks = (job->span ? job->span : byte_count) / job->block;
  // Streams start side by side over all of it; those over a span read the same thing.
  connection->next_offset =
      job->span ? 0 : blocks * position / job->connections * (uint64_t)job->block;
  connection->slots = need(calloc(job->depth, sizeof *connection->slots));
  connection->free_slots = need(calloc(job->depth, sizeof *connection->free_slots));
  connection->headers = need(calloc(job->depth, REQUEST_BYTES));
  connection->pieces = need(calloc(2 * job->depth, sizeof *connection->pieces));
  while (connection->free_count < job->depth) {
    connection->free_slots[connection->free_count] = job->depth - 1 - connection->free_count;
    connection->free_count++;
  }
}

static void *work(void *argument) {
  struct worker *worker = argument;
  uint8_t *buffer = need(aligned_alloc(PAGE_BYTES, RECEIVE_BYTES + PAGE_BYTES));
  for (unsigned i = 0; i < worker->connection_count; i++) open_connection(worker, i);
  pthread_barrier_wait(&all_connected);  // All are connected,
  pthread_barrier_wait(&all_connected);  // and the main thread has looked at the server.
  if (worker->job->kind == KIND_HANDSHAKE) {
    run_handshakes(worker);
  } else if (worker->job->kind == KIND_DATA) {
    if (worker->connection_count == 1) run_one(worker, buffer);
    else run_many(worker, buffer);
  }
  atomic_fetch_add(&finished_workers, 1);
  free(buffer);
  return NULL;
}

// MARK: The figures

static double percentile(const uint64_t *buckets, uint64_t total, double part) {
  uint64_t sum = 0, wanted = (uint64_t)((double)total * part);
  for (unsigned i = 0; i < BUCKETS; i++)
    if ((sum += buckets[i]) > wanted) return bucket_middle_us(i);
  return 0;
}

static void print_job(const struct job *job, struct worker *workers, double seconds, bool last) {
  uint64_t buckets[BUCKETS] = {0}, done = 0, longest = 0, least = UINT64_MAX, most = 0;
  for (unsigned i = 0; i < job->threads; i++) {
    done += workers[i].done_count;
    if (workers[i].longest_ns > longest) longest = workers[i].longest_ns;
    for (unsigned j = 0; j < BUCKETS; j++) buckets[j] += workers[i].buckets[j];
    for (unsigned j = 0; j < workers[i].connection_count; j++) {
      uint64_t one = workers[i].connections[j].done_count;
      if (one < least) least = one;
      if (one > most) most = one;
    }
  }
  printf("{\"job\":\"%s\",\"done\":%llu,\"ops_per_second\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
         "\"longest_us\":%.2f,\"least_of_a_client\":%llu,\"most_of_a_client\":%llu}%s",
         job->text, (unsigned long long)done, (double)done / seconds,
         percentile(buckets, done, 0.5), percentile(buckets, done, 0.99), (double)longest / 1000,
         (unsigned long long)(most ? least : 0), (unsigned long long)most, last ? "" : ",");
}

static double own_cpu_us(void) {
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1000;
}

static void usage_text(void) {
  fputs("Usage: load [OPTION...] unix:PATH|tcp:ADDRESS:PORT JOB...\n"
        "       load --fill FILE|ADDRESS BYTES\n"
        "  --seconds=S      how long is measured (default 1)\n"
        "  --warm-up=S      how long before that (default 0.1)\n"
        "  --export=NAME    default: the default export\n"
        "  --server=PID     also say what this process and its children cost\n"
        "  --steps          count its instructions one by one, and measure nothing else, until\n"
        "                   the first job's queue has been answered 16 times or the time is up\n"
        "  --verify         compare what is read with the pattern\n"
        "  --seed=N         of the random offsets (default 1)\n"
        "JOB: read|write|handshake|idle, then of random, sequential, block=BYTES, depth=N,\n"
        "     connections=N, threads=N, span=BYTES, writes=PERCENT, count=N, joined by commas\n",
        stderr);
  exit(2);
}

static void pause_for(double seconds) {
  struct timespec time = {.tv_sec = (time_t)seconds,
                          .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&time, NULL);
}

int main(int argument_count, char **arguments) {
  double seconds = 1, warm_up = 0.1;
  pid_t watched = 0;
  bool filling = false;
  static const struct option options[] = {
      {"seconds", required_argument, NULL, 's'}, {"warm-up", required_argument, NULL, 'w'},
      {"export", required_argument, NULL, 'e'},  {"server", required_argument, NULL, 'p'},
      {"verify", no_argument, NULL, 'v'},        {"seed", required_argument, NULL, 'r'},
      {"fill", no_argument, NULL, 'f'},          {"steps", no_argument, NULL, 't'},
      {NULL, 0, NULL, 0},
  };
  for (int option; (option = getopt_long(argument_count, arguments, "", options, NULL)) != -1;) {
    if (option == 's') seconds = atof(optarg);
    else if (option == 'w') warm_up = atof(optarg);
    else if (option == 'e') export_name = optarg;
    else if (option == 'p') watched = (pid_t)parse_number(optarg, "--server", INT32_MAX);
    else if (option == 'v') verify = true;
    else if (option == 'r') seed = parse_number(optarg, "--seed", UINT64_MAX);
    else if (option == 'f') filling = true;
    else if (option == 't') stepping = true;
    else usage_text();
  }
  arguments += optind;
  argument_count -= optind;
  if (argument_count < 2) usage_text();
  pattern = need(pattern_table());
  bool is_address = parse_address(arguments[0], &server);
  if (filling) {
    uint64_t byte_count = parse_number(arguments[1], "--fill", INT64_MAX);
    return is_address ? fill_export(&server, export_name, byte_count, pattern)
                      : fill_file(arguments[0], byte_count, pattern);
  }
  if (!is_address) usage_text();

  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  unsigned job_count = (unsigned)argument_count - 1, worker_count = 0;
  struct job *jobs = need(calloc(job_count, sizeof *jobs));
  bool timed = false;
  for (unsigned i = 0; i < job_count; i++) {
    parse_job(arguments[i + 1], &jobs[i]);
    worker_count += jobs[i].threads;
    timed = timed || jobs[i].count == 0;
  }
  struct usage at_rest = {0}, before = {0}, after = {0};
  if (watched && !usage_of(watched, &at_rest)) fail("there is no process %d", watched);
  struct worker *workers = need(calloc(worker_count, sizeof *workers));
  pthread_barrier_init(&all_connected, NULL, worker_count + 1);
  struct worker *worker = workers;
  for (unsigned i = 0; i < job_count; i++) {
    const struct job *job = &jobs[i];
    for (unsigned j = 0; j < job->threads; j++, worker++) {
      unsigned all = job->kind == KIND_HANDSHAKE ? 0 : job->connections;
      worker->job = job;
      worker->first = job->kind == KIND_HANDSHAKE ? j * 16 : all * j / job->threads;
      worker->connection_count = all * (j + 1) / job->threads - all * j / job->threads;
      worker->random_state = seed + (uint64_t)(worker - workers);
      worker->random_state = worker->random_state * UINT64_C(0x9e3779b97f4a7c15) | 1;
      worker->connections = need(calloc(worker->connection_count + 1, sizeof(struct connection)));
      if (pthread_create(&worker->thread, NULL, work, worker) != 0) fail("pthread_create");
    }
  }
  pthread_barrier_wait(&all_connected);
  if (timed) {
    pthread_barrier_wait(&all_connected);
    pause_for(warm_up);
  }
  bool counting = watched && !stepping && instructions_start(watched);
  if (stepping && !(watched && steps_attach(watched))) fail("--steps cannot be had here");
  uint64_t instructions = 0, peak = 0;
  if (watched) usage_of(watched, &before);
  double own_cpu = own_cpu_us();
  uint64_t started = now_ns(), end = started + (uint64_t)(seconds * 1e9), now;
  atomic_store(&measuring, true);
  if (stepping) steps_count(true);
  if (!timed) pthread_barrier_wait(&all_connected);
  while ((now = now_ns(), timed ? now < end : atomic_load(&finished_workers) < worker_count)) {
    double rest = timed ? (double)(end - now) / 1e9 : 0.1;
    pause_for(rest < 0.1 ? rest : 0.1);
    uint64_t memory = watched ? usage_anon_quick() : 0;
    if (memory > peak) peak = memory;
    if (stepping && atomic_load(&stepped_count) >= 16 * (uint64_t)jobs->depth * jobs->connections)
      break;
  }
  atomic_store(&measuring, false);
  if (stepping) instructions = steps_detach();
  double took = (double)(now_ns() - started) / 1e9;
  own_cpu = own_cpu_us() - own_cpu;
  if (counting) instructions = instructions_stop();
  if (watched) usage_of(watched, &after);
  if (after.anon_bytes > peak) peak = after.anon_bytes;
  atomic_store(&stopping, true);
  for (worker = workers; worker < workers + worker_count; worker++)
    pthread_join(worker->thread, NULL);
  for (worker = workers; worker < workers + worker_count; worker++)
    for (unsigned i = 0; i < worker->connection_count; i++) disconnect(worker->connections[i].fd);

  printf("{\"seconds\":%.4f,\"generator_cpu_us\":%.1f,\"jobs\":[", took, own_cpu);
  worker = workers;
  for (unsigned i = 0; i < job_count; worker += jobs[i++].threads)
    print_job(&jobs[i], worker, took, i + 1 == job_count);
  printf("]");
  if (watched) {
    struct usage ended = {0};
    usage_of(watched, &ended);
    printf(",\"server\":{\"cpu_us\":%.1f,\"anon_at_rest\":%llu,\"anon_peak\":%llu,"
           "\"anon_after\":%llu,\"processes\":%u,\"instructions\":",
           (double)(after.cpu_ns - before.cpu_ns) / 1000, (unsigned long long)at_rest.anon_bytes,
           (unsigned long long)peak, (unsigned long long)ended.anon_bytes, after.processes);
    if (counting || atomic_load(&stepped_count) > 0)
      printf("%llu}", (unsigned long long)instructions);
    else printf("null}");
  }
  puts("}");
  return 0;
}
