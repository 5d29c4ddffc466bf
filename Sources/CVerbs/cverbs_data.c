// SPDX-License-Identifier: Apache-2.0
#include "CVerbs.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <string.h>

static_assert(sizeof(struct cverbs_segment) == sizeof(struct ibv_sge)
                  && offsetof(struct cverbs_segment, address) == offsetof(struct ibv_sge, addr)
                  && offsetof(struct cverbs_segment, byte_count) == offsetof(struct ibv_sge, length)
                  && offsetof(struct cverbs_segment, key) == offsetof(struct ibv_sge, lkey),
              "segments are passed on as they are");
static_assert(IBV_WC_SUCCESS == 0 && IBV_WC_WR_FLUSH_ERR == 5 && IBV_WC_RECV == 1 << 7
                  && IBV_WC_RECV_RDMA_WITH_IMM == (1 << 7) + 1 && IBV_PORT_ACTIVE == 4,
              "the numbers that CompletionQueue.swift and DeviceLimits.swift have");
enum { list_maximum = 16 }; /* Requests that go to the provider in one call. */

static int negated(int error) { return error > 0 ? -error : error; }
static int missing(void) { return errno ? -errno : -ENOMEM; }

int cverbs_queue_create(void **into, void *device, unsigned entries, int *descriptor) {
  struct ibv_comp_channel *channel = ibv_create_comp_channel(device);
  if (!channel) return missing();
  int flags = fcntl(channel->fd, F_GETFL);
  struct ibv_cq *queue = NULL;
  int result = flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
  if (result == 0) {
    queue = ibv_create_cq(device, (int)entries, NULL, channel, 0);
    if (!queue) result = missing();
  }
  if (result < 0) {
    ibv_destroy_comp_channel(channel);
    return result;
  }
  *into = queue;
  *descriptor = channel->fd;
  return 0;
}

void cverbs_queue_disarm(void *queue) {
  struct ibv_cq *signalled;
  void *context;
  unsigned count = 0;
  while (ibv_get_cq_event(((struct ibv_cq *)queue)->channel, &signalled, &context) == 0) count++;
  if (count) ibv_ack_cq_events(queue, count);
}

int cverbs_queue_destroy(void *queue) {
  struct ibv_comp_channel *channel = ((struct ibv_cq *)queue)->channel;
  cverbs_queue_disarm(queue); /* Or destroying it would wait for what nobody takes. */
  int result = negated(ibv_destroy_cq(queue));
  return result < 0 ? result : negated(ibv_destroy_comp_channel(channel));
}

int cverbs_queue_arm(void *queue) { return negated(ibv_req_notify_cq(queue, 0)); }

int cverbs_queue_poll(void *queue, struct cverbs_completion *into, unsigned room) {
  struct ibv_wc found[list_maximum];
  unsigned total = 0;
  while (total < room) {
    unsigned wanted = room - total < list_maximum ? room - total : list_maximum;
    int count = ibv_poll_cq(queue, (int)wanted, found);
    if (count < 0) return total ? (int)total : -EIO;
    for (int i = 0; i < count; i++) {
      const struct ibv_wc *one = &found[i];
      into[total++] = (struct cverbs_completion){
          .work = one->wr_id,
          .status = one->status,
          .operation = one->status == IBV_WC_SUCCESS ? one->opcode : 0,
          .byte_count = one->byte_len,
          .immediate = one->wc_flags & IBV_WC_WITH_IMM ? ntohl(one->imm_data)
                       : one->wc_flags & IBV_WC_WITH_INV ? one->invalidated_rkey : 0,
          .queue_pair = one->qp_num,
          .has_immediate = (one->wc_flags & IBV_WC_WITH_IMM) != 0,
          .has_invalidated = (one->wc_flags & IBV_WC_WITH_INV) != 0,
      };
    }
    if ((unsigned)count < wanted) break;
  }
  return (int)total;
}

