/* SPDX-License-Identifier: Apache-2.0
 * What the programs here measure: objects of the library, set up alike. */
#ifndef SUBJECTS_H
#define SUBJECTS_H

#include <autoglm_reliability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 20, LONG_KEY_BYTES = 36, KEY_BYTES_MOST = 36 };

static const int64_t NOW = 1000000000;

static inline void demand(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "failed: %s\n", what);
  exit(1);
}

static inline agr_limiter *new_limiter(int64_t capacity, int64_t refill, int64_t initial) {
  agr_limiter *made = NULL;
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = refill;
  config.initial_tokens = initial;
  demand(agr_limiter_create_at(&config, NOW, &made, NULL) == AGR_OK, "limiter");
  return made;
}

/* One that never refuses. */
static inline agr_limiter *new_full_limiter(void) {
  return new_limiter(INT64_C(1) << 50, 1000000000, -1);
}

/* The same, in memory that processes share. */
static inline agr_region *new_region(void) {
  agr_region *made = NULL;
  demand(agr_region_open(NULL, 0, NULL, &made, NULL) == AGR_OK, "region");
  return made;
}

static inline agr_limiter *new_limiter_in(agr_region *region, const char *name, int64_t capacity,
                                          int64_t refill, int64_t initial) {
  agr_limiter *made = NULL;
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = refill;
  config.initial_tokens = initial;
  demand(agr_limiter_create_in_region_at(region, name, &config, NOW, &made, NULL) == AGR_OK,
         "limiter in a region");
  return made;
}

static inline agr_breaker *new_breaker_in(agr_region *region, const char *name, int32_t window) {
  agr_breaker *made = NULL;
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = window;
  demand(agr_breaker_create_in_region(region, name, &config, &made, NULL) == AGR_OK,
         "breaker in a region");
  return made;
}

static inline agr_breaker *new_breaker(int32_t window) {
  agr_breaker *made = NULL;
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = window;
  demand(agr_breaker_create(&config, &made, NULL) == AGR_OK, "breaker");
  return made;
}

static inline void write_key(char *to, size_t length, uint64_t number) {
  char text[64];
  snprintf(text, sizeof text, "%036llu", (unsigned long long)number);
  memcpy(to, text + KEY_BYTES_MOST - length, length);
}

/* The keys 0 ... count - 1, one after the other. */
static inline char *new_keys(uint32_t count, size_t length) {
  char *keys = malloc((size_t)count * length);
  demand(keys != NULL, "memory");
  for (uint32_t i = 0; i < count; ++i) write_key(keys + (size_t)i * length, length, i);
  return keys;
}

/* Each of the keys has a bucket that is not full for a long time: all stay in the table. In a table as full as
 * it may be, a few find their neighbourhood full. */
static inline agr_keyed_limiter *new_keyed(const char *keys, uint32_t count, uint32_t most) {
  agr_keyed_limiter *made = NULL;
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.max_keys = most;
  config.capacity = INT64_C(1) << 20;
  config.refill_tokens = 1;
  config.refill_interval_ns = 100000000;
  config.seed = 1;
  demand(agr_keyed_limiter_create(&config, &made, NULL) == AGR_OK, "keyed limiter");
  uint32_t refused = 0;
  for (uint32_t i = 0; i < count; ++i)
    refused += agr_keyed_limiter_try_acquire_at(made, keys + (size_t)i * KEY_BYTES, KEY_BYTES, 1, NOW,
                                                NULL, NULL) != AGR_OK;
  demand(refused <= count / 10000, "keys have a place");
  return made;
}

static inline void fill_cache(agr_idempotency *cache, const char *key) {
  agr_lease lease;
  agr_result result;
  demand(agr_idempotency_begin_at(cache, key, LONG_KEY_BYTES, NULL, 0, NOW, &lease, &result,
                                  NULL) == AGR_OK, "begin");
  demand(agr_idempotency_complete_at(cache, lease.id, "0123456789abcdef", 16, NOW, NULL) == AGR_OK,
         "complete");
}

/* All keys have a result of 16 bytes. */
static inline agr_idempotency *new_cache(const char *keys, uint32_t count, uint32_t most) {
  agr_idempotency *made = NULL;
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = most;
  config.max_bytes = UINT64_C(1) << 40;
  config.seed = 1;
  demand(agr_idempotency_create(&config, &made, NULL) == AGR_OK, "cache");
  for (uint32_t i = 0; i < count; ++i) fill_cache(made, keys + (size_t)i * LONG_KEY_BYTES);
  return made;
}

/* A hit: the result is pinned and released. */
static inline const void *replay(agr_idempotency *cache, const char *key) {
  agr_lease lease;
  agr_result result;
  (void)agr_idempotency_begin_at(cache, key, LONG_KEY_BYTES, NULL, 0, NOW, &lease, &result, NULL);
  (void)agr_idempotency_release(cache, result.pin, NULL);
  return result.data;
}

typedef struct parts {
  agr_limiter *limiter;
  agr_breaker *breaker;
  agr_retry_budget *budget;
} parts;

/* Limiter, breaker, retries and their budget, as one; the parts remain the caller's to use. */
static inline agr_policy *new_policy(parts *made) {
  made->limiter = new_limiter(INT64_C(1) << 40, 1000000000, -1);
  made->breaker = new_breaker(AGR_WINDOW_COUNT);
  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  demand(agr_retry_budget_create_at(&saving, NOW, &made->budget, NULL) == AGR_OK, "budget");
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.breaker = made->breaker;
  config.budget = made->budget;
  config.limiters[0] = made->limiter;
  config.limiter_count = 1;
  agr_policy *policy = NULL;
  demand(agr_policy_create(&config, &policy, NULL) == AGR_OK, "policy");
  return policy;
}

/* ---- the operations ---- */

static inline void pair_at(agr_breaker *breaker, int64_t operations) {
  uint64_t permit;
  for (int64_t i = 0; i < operations; ++i) {
    (void)agr_breaker_acquire_at(breaker, NOW + i, &permit, NULL, NULL);
    (void)agr_breaker_report_at(breaker, permit, AGR_OUTCOME_SUCCESS, 100, NOW + i, NULL);
  }
}

static inline int64_t delays(const agr_backoff_config *config, int64_t operations) {
  int64_t delay = 0;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_backoff_delay(config, 1 + (uint32_t)(i & 7), delay,
                            (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15), &delay, NULL);
  return delay;
}

static inline void calls_at(agr_policy *policy, int64_t operations) {
  agr_request request;
  agr_request_init(&request, sizeof request);
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  agr_step step;
  step.struct_size = sizeof step;
  for (int64_t i = 0; i < operations; ++i) {
    agr_call *call;
    (void)agr_call_begin_at(policy, &request, NOW + i, &call, &step, NULL);
    outcome.attempt_id = step.attempt_id;
    (void)agr_call_advance_at(call, &outcome, NOW + i, &step, NULL);
    agr_call_destroy_at(call, NOW + i);
  }
}

#endif
