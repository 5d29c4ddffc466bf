// SPDX-License-Identifier: Apache-2.0
#include "CVerbs.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/ib.h>
#include <rdma/rdma_cma.h>
#include <string.h>
#include <sys/socket.h>

static_assert(RDMA_CM_EVENT_ADDR_RESOLVED == 0 && RDMA_CM_EVENT_ADDR_ERROR == 1
                  && RDMA_CM_EVENT_ROUTE_RESOLVED == 2 && RDMA_CM_EVENT_ROUTE_ERROR == 3
                  && RDMA_CM_EVENT_CONNECT_REQUEST == 4 && RDMA_CM_EVENT_CONNECT_RESPONSE == 5
                  && RDMA_CM_EVENT_CONNECT_ERROR == 6 && RDMA_CM_EVENT_UNREACHABLE == 7
                  && RDMA_CM_EVENT_REJECTED == 8 && RDMA_CM_EVENT_ESTABLISHED == 9
                  && RDMA_CM_EVENT_DISCONNECTED == 10 && RDMA_CM_EVENT_DEVICE_REMOVAL == 11
                  && RDMA_CM_EVENT_ADDR_CHANGE == 14 && RDMA_CM_EVENT_TIMEWAIT_EXIT == 15,
              "the numbers that ConnectionEvent.swift has");

static int negated(int result) { return result < 0 ? (errno ? -errno : -EIO) : 0; }

static int unblock(int descriptor) {
  int flags = fcntl(descriptor, F_GETFL);
  return flags < 0 ? -errno : negated(fcntl(descriptor, F_SETFL, flags | O_NONBLOCK));
}

int cverbs_channel_open(void **into, int *descriptor) {
  struct rdma_event_channel *channel = rdma_create_event_channel();
  if (!channel) return errno ? -errno : -ENODEV;
  int result = unblock(channel->fd);
  if (result < 0) {
    rdma_destroy_event_channel(channel);
    return result;
  }
  *into = channel;
  *descriptor = channel->fd;
  return 0;
}
void cverbs_channel_close(void *channel) { rdma_destroy_event_channel(channel); }

int cverbs_open_devices(void) {
  /* The list is kept: librdmacm lets go of a device that nobody has. */
  return rdma_get_devices(NULL) ? 0 : errno ? -errno : -ENODEV;
}

static uint64_t context_of(struct rdma_cm_id *identifier) {
  return identifier ? (uint64_t)(uintptr_t)identifier->context : 0;
}

int cverbs_channel_next(void *channel, struct cverbs_event *into) {
  struct rdma_cm_event *event;
  if (rdma_get_cm_event(channel, &event) < 0) return errno ? -errno : -EIO;
  int is_request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
  into->kind = event->event;
  into->status = event->status;
  into->context = context_of(is_request ? event->listen_id : event->id);
  into->new_connection = is_request ? event->id : NULL;
  into->private_count = event->param.conn.private_data ? event->param.conn.private_data_len : 0;
  if (into->private_count)
    memcpy(into->private_data, event->param.conn.private_data, into->private_count);
  return negated(rdma_ack_cm_event(event));
}

int cverbs_identifier_create(void **into, void *channel, uint64_t context, int is_ib) {
  struct rdma_cm_id *identifier;
  if (rdma_create_id(channel, &identifier, (void *)(uintptr_t)context,
                     is_ib ? RDMA_PS_IB : RDMA_PS_TCP) < 0)
    return errno ? -errno : -ENODEV;
  *into = identifier;
  return 0;
}
void cverbs_identifier_destroy(void *identifier) {
  cverbs_pair_destroy(identifier);
  rdma_destroy_id(identifier);
}
void cverbs_identifier_set_context(void *identifier, uint64_t context) {
  ((struct rdma_cm_id *)identifier)->context = (void *)(uintptr_t)context;
}

static int option(void *identifier, int name, void *value, size_t count) {
  return negated(rdma_set_option(identifier, RDMA_OPTION_ID, name, value, count));
}
int cverbs_reuse_address(void *identifier) {
  int yes = 1;
  return option(identifier, RDMA_OPTION_ID_REUSEADDR, &yes, sizeof yes);
}
int cverbs_only_ipv6(void *identifier) {
  int yes = 1;
  return option(identifier, RDMA_OPTION_ID_AFONLY, &yes, sizeof yes);
}
int cverbs_bind(void *identifier, const struct sockaddr_storage *address) {
  return negated(rdma_bind_addr(identifier, (struct sockaddr *)address));
}
int cverbs_listen(void *identifier, int backlog) {
  return negated(rdma_listen(identifier, backlog));
}
int cverbs_resolve_address(void *identifier, const struct sockaddr_storage *source,
                           const struct sockaddr_storage *destination, int milliseconds) {
  return negated(rdma_resolve_addr(identifier, (struct sockaddr *)source,
                                   (struct sockaddr *)destination, milliseconds));
}
int cverbs_resolve_route(void *identifier, int milliseconds) {
  return negated(rdma_resolve_route(identifier, milliseconds));
}

static struct rdma_conn_param converted(const struct cverbs_parameters *parameters) {
  return (struct rdma_conn_param){
      .private_data = parameters->private_data,
      .private_data_len = parameters->private_count,
      .retry_count = parameters->retry_count,
      .rnr_retry_count = parameters->rnr_retry_count,
  };
}
int cverbs_connect(void *identifier, const struct cverbs_parameters *parameters) {
  struct rdma_conn_param converted_parameters = converted(parameters);
  return negated(rdma_connect(identifier, &converted_parameters));
}
int cverbs_accept(void *identifier, const struct cverbs_parameters *parameters) {
  struct rdma_conn_param converted_parameters = converted(parameters);
  return negated(rdma_accept(identifier, &converted_parameters));
}
int cverbs_reject(void *identifier, const void *private_data, uint8_t count) {
  return negated(rdma_reject(identifier, private_data, count));
}
int cverbs_disconnect(void *identifier) { return negated(rdma_disconnect(identifier)); }

static uint32_t address_count(const struct sockaddr *address) {
  switch (address->sa_family) {
    case AF_INET: return sizeof(struct sockaddr_in);
    case AF_INET6: return sizeof(struct sockaddr_in6);
    case AF_IB: return sizeof(struct sockaddr_ib);
    default: return 0;
  }
}
void cverbs_addresses(void *identifier, struct sockaddr_storage *local, uint32_t *local_count,
                      struct sockaddr_storage *peer, uint32_t *peer_count) {
  const struct sockaddr *near = rdma_get_local_addr(identifier);
  const struct sockaddr *far = rdma_get_peer_addr(identifier);
  *local_count = address_count(near);
  *peer_count = address_count(far);
  memset(local, 0, sizeof *local);
  memset(peer, 0, sizeof *peer);
  memcpy(local, near, *local_count);
  memcpy(peer, far, *peer_count);
}

uint32_t cverbs_address_ib(struct sockaddr_storage *into, const uint8_t gid[16], uint64_t service) {
  struct sockaddr_ib address = {.sib_family = AF_IB};
  address.sib_pkey = htobe16(0xffff);
  memcpy(address.sib_addr.sib_raw, gid, 16);
  address.sib_sid = htobe64(service);
  address.sib_sid_mask = htobe64(UINT64_MAX);
  memset(into, 0, sizeof *into);
  memcpy(into, &address, sizeof address);
  return sizeof address;
}

void *cverbs_device_of(void *identifier) { return ((struct rdma_cm_id *)identifier)->verbs; }
uint8_t cverbs_port_of(void *identifier) { return ((struct rdma_cm_id *)identifier)->port_num; }