int cverbs_pair_create(void *identifier, void *domain, void *send_queue, void *receive_queue,
                       struct cverbs_sizes *sizes) {
  struct ibv_qp_init_attr attributes = {
      .send_cq = send_queue,
      .recv_cq = receive_queue,
      .qp_type = IBV_QPT_RC,
      .sq_sig_all = 0,
      .cap = {.max_send_wr = sizes->sends,
              .max_recv_wr = sizes->receives,
              .max_send_sge = sizes->send_segments,
              .max_recv_sge = sizes->receive_segments},
  };
  if (rdma_create_qp(identifier, domain, &attributes) < 0) return missing();
  sizes->sends = attributes.cap.max_send_wr;
  sizes->receives = attributes.cap.max_recv_wr;
  return 0;
}
void cverbs_pair_destroy(void *identifier) {
  if (((struct rdma_cm_id *)identifier)->qp) rdma_destroy_qp(identifier);
}
uint32_t cverbs_pair_number(void *identifier) {
  struct ibv_qp *pair = ((struct rdma_cm_id *)identifier)->qp;
  return pair ? pair->qp_num : 0;
}
int cverbs_pair_fail(void *identifier) {
  struct ibv_qp *pair = ((struct rdma_cm_id *)identifier)->qp;
  struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
  return pair ? negated(ibv_modify_qp(pair, &attributes, IBV_QP_STATE)) : -ENOTCONN;
}

static void convert(const struct cverbs_send_request *from, struct ibv_send_wr *to) {
  *to = (struct ibv_send_wr){
      .wr_id = from->work,
      .sg_list = (struct ibv_sge *)&from->first,
      .num_sge = (int)from->segment_count,
      .send_flags = (from->flags & cverbs_signalled ? IBV_SEND_SIGNALED : 0u)
                    | (from->flags & cverbs_fence ? IBV_SEND_FENCE : 0u)
                    | (from->flags & cverbs_inline ? IBV_SEND_INLINE : 0u),
  };
  switch ((enum cverbs_operation)from->operation) {
    case cverbs_write_immediate: to->imm_data = htonl(from->immediate); /* fall through */
    case cverbs_write:
      to->opcode = from->operation == cverbs_write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_WRITE_WITH_IMM;
      to->wr.rdma.remote_addr = from->remote_address;
      to->wr.rdma.rkey = from->remote_key;
      break;
    case cverbs_send: to->opcode = IBV_WR_SEND; break;
    case cverbs_send_immediate:
      to->opcode = IBV_WR_SEND_WITH_IMM;
      to->imm_data = htonl(from->immediate);
      break;
    case cverbs_send_invalidate:
      to->opcode = IBV_WR_SEND_WITH_INV;
      to->invalidate_rkey = from->remote_key;
      break;
    case cverbs_local_invalidate:
      to->opcode = IBV_WR_LOCAL_INV;
      to->invalidate_rkey = from->remote_key;
      to->num_sge = 0;
      break;
    case cverbs_bind_window:
      to->opcode = IBV_WR_BIND_MW;
      to->num_sge = 0;
      to->bind_mw.mw = from->window;
      to->bind_mw.rkey = from->remote_key;
      to->bind_mw.bind_info = (struct ibv_mw_bind_info){
          .mr = from->region,
          .addr = from->first.address,
          .length = from->first.byte_count,
          .mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
      };
      break;
  }
}

int cverbs_post_sends(void *identifier, const struct cverbs_send_request *requests, size_t count) {
  struct ibv_qp *pair = ((struct rdma_cm_id *)identifier)->qp;
  if (!pair) return -ENOTCONN;
  for (size_t done = 0; done < count;) {
    struct ibv_send_wr list[list_maximum], *bad;
    size_t now = count - done < list_maximum ? count - done : list_maximum;
    for (size_t i = 0; i < now; i++) {
      convert(&requests[done + i], &list[i]);
      list[i].next = i + 1 < now ? &list[i + 1] : NULL;
    }
    int result = negated(ibv_post_send(pair, list, &bad));
    if (result < 0) return result;
    done += now;
  }
  return 0;
}

int cverbs_post_receives(void *identifier, const struct cverbs_receive_request *requests,
                         size_t count) {
  struct ibv_qp *pair = ((struct rdma_cm_id *)identifier)->qp;
  if (!pair) return -ENOTCONN;
  for (size_t done = 0; done < count;) {
    struct ibv_recv_wr list[list_maximum], *bad;
    size_t now = count - done < list_maximum ? count - done : list_maximum;
    for (size_t i = 0; i < now; i++) {
      const struct cverbs_receive_request *from = &requests[done + i];
      list[i] = (struct ibv_recv_wr){
          .wr_id = from->work,
          .sg_list = (struct ibv_sge *)&from->segment,
          .num_sge = (int)from->segment_count,
          .next = i + 1 < now ? &list[i + 1] : NULL,
      };
    }
    int result = negated(ibv_post_recv(pair, list, &bad));
    if (result < 0) return result;
    done += now;
  }
  return 0;
}
