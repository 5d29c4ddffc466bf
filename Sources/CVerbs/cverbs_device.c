// SPDX-License-Identifier: Apache-2.0
#include "CVerbs.h"
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Of calls that return an errno, and of those that return NULL. */
static int negated(int error) { return error > 0 ? -error : error; }
static int missing(void) { return errno ? -errno : -ENOMEM; }

int cverbs_begin(void) {
  int count = 0;
  /* In a static program a macro names the providers to link here: RDMA_STATIC_PROVIDERS. */
  struct ibv_device **list = ibv_get_device_list(&count);
  if (!list) return missing();
  ibv_free_device_list(list);
  return count;
}

int cverbs_device_name(unsigned index, char *into, size_t room) {
  int count = 0;
  struct ibv_device **list = ibv_get_device_list(&count);
  if (!list) return missing();
  int is_there = index < (unsigned)count;
  if (is_there) snprintf(into, room, "%s", ibv_get_device_name(list[index]));
  ibv_free_device_list(list);
  return is_there ? 0 : -ENODEV;
}

const char *cverbs_name_of(void *device) {
  return ibv_get_device_name(((struct ibv_context *)device)->device);
}

int cverbs_query_device(void *device, struct cverbs_limits *into) {
  struct ibv_device_attr attributes;
  int result = negated(ibv_query_device(device, &attributes));
  if (result < 0) return result;
  *into = (struct cverbs_limits){
      .work_requests = (uint32_t)attributes.max_qp_wr,
      .completions = (uint32_t)attributes.max_cqe,
      .segments = (uint32_t)attributes.max_sge,
      .queue_pairs = (uint32_t)attributes.max_qp,
      .regions = (uint32_t)attributes.max_mr,
      .windows = (uint32_t)attributes.max_mw,
      .region_bytes = attributes.max_mr_size,
      .binds_windows = (attributes.device_cap_flags
                        & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B))
                       != 0,
  };
  return 0;
}

int cverbs_domain_create(void **into, void *device) {
  *into = ibv_alloc_pd(device);
  return *into ? 0 : missing();
}
int cverbs_domain_destroy(void *domain) { return negated(ibv_dealloc_pd(domain)); }

int cverbs_region_create(void **into, void *domain, void *memory, size_t count, unsigned access,
                         uint32_t *local_key, uint32_t *remote_key) {
  int flags = 0;
  if (access & cverbs_local_write) flags |= IBV_ACCESS_LOCAL_WRITE;
  if (access & cverbs_remote_write) flags |= IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  if (access & cverbs_bind_windows) flags |= IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND;
  struct ibv_mr *region = ibv_reg_mr(domain, memory, count, flags);
  if (!region) return missing();
  *into = region;
  *local_key = region->lkey;
  *remote_key = region->rkey;
  return 0;
}
int cverbs_region_destroy(void *region) { return negated(ibv_dereg_mr(region)); }

int cverbs_window_create(void **into, void *domain, uint32_t *key) {
  struct ibv_mw *window = ibv_alloc_mw(domain, IBV_MW_TYPE_2);
  if (!window) return missing();
  *into = window;
  *key = window->rkey;
  return 0;
}
int cverbs_window_destroy(void *window) { return negated(ibv_dealloc_mw(window)); }
uint32_t cverbs_next_key(uint32_t key) { return ibv_inc_rkey(key); }

void *cverbs_pages_create(size_t count) {
  void *memory = mmap(NULL, count, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}
void cverbs_pages_destroy(void *memory, size_t count) { munmap(memory, count); }
