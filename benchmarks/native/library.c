/* SPDX-License-Identifier: Apache-2.0
 * The library's hot paths through its C interface, beside what plain C takes for the least that can be done.
 *
 *   library [ROUNDS [PREFIX]] */
#define _GNU_SOURCE
#include <autoglm_reliability.h>

#include "bench.h"
#include "floors.h"

static const int64_t NOW = 1000000000;

static void demand(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "library: %s\n", what);
  exit(1);
}

/* ---- limiter ---- */

static agr_limiter *limiter, *empty;

static agr_limiter *new_limiter(int64_t capacity, int64_t refill, int64_t initial, int64_t now) {
  agr_limiter *made = NULL;
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = refill;
  config.initial_tokens = initial;
  demand(agr_limiter_create_at(&config, now, &made, NULL) == AGR_OK, "limiter");
  return made;
}

static void limiter_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(limiter, 1, NOW + i, NULL, NULL);
}

static void limiter_clock(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) (void)agr_limiter_try_acquire(limiter, 1, NULL, NULL);
}

static void limiter_refused_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(empty, 1, NOW + i, NULL, NULL);
}

static void limiter_refused(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) (void)agr_limiter_try_acquire(empty, 1, NULL, NULL);
}

static void clock_now(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) BENCH_USE(agr_now_ns());
}

/* ---- breaker ---- */

static agr_breaker *by_count, *by_time;

static agr_breaker *new_breaker(int32_t window) {
  agr_breaker *made = NULL;
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = window;
  demand(agr_breaker_create(&config, &made, NULL) == AGR_OK, "breaker");
  return made;
}

static void pair_at(agr_breaker *breaker, int64_t operations) {
  uint64_t permit;
  for (int64_t i = 0; i < operations; ++i) {
    (void)agr_breaker_acquire_at(breaker, NOW + i, &permit, NULL, NULL);
    (void)agr_breaker_report_at(breaker, permit, AGR_OUTCOME_SUCCESS, 100, NOW + i, NULL);
  }
}

static void breaker_count_at(int64_t operations, int thread) {
  (void)thread;
  pair_at(by_count, operations);
}

static void breaker_time_at(int64_t operations, int thread) {
  (void)thread;
  pair_at(by_time, operations);
}

static void breaker_clock(int64_t operations, int thread) {
  (void)thread;
  uint64_t permit;
  for (int64_t i = 0; i < operations; ++i) {
    (void)agr_breaker_acquire(by_count, &permit, NULL, NULL);
    (void)agr_breaker_report(by_count, permit, AGR_OUTCOME_SUCCESS, 100, NULL);
  }
}

/* ---- keys ---- */

enum { KEY_BYTES = 20, LONG_KEY_BYTES = 36, HUNDRED_THOUSAND = 100000, MILLION = 1000000 };

static char *keys;
static agr_keyed_limiter *keyed_small, *keyed_large;

static void write_key(char *to, size_t length, uint64_t number) {
  char text[64];
  snprintf(text, sizeof text, "%036llu", (unsigned long long)number);
  memcpy(to, text + 36 - length, length);
}

static agr_keyed_limiter *new_keyed(uint32_t count) {
  agr_keyed_limiter *made = NULL;
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.max_keys = count;
  /* As fast as a bucket that is never full again may be: every key stays in the table. */
  config.capacity = INT64_C(1) << 20;
  config.refill_tokens = 1;
  config.refill_interval_ns = 100000000;
  demand(agr_keyed_limiter_create(&config, &made, NULL) == AGR_OK, "keyed limiter");
  for (uint32_t i = 0; i < count; ++i)
    demand(agr_keyed_limiter_try_acquire_at(made, keys + (size_t)i * KEY_BYTES, KEY_BYTES, 1, NOW,
                                            NULL, NULL) == AGR_OK, "key");
  return made;
}

static void keyed(agr_keyed_limiter *limiter, uint32_t count, int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  for (int64_t i = 0; i < operations; ++i) {
    const char *key = keys + (bench_random(&state) % count) * KEY_BYTES;
    (void)agr_keyed_limiter_try_acquire_at(limiter, key, KEY_BYTES, 1, NOW, NULL, NULL);
  }
  states[thread] = state;
}

static void keyed_100k(int64_t operations, int thread) {
  keyed(keyed_small, HUNDRED_THOUSAND, operations, thread);
}

static void keyed_1m(int64_t operations, int thread) {
  keyed(keyed_large, MILLION, operations, thread);
}

/* ---- idempotency ---- */

static agr_idempotency *cache;
static char *long_keys;

static void new_cache(void) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 1 << 18;
  demand(agr_idempotency_create(&config, &cache, NULL) == AGR_OK, "cache");
  for (uint32_t i = 0; i < HUNDRED_THOUSAND; ++i) {
    agr_lease lease;
    agr_result result;
    const char *key = long_keys + (size_t)i * LONG_KEY_BYTES;
    demand(agr_idempotency_begin_at(cache, key, LONG_KEY_BYTES, NULL, 0, NOW, &lease, &result,
                                    NULL) == AGR_OK, "begin");
    demand(agr_idempotency_complete_at(cache, lease.id, "0123456789abcdef", 16, NOW, NULL) ==
               AGR_OK, "complete");
  }
}

