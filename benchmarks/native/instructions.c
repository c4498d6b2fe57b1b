/* SPDX-License-Identifier: Apache-2.0
 * One operation so many times, for instructions.py to count what it executes. Nothing here depends on chance
 * or on the clock.
 *
 *   instructions NAME OPERATIONS */
#include "subjects.h"

enum { KEYS = 256 };

static void limiter(int64_t operations) {
  agr_limiter *full = new_full_limiter();
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(full, 1, NOW + i, NULL, NULL);
}

static void refused(int64_t operations) {
  agr_limiter *empty = new_limiter(1, 0, 0);
  int64_t retry_after_ns;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(empty, 1, NOW + i, &retry_after_ns, NULL);
}

static void joint(int64_t operations) {
  agr_limiter_demand demands[2] = {{new_full_limiter(), 1}, {new_full_limiter(), 1}};
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_all_at(demands, 2, NOW + i, NULL, NULL, NULL);
}

static void keyed(int64_t operations) {
  const char *keys = new_keys(KEYS, KEY_BYTES);
  agr_keyed_limiter *limiter = new_keyed(keys, KEYS, KEYS);
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_keyed_limiter_try_acquire_at(limiter, keys + i % KEYS * KEY_BYTES, KEY_BYTES, 1, NOW,
                                           NULL, NULL);
}

static void breaker_count(int64_t operations) {
  pair_at(new_breaker(AGR_WINDOW_COUNT), operations);
}

static void breaker_time(int64_t operations) { pair_at(new_breaker(AGR_WINDOW_TIME), operations); }

static void backoff(int64_t operations) {
  agr_backoff_config config;
  agr_backoff_config_init(&config, sizeof config);
  (void)delays(&config, operations);
}

static void idempotency_replay(int64_t operations) {
  const char *keys = new_keys(KEYS, LONG_KEY_BYTES);
  agr_idempotency *cache = new_cache(keys, KEYS, KEYS);
  for (int64_t i = 0; i < operations; ++i) (void)replay(cache, keys + i % KEYS * LONG_KEY_BYTES);
}

static void policy(int64_t operations) {
  parts its;
  calls_at(new_policy(&its), operations);
}

static const struct {
  const char *name;
  void (*run)(int64_t operations);
} KINDS[] = {
    {"limiter", limiter},
    {"limiter.refused", refused},
    {"limiter.joint.2", joint},
    {"keyed", keyed},
    {"breaker.count", breaker_count},
    {"breaker.time", breaker_time},
    {"backoff", backoff},
    {"idempotency.replay", idempotency_replay},
    {"policy", policy},
};

int main(int count, char **arguments) {
  if (count == 1) {
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; ++i) puts(KINDS[i].name);
    return 0;
  }
  for (size_t i = 0; count == 3 && i < sizeof KINDS / sizeof KINDS[0]; ++i) {
    if (strcmp(KINDS[i].name, arguments[1])) continue;
    KINDS[i].run(atoll(arguments[2]));
    return 0;
  }
  fprintf(stderr, "instructions [NAME OPERATIONS]\n");
  return 2;
}
