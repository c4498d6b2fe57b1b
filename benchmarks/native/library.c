/* SPDX-License-Identifier: Apache-2.0
 * The library's hot paths through its C interface, beside what plain C takes for the least that can be done.
 *
 *   library [ROUNDS [PREFIX]] */
#include "bench.h"
#include "floors.h"
#include "subjects.h"

/* ---- limiter ---- */

static agr_limiter *limiter, *empty;

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

/* ---- the same in a region ---- */

static agr_limiter *shared_limiter, *shared_empty;
static agr_breaker *shared_breaker;

static void region_limiter_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(shared_limiter, 1, NOW + i, NULL, NULL);
}

static void region_limiter_refused_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(shared_empty, 1, NOW + i, NULL, NULL);
}

static void region_breaker_at(int64_t operations, int thread) {
  (void)thread;
  pair_at(shared_breaker, operations);
}

/* ---- keys ---- */

enum { HUNDRED_THOUSAND = 100000, MILLION = 1000000 };

static char *keys;
static agr_keyed_limiter *keyed_small, *keyed_large;

/* Tables are powers of two; this many keys are two thirds of one. */
enum { STATED_LOAD = (1 << 18) / 3 * 2 };

static void report_bytes(const char *name, const agr_keyed_limiter *limiter, uint32_t count) {
  agr_keyed_limiter_snapshot seen;
  seen.struct_size = sizeof seen;
  demand(agr_keyed_limiter_snapshot_read_at(limiter, NOW, &seen, NULL) == AGR_OK, "snapshot");
  printf("{\"name\": \"%s\", \"bytes_per_key\": %.1f, \"keys\": %u, \"without_place\": %llu}\n", name,
         (double)seen.bytes / (double)seen.busy_keys, count, (unsigned long long)seen.no_place);
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

static void replay_hot(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) BENCH_USE(replay(cache, long_keys));
}

static void replay_hot_clock(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) {
    agr_lease lease;
    agr_result result;
    (void)agr_idempotency_begin(cache, long_keys, LONG_KEY_BYTES, NULL, 0, &lease, &result, NULL);
    BENCH_USE(result.data);
    (void)agr_idempotency_release(cache, result.pin, NULL);
  }
}

static void replay_100k(int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(replay(cache, long_keys + bench_random(&state) % HUNDRED_THOUSAND * LONG_KEY_BYTES));
  states[thread] = state;
}

/* ---- backoff ---- */

static agr_backoff_config backoff;

static void backoff_delay(int64_t operations, int thread) {
  (void)thread;
  BENCH_USE(delays(&backoff, operations));
}

/* ---- policy ---- */

static agr_policy *policy;
static parts its;

static void policy_call(int64_t operations, int thread) {
  (void)thread;
  calls_at(policy, operations);
}

/* What the call above asks of its parts. */
static void policy_parts(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) {
    uint64_t permit;
    agr_reservation reserved;
    (void)agr_retry_budget_deposit_at(its.budget, 1, NOW + i, NULL);
    (void)agr_limiter_reserve_at(its.limiter, 1, 0, NOW + i, &reserved, NULL, NULL);
    (void)agr_breaker_acquire_at(its.breaker, NOW + i, &permit, NULL, NULL);
    (void)agr_breaker_report_at(its.breaker, permit, AGR_OUTCOME_SUCCESS, 0, NOW + i, NULL);
    (void)agr_limiter_settle_at(its.limiter, reserved.permit, -1, NOW + i, NULL);
  }
}

int main(int count, char **arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 15;
  const char *only = count > 2 ? arguments[2] : NULL;
  keys = new_keys(MILLION, KEY_BYTES);
  long_keys = new_keys(HUNDRED_THOUSAND, LONG_KEY_BYTES);
  agr_backoff_config_init(&backoff, sizeof backoff);
  limiter = new_full_limiter();
  empty = new_limiter(1, 0, 0);
  by_count = new_breaker(AGR_WINDOW_COUNT);
  by_time = new_breaker(AGR_WINDOW_TIME);
  agr_region *region = new_region();
  shared_limiter = new_limiter_in(region, "full", INT64_C(1) << 50, 1000000000, -1);
  shared_empty = new_limiter_in(region, "empty", 1, 0, 0);
  shared_breaker = new_breaker_in(region, "breaker", AGR_WINDOW_COUNT);
  keyed_small = new_keyed(keys, HUNDRED_THOUSAND, HUNDRED_THOUSAND);
  keyed_large = new_keyed(keys, MILLION, MILLION);
  report_bytes("keyed.100k", keyed_small, HUNDRED_THOUSAND);
  report_bytes("keyed.1m", keyed_large, MILLION);
  agr_keyed_limiter *stated = new_keyed(keys, STATED_LOAD, STATED_LOAD);
  report_bytes("keyed.stated_load", stated, STATED_LOAD);
  agr_keyed_limiter_destroy(stated);
  cache = new_cache(long_keys, HUNDRED_THOUSAND, 1 << 18);
  policy = new_policy(&its);
  /* Until the clock reads the counter, where it ever does. */
  for (int64_t end = bench_now() + 200000000; bench_now() < end;) BENCH_USE(agr_now_ns());

  add_floors();
  bench_add("limiter.at", limiter_at, 1);
  bench_add("limiter.clock", limiter_clock, 1);
  bench_add("limiter.refused.at", limiter_refused_at, 1);
  bench_add("limiter.refused.clock", limiter_refused, 1);
  bench_add("clock", clock_now, 1);
  bench_add("breaker.count.at", breaker_count_at, 1);
  bench_add("breaker.time.at", breaker_time_at, 1);
  bench_add("breaker.clock", breaker_clock, 1);
  bench_add("region.limiter.at", region_limiter_at, 1);
  bench_add("region.limiter.refused.at", region_limiter_refused_at, 1);
  bench_add("region.breaker.count.at", region_breaker_at, 1);
  bench_add_large("keyed.100k", keyed_100k, 1);
  bench_add_large("keyed.1m", keyed_1m, 1);
  bench_add_large("idempotency.hot", replay_hot, 1);
  bench_add_large("idempotency.hot.clock", replay_hot_clock, 1);
  bench_add_large("idempotency.100k", replay_100k, 1);
  bench_add("backoff", backoff_delay, 1);
  bench_add("policy", policy_call, 1);
  bench_add("policy.parts", policy_parts, 1);
  bench_add("limiter.at.2", limiter_at, 2);
  bench_add("limiter.clock.2", limiter_clock, 2);
  bench_add("breaker.count.at.2", breaker_count_at, 2);
  bench_add_large("keyed.100k.2", keyed_100k, 2);
  bench_add_large("idempotency.100k.2", replay_100k, 2);
  bench_run(rounds, only);
  return 0;
}
