// SPDX-License-Identifier: Apache-2.0
// What Swift cannot see of librdmacm and libibverbs: unions, function pointers, inline functions,
// errno. No opinions here. Their structures stay behind pointers without a type, so that nobody who
// includes this needs their headers. Every call that fails returns the negated errno; what makes
// something puts it in its first argument. Posting and polling allocate nothing.
#ifndef ROOTLINK_CVERBS_H
#define ROOTLINK_CVERBS_H
#include <stddef.h>
#include <stdint.h>

struct sockaddr_storage;

/* Before any other call: in a static program the providers must be known before librdmacm looks. How
   many devices there are. Allocates. */
int cverbs_begin(void);
/* Opens every device; they stay open until the process ends. */
int cverbs_open_devices(void);
/* The name of one device as it was found just now; 0, or -ENODEV behind the last. Allocates. */
int cverbs_device_name(unsigned index, char *into, size_t count);

/* Event channels. The descriptor does not block. */
int cverbs_channel_open(void **into, int *descriptor);
void cverbs_channel_close(void *channel);

enum { cverbs_private_data_maximum = 256 };
struct cverbs_event {
  uint32_t kind;       /* enum rdma_cm_event_type */
  int32_t status;      /* A negated errno; of a rejection the reason. */
  uint64_t context;    /* That of the identifier, or of the listener that a request came to. */
  void *new_connection; /* Of a connection request: its identifier; whoever takes the event owns it. */
  uint32_t private_count;
  uint8_t private_data[cverbs_private_data_maximum];
};
/* Takes one event, and acknowledges it. -EAGAIN when there is none. */
int cverbs_channel_next(void *channel, struct cverbs_event *into);

/* Connection identifiers. `is_ib`: port space IB in place of TCP. */
int cverbs_identifier_create(void **into, void *channel, uint64_t context, int is_ib);
/* Destroys its queue pair, too. Waits for nothing: events are acknowledged when they are taken. */
void cverbs_identifier_destroy(void *identifier);
void cverbs_identifier_set_context(void *identifier, uint64_t context);
/* The options of rdma_set_option(3): is the address free at once, and IPv6 alone. */
int cverbs_reuse_address(void *identifier);
int cverbs_only_ipv6(void *identifier);
int cverbs_bind(void *identifier, const struct sockaddr_storage *address);
int cverbs_listen(void *identifier, int backlog);
/* `source` may be NULL. */
int cverbs_resolve_address(void *identifier, const struct sockaddr_storage *source,
                           const struct sockaddr_storage *destination, int milliseconds);
int cverbs_resolve_route(void *identifier, int milliseconds);
struct cverbs_parameters {
  const void *private_data;
  uint8_t private_count;
  uint8_t retry_count, rnr_retry_count; /* 0 to 7; 7 of the latter is for ever. */
};
int cverbs_connect(void *identifier, const struct cverbs_parameters *parameters);
int cverbs_accept(void *identifier, const struct cverbs_parameters *parameters);
int cverbs_reject(void *identifier, const void *private_data, uint8_t count);
int cverbs_disconnect(void *identifier);
/* 0 bytes when there is none. */
void cverbs_addresses(void *identifier, struct sockaddr_storage *local, uint32_t *local_count,
                      struct sockaddr_storage *peer, uint32_t *peer_count);
/* An address of InfiniBand's own family; how many bytes of `into` it takes. Both in host order. */
uint32_t cverbs_address_ib(struct sockaddr_storage *into, const uint8_t gid[16], uint64_t service);

/* The device that an identifier is bound to; NULL before it is. */
void *cverbs_device_of(void *identifier);
uint8_t cverbs_port_of(void *identifier);
const char *cverbs_name_of(void *device);
struct cverbs_limits {
  uint32_t work_requests, completions, segments, queue_pairs, regions, windows;
  uint64_t region_bytes;
  uint8_t binds_windows; /* Memory windows of type 2 that a queue pair binds. */
};
int cverbs_query_device(void *device, struct cverbs_limits *into);

