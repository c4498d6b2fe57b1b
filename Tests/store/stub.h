/* SPDX-License-Identifier: Apache-2.0
 * A driver that answers what it is told to, and keeps nothing. */
#ifndef STUB_H
#define STUB_H

#include <autoglm_reliability.h>
#include <string.h>

struct stub {
  agr_status answer;     /* of every function */
  const char *message;   /* with an error */
  int64_t remaining_ns;  /* with AGR_IN_PROGRESS */
  const char *result;    /* with AGR_REPLAY */
  long calls, destroyed; /* counted */
  int64_t timeout_ns;    /* of the last call */
  uint64_t fence;
};

static agr_status stub_answer(void *self, int64_t timeout_ns, agr_error *error) {
  struct stub *stub = self;
  if (!stub) return AGR_OK;
  __atomic_add_fetch(&stub->calls, 1, __ATOMIC_RELAXED);
  stub->timeout_ns = timeout_ns;
  if (stub->answer < 0 && stub->message) strcpy(error->message, stub->message);
  return stub->answer;
}
static agr_status stub_ping(void *self, int64_t timeout_ns, agr_error *error) {
  return stub_answer(self, timeout_ns, error);
}
static void stub_destroy(void *self) {
  struct stub *stub = self;
  if (stub) ++stub->destroyed;
}
static agr_status stub_begin(void *self, const agr_store_run *run, int64_t timeout_ns,
                             const agr_store_sink *sink, agr_store_run_state *out_state,
                             agr_error *error) {
  struct stub *stub = self;
  const agr_status answer = stub_answer(self, timeout_ns, error);
  if (answer == AGR_OK) {
    out_state->fence = stub ? ++stub->fence : 1;
    out_state->remaining_ns = run->lease_ns;
  } else if (answer == AGR_IN_PROGRESS) {
    out_state->remaining_ns = stub->remaining_ns;
  } else if (answer == AGR_REPLAY) {
    const size_t length = strlen(stub->result);
    void *room = sink->reserve(sink->context, length);
    if (!room) return AGR_ERR_NO_MEMORY;
    memcpy(room, stub->result, length);
    out_state->state = AGR_KEY_SUCCESS;
    out_state->remaining_ns = 1000000000;
  }
  return answer;
}
static agr_status stub_read(void *self, const agr_store_key *key, int64_t timeout_ns,
                            const agr_store_sink *sink, agr_store_run_state *out_state,
                            agr_error *error) {
  const agr_store_run run = {.key = *key};
  return stub_begin(self, &run, timeout_ns, sink, out_state, error);
}
static agr_status stub_renew(void *self, const agr_store_key *key, uint64_t fence, int64_t lease_ns,
                             int64_t ttl_ns, int64_t timeout_ns, agr_error *error) {
  (void)key, (void)fence, (void)lease_ns, (void)ttl_ns;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_complete(void *self, const agr_store_key *key, uint64_t fence, int32_t state,
                                const void *data, size_t length, int64_t ttl_ns, int64_t timeout_ns,
                                agr_error *error) {
  (void)key, (void)fence, (void)state, (void)data, (void)length, (void)ttl_ns;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_give_back(void *self, const agr_store_key *key, uint64_t fence,
                                 uint32_t outcome_unknown, int64_t ttl_ns, int64_t timeout_ns,
                                 agr_error *error) {
  (void)key, (void)fence, (void)outcome_unknown, (void)ttl_ns;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_take(void *self, agr_store_bucket *buckets, uint32_t count,
                            int64_t timeout_ns, uint32_t *out_refused, agr_error *error) {
  (void)buckets, (void)count, (void)out_refused;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_acquire(void *self, const agr_store_lease *lease, int64_t timeout_ns,
                               uint64_t *out_fence, int64_t *out_retry_after_ns, agr_error *error) {
  (void)lease, (void)out_fence, (void)out_retry_after_ns;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_extend(void *self, const agr_store_lease *lease, int64_t timeout_ns,
                              agr_error *error) {
  (void)lease;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_breaker_read(void *self, const agr_store_key *key, int64_t timeout_ns,
                                    agr_store_breaker *out_breaker, agr_error *error) {
  (void)key, (void)out_breaker;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_breaker_set(void *self, const agr_store_key *key,
                                   const agr_store_breaker *desired, int64_t ttl_ns,
                                   int64_t timeout_ns, agr_store_breaker *out_breaker,
                                   agr_error *error) {
  (void)key, (void)desired, (void)ttl_ns, (void)out_breaker;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_probe(void *self, const agr_store_key *key, uint64_t generation,
                             const uint64_t *owner, int64_t ttl_ns, int64_t timeout_ns,
                             int64_t *out_retry_after_ns, agr_error *error) {
  (void)key, (void)generation, (void)owner, (void)ttl_ns, (void)out_retry_after_ns;
  return stub_answer(self, timeout_ns, error);
}
static agr_status stub_joins(void *self, const agr_store_key *keys, uint32_t count) {
  (void)self, (void)keys, (void)count;
  return AGR_OK;
}

static const agr_store_api stub_api = {
    .struct_size = sizeof(agr_store_api),
    .name = "stub",
    .ping = stub_ping,
    .destroy = stub_destroy,
    .begin = stub_begin,
    .read = stub_read,
    .renew = stub_renew,
    .complete = stub_complete,
    .give_back = stub_give_back,
    .take = stub_take,
    .acquire = stub_acquire,
    .extend = stub_extend,
    .release = stub_extend,
    .breaker_read = stub_breaker_read,
    .breaker_set = stub_breaker_set,
    .probe = stub_probe,
    .joins = stub_joins,
};

#endif