static void replay(const char *key) {
  agr_lease lease;
  agr_result result;
  (void)agr_idempotency_begin_at(cache, key, LONG_KEY_BYTES, NULL, 0, NOW, &lease, &result, NULL);
  BENCH_USE(result.data);
  (void)agr_idempotency_release(cache, result.pin, NULL);
}

static void replay_hot(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) replay(long_keys);
}

static void replay_100k(int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  for (int64_t i = 0; i < operations; ++i)
    replay(long_keys + (bench_random(&state) % HUNDRED_THOUSAND) * LONG_KEY_BYTES);
  states[thread] = state;
}

/* ---- backoff ---- */

static agr_backoff_config backoff;

static void backoff_delay(int64_t operations, int thread) {
  (void)thread;
  int64_t delay = 0;
  for (int64_t i = 0; i < operations; ++i) {
    (void)agr_backoff_delay(&backoff, 1 + (uint32_t)(i & 7), delay,
                            (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15), &delay, NULL);
    BENCH_USE(delay);
  }
}

/* ---- policy ---- */

static agr_policy *policy;
static agr_limiter *part_limiter;
static agr_breaker *part_breaker;
static agr_retry_budget *part_budget;

static void new_policy(void) {
  part_limiter = new_limiter(INT64_C(1) << 40, 1000000000, -1, NOW);
  part_breaker = new_breaker(AGR_WINDOW_COUNT);
  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  demand(agr_retry_budget_create_at(&saving, NOW, &part_budget, NULL) == AGR_OK, "budget");
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.breaker = part_breaker;
  config.budget = part_budget;
  config.limiters[0] = part_limiter;
  config.limiter_count = 1;
  demand(agr_policy_create(&config, &policy, NULL) == AGR_OK, "policy");
}

static void policy_call(int64_t operations, int thread) {
  (void)thread;
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

/* What the call above asks of its parts. */
static void policy_parts(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) {
    uint64_t permit;
    agr_reservation reserved;
    (void)agr_retry_budget_deposit_at(part_budget, 1, NOW + i, NULL);
    (void)agr_limiter_reserve_at(part_limiter, 1, 0, NOW + i, &reserved, NULL, NULL);
    (void)agr_breaker_acquire_at(part_breaker, NOW + i, &permit, NULL, NULL);
    (void)agr_breaker_report_at(part_breaker, permit, AGR_OUTCOME_SUCCESS, 0, NOW + i, NULL);
    (void)agr_limiter_settle_at(part_limiter, reserved.permit, -1, NOW + i, NULL);
  }
}

int main(int count, char **arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 15;
  const char *only = count > 2 ? arguments[2] : NULL;
  keys = malloc((size_t)MILLION * KEY_BYTES);
  long_keys = malloc((size_t)HUNDRED_THOUSAND * LONG_KEY_BYTES);
  demand(keys && long_keys, "memory");
  for (uint32_t i = 0; i < MILLION; ++i) write_key(keys + (size_t)i * KEY_BYTES, KEY_BYTES, i);
  for (uint32_t i = 0; i < HUNDRED_THOUSAND; ++i)
    write_key(long_keys + (size_t)i * LONG_KEY_BYTES, LONG_KEY_BYTES, i);
  agr_backoff_config_init(&backoff, sizeof backoff);
  limiter = new_limiter(INT64_C(1) << 50, 1000000000, -1, NOW);
  empty = new_limiter(1, 0, 0, NOW);
  by_count = new_breaker(AGR_WINDOW_COUNT);
  by_time = new_breaker(AGR_WINDOW_TIME);
  keyed_small = new_keyed(HUNDRED_THOUSAND);
  keyed_large = new_keyed(MILLION);
  new_cache();
  new_policy();
  /* The clock takes a second until it reads the counter. */
  for (int64_t end = bench_now() + 1500000000; bench_now() < end;) BENCH_USE(agr_now_ns());

  add_floors();
  bench_add("limiter.at", limiter_at, 1);
  bench_add("limiter.clock", limiter_clock, 1);
  bench_add("limiter.refused.at", limiter_refused_at, 1);
  bench_add("limiter.refused.clock", limiter_refused, 1);
  bench_add("clock", clock_now, 1);
  bench_add("breaker.count.at", breaker_count_at, 1);
  bench_add("breaker.time.at", breaker_time_at, 1);
  bench_add("breaker.clock", breaker_clock, 1);
  bench_add("keyed.100k", keyed_100k, 1);
  bench_add("keyed.1m", keyed_1m, 1);
  bench_add("idempotency.hot", replay_hot, 1);
  bench_add("idempotency.100k", replay_100k, 1);
  bench_add("backoff", backoff_delay, 1);
  bench_add("policy", policy_call, 1);
  bench_add("policy.parts", policy_parts, 1);
  bench_add("limiter.at.2", limiter_at, 2);
  bench_add("breaker.count.at.2", breaker_count_at, 2);
  bench_add("keyed.100k.2", keyed_100k, 2);
  bench_add("idempotency.100k.2", replay_100k, 2);
  bench_run(rounds, only);
  return 0;
}