/* Protection domains, and memory. */
int cverbs_domain_create(void **into, void *device);
int cverbs_domain_destroy(void *domain);
enum {
  cverbs_local_write = 1,
  cverbs_remote_write = 2,
  cverbs_bind_windows = 4,
};
int cverbs_region_create(void **into, void *domain, void *memory, size_t count, unsigned access,
                         uint32_t *local_key, uint32_t *remote_key);
int cverbs_region_destroy(void *region);
int cverbs_window_create(void **into, void *domain, uint32_t *key);
int cverbs_window_destroy(void *window);
/* The next of the 256 keys that a window goes through. */
uint32_t cverbs_next_key(uint32_t key);
/* Anonymous pages, touched, all zero; NULL when there are not enough. Registering them pins them. */
void *cverbs_pages_create(size_t count);
void cverbs_pages_destroy(void *memory, size_t count);

/* Completion queues. The descriptor does not block. */
int cverbs_queue_create(void **into, void *device, unsigned entries, int *descriptor);
int cverbs_queue_destroy(void *queue);
/* The next completion makes the descriptor readable, once. */
int cverbs_queue_arm(void *queue);
/* Takes what makes the descriptor readable. */
void cverbs_queue_disarm(void *queue);

struct cverbs_completion {
  uint64_t work;
  uint32_t status;     /* enum ibv_wc_status: 0 is success. Otherwise only `work` and
                          `queue_pair` mean anything. */
  uint32_t operation;  /* enum ibv_wc_opcode */
  uint32_t byte_count; /* Of a receive. */
  uint32_t immediate;  /* In host order; or the key that was invalidated. */
  uint32_t queue_pair;
  uint8_t has_immediate, has_invalidated;
};
/* How many there were; at most `room`. */
int cverbs_queue_poll(void *queue, struct cverbs_completion *into, unsigned room);

/* Queue pairs: reliable connections. Each belongs to an identifier, which brings it up. */
struct cverbs_sizes { uint32_t sends, receives, send_segments, receive_segments; };
int cverbs_pair_create(void *identifier, void *domain, void *send_queue, void *receive_queue,
                       struct cverbs_sizes *sizes);
void cverbs_pair_destroy(void *identifier);
uint32_t cverbs_pair_number(void *identifier);
/* What is out completes in error, and the peer reaches no memory through it any more. */
int cverbs_pair_fail(void *identifier);

/* Source: struct ibv_sge. */
struct cverbs_segment { uint64_t address; uint32_t byte_count; uint32_t key; };
enum cverbs_operation {
  cverbs_write,
  cverbs_write_immediate,
  cverbs_send,
  cverbs_send_immediate,
  cverbs_send_invalidate,  /* remote_key: what the peer shall invalidate. */
  cverbs_local_invalidate, /* remote_key: which key. */
  cverbs_bind_window,      /* first: of `region`; remote_key: the key from now on. */
};
enum { cverbs_signalled = 1, cverbs_fence = 2, cverbs_inline = 4 };
struct cverbs_send_request {
  uint64_t work;
  uint64_t remote_address;
  uint32_t remote_key;
  uint32_t immediate; /* In host order. */
  uint32_t operation, flags;
  struct cverbs_segment first, second; /* One behind the other, as a list. */
  uint32_t segment_count; /* 0 to 2 */
  uint32_t reserved;
  void *window, *region;
};
struct cverbs_receive_request {
  uint64_t work;
  struct cverbs_segment segment;
  uint32_t segment_count; /* 0 or 1 */
  uint32_t reserved;
};
/* 0, or a negated errno: then what stands before the bad one is posted, in either case. */
int cverbs_post_sends(void *identifier, const struct cverbs_send_request *requests, size_t count);
int cverbs_post_receives(void *identifier, const struct cverbs_receive_request *requests,
                         size_t count);
#endif
