/* SPDX-License-Identifier: Apache-2.0
 * Where tokens are leased one thread asks the store, and the others wait for it. Whoever has no time for that does not
 * ask beside it, which would lease twice. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "../c/check.h"
#include "stub.h"

static const int64_t millisecond = 1000000, second = 1000000000;
static agr_error error;
static atomic_int inside, most_inside, released;

/* Gives what is asked for when it is released, or says in time that it does not. */
static agr_status hold_up(void *self, agr_store_bucket *buckets, uint32_t count, int64_t timeout_ns,
                          uint32_t *out_refused, agr_error *why) {
  const int64_t end = agr_now_ns() + timeout_ns;
  const int now = ++inside;
  (void)self, (void)count, (void)out_refused, (void)why;
  if (now > most_inside) most_inside = now;
  while (!released && agr_now_ns() < end) nanosleep(&(struct timespec){.tv_nsec = millisecond}, NULL);
  buckets[0].taken = buckets[0].tokens;
  --inside;
  return released ? AGR_OK : AGR_ERR_STORE;
}

static void *ask_for_one(void *limiter) {
  agr_error own;
  return agr_limiter_try_acquire(limiter, 1, NULL, &own) == AGR_OK ? limiter : NULL;
}

int main(void) {
  static agr_store_api api;
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = NULL;
  agr_store_config limits;
  agr_limiter_config bucket;
  agr_store_options options;
  agr_policy_config config;
  agr_policy *policy = NULL;
  pthread_t thread;
  void *granted = NULL;
  api = stub_api;
  api.take = hold_up;
  const agr_store_driver driver = {&api, &stub};
  agr_store_config_init(&limits, sizeof limits);
  agr_limiter_config_init(&bucket, sizeof bucket);
  agr_store_options_init(&options, sizeof options);
  agr_policy_config_init(&config, sizeof config);
  limits.timeout_ns = 30 * second;
  bucket.capacity = bucket.refill_tokens = 1000;
  options.lease_tokens = 10;
  config.limiter_count = 1;
  config.total_timeout_ns = 30 * millisecond;
  CHECK(agr_store_create(&driver, &limits, &store, &error) == AGR_OK);
  CHECK(agr_limiter_create_in_store(store, "leased", &bucket, &options, &config.limiters[0], &error) == AGR_OK);
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  CHECK(pthread_create(&thread, NULL, ask_for_one, config.limiters[0]) == 0);
  for (const int64_t end = agr_now_ns() + 60 * second; !inside && agr_now_ns() < end;)
    nanosleep(&(struct timespec){.tv_nsec = millisecond}, NULL);
  CHECK_EQUAL(inside, 1, "who asks");
  for (int i = 0; i < 3; ++i) {
    agr_call *call = NULL;
    agr_step step = {.struct_size = sizeof step};
    CHECK(agr_call_begin(policy, NULL, &call, &step, &error) == AGR_OK);
    CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE);
    agr_call_destroy(call);
  }
  CHECK_EQUAL(most_inside, 1, "asked at a time");
  released = 1;
  pthread_join(thread, &granted);
  CHECK(granted != NULL);
  agr_policy_destroy(policy);
  agr_limiter_destroy(config.limiters[0]);
  agr_store_destroy(store);
  return finish();
}
