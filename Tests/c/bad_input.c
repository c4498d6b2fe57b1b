/* SPDX-License-Identifier: Apache-2.0
 * What a caller can get wrong: each gets a status which names the field, and changes nothing. */
#include <autoglm_reliability.h>
#include <math.h>
#include <string.h>

#include "check.h"

static agr_error error;

/* The status is an argument error about `field`. */
#define REFUSED(call, wanted)                                                         \
  do {                                                                                \
    memset(&error, 0, sizeof error);                                                  \
    CHECK((call) == AGR_ERR_ARGUMENT);                                                \
    CHECK(error.status == AGR_ERR_ARGUMENT && error.message[0]);                      \
    if (strcmp(error.field, wanted)) fprintf(stderr, "field is %s\n", error.field);   \
    CHECK(!strcmp(error.field, wanted));                                              \
  } while (0)

static void sizes(void) {
  agr_limiter_config config;
  agr_limiter *limiter = NULL;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 10;
  REFUSED(agr_limiter_create(NULL, &limiter, &error), "config");
  REFUSED(agr_limiter_create(&config, NULL, &error), "out_limiter");
  for (uint32_t size = 0; size < 8; ++size) {
    config.struct_size = size;
    REFUSED(agr_limiter_create(&config, &limiter, &error), "struct_size");
  }
  config.struct_size = sizeof config + 1;
  REFUSED(agr_limiter_create(&config, &limiter, &error), "struct_size");
  config.struct_size = UINT32_MAX;
  REFUSED(agr_limiter_create(&config, &limiter, &error), "struct_size");
  CHECK(limiter == NULL);

  /* A later version's structure: its tail must be zero. */
  struct { agr_limiter_config config; uint64_t tail[4]; } later;
  memset(&later, 0, sizeof later);
  agr_limiter_config_init(&later.config, sizeof later);
  later.config.capacity = later.config.refill_tokens = 10;
  CHECK(later.config.struct_size == sizeof later);
  CHECK(agr_limiter_create(&later.config, &limiter, &error) == AGR_OK);
  agr_limiter_destroy(limiter);
  later.tail[3] = 1;
  REFUSED(agr_limiter_create(&later.config, &limiter, &error), "struct_size");

  /* An earlier version's: what it lacks gets the defaults. */
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 10;
  config.struct_size = offsetof(agr_limiter_config, initial_tokens);
  config.initial_tokens = 3;
  CHECK(agr_limiter_create(&config, &limiter, &error) == AGR_OK);
  int64_t available = 0;
  CHECK(agr_limiter_available(limiter, &available, &error) == AGR_OK && available == 10);

  /* An output of a smaller size is not written beyond it. */
  agr_limiter_snapshot snapshot;
  memset(&snapshot, 0x55, sizeof snapshot);
  snapshot.struct_size = 16;
  CHECK(agr_limiter_snapshot_read(limiter, &snapshot, &error) == AGR_OK);
  CHECK(snapshot.capacity == 10 && snapshot.refill_tokens == 0x5555555555555555);
  snapshot.struct_size = 7;
  REFUSED(agr_limiter_snapshot_read(limiter, &snapshot, &error), "out_snapshot");
  agr_limiter_destroy(limiter);
}

static void handles(void) {
  agr_breaker_config config;
  agr_breaker *breaker = NULL;
  agr_breaker_config_init(&config, sizeof config);
  CHECK(agr_breaker_create(&config, &breaker, &error) == AGR_OK);
  int64_t number;
  uint64_t permit;
  REFUSED(agr_limiter_try_acquire(NULL, 1, NULL, &error), "limiter");
  REFUSED(agr_limiter_try_acquire((agr_limiter *)breaker, 1, NULL, &error), "limiter");
  REFUSED(agr_limiter_try_acquire((agr_limiter *)((char *)breaker + 1), 1, NULL, &error), "limiter");
  REFUSED(agr_breaker_acquire(NULL, &permit, &number, &error), "breaker");
  REFUSED(agr_breaker_acquire(breaker, NULL, &number, &error), "out_permit");
  CHECK(agr_breaker_acquire(NULL, &permit, &number, NULL) == AGR_ERR_ARGUMENT);
  for (uint64_t guess = 0; guess < 1000; ++guess) {
    CHECK(agr_breaker_report(breaker, guess * 0x9e3779b97f4a7c15u, AGR_OUTCOME_SUCCESS, 0, NULL) ==
          AGR_STALE);
  }
  agr_breaker_destroy(breaker);
  agr_breaker_destroy(NULL);
  agr_limiter_destroy(NULL);
  agr_keyed_limiter_destroy(NULL);
  agr_idempotency_destroy(NULL);
  agr_policy_destroy(NULL);
  agr_retry_budget_destroy(NULL);
  agr_call_destroy(NULL);
}

/* Sets one field of an otherwise good configuration. */
#define FIELD(type, create, destroy, handle, field, value)            \
  do {                                                                \
    type##_config config_;                                            \
    type##_config_init(&config_, sizeof config_);                     \
    prepare_##type(&config_);                                         \
    config_.field = (value);                                          \
    handle *made_ = NULL;                                             \
    REFUSED(create(&config_, &made_, &error), #field);                \
    CHECK(made_ == NULL);                                             \
  } while (0)

static void prepare_agr_breaker(agr_breaker_config *config) { (void)config; }
static void prepare_agr_limiter(agr_limiter_config *config) { config->capacity = config->refill_tokens = 10; }
static void prepare_agr_keyed_limiter(agr_keyed_limiter_config *config) {
  config->capacity = config->refill_tokens = 10;
}
static void prepare_agr_idempotency(agr_idempotency_config *config) { (void)config; }
static void prepare_agr_retry_budget(agr_retry_budget_config *config) { (void)config; }

#define BREAKER(field, value) \
  FIELD(agr_breaker, agr_breaker_create, agr_breaker_destroy, agr_breaker, field, value)
#define LIMITER(field, value) \
  FIELD(agr_limiter, agr_limiter_create, agr_limiter_destroy, agr_limiter, field, value)
#define KEYED(field, value)                                                                \
  FIELD(agr_keyed_limiter, agr_keyed_limiter_create, agr_keyed_limiter_destroy, agr_keyed_limiter, \
        field, value)
#define CACHE(field, value) \
  FIELD(agr_idempotency, agr_idempotency_create, agr_idempotency_destroy, agr_idempotency, field, value)
#define BUDGET(field, value)                                                              \
  FIELD(agr_retry_budget, agr_retry_budget_create, agr_retry_budget_destroy, agr_retry_budget, \
        field, value)

static void fields(void) {
  const double bad_rates[] = {-0.1, 1.1, NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 5; ++i) {
    BREAKER(failure_rate, bad_rates[i]);
    BREAKER(slow_rate, bad_rates[i]);
    BREAKER(open_jitter, bad_rates[i]);
    BUDGET(ratio, i == 1 ? 1001 : bad_rates[i]);
  }
  BREAKER(open_growth, 0.5);
  BREAKER(open_growth, NAN);
  BREAKER(open_growth, INFINITY);
  BREAKER(window, 3);
  BREAKER(window, -1);
  BREAKER(window_calls, 0);
  BREAKER(window_calls, UINT32_MAX);
  BREAKER(window_ns, 9);
  BREAKER(window_ns, INT64_MAX);
  BREAKER(minimum_calls, 0);
  BREAKER(minimum_calls, 101);
  BREAKER(half_open_permits, 0);
  BREAKER(half_open_permits, 65);
  BREAKER(half_open_successes, 1001);
  BREAKER(max_permits, 0);
  BREAKER(max_permits, UINT32_MAX);
  BREAKER(slow_call_ns, -1);
  BREAKER(open_ns, 0);
  BREAKER(open_ns, INT64_MIN);
  BREAKER(open_max_ns, 1);
  BREAKER(permit_timeout_ns, 0);
  BREAKER(backpressure_fails, 2);
  BREAKER(mode, 5);
  LIMITER(capacity, 0);
  LIMITER(capacity, INT64_MAX);
  LIMITER(refill_tokens, -1);
  LIMITER(refill_tokens, INT64_MAX);
  LIMITER(refill_interval_ns, 0);
  LIMITER(refill_interval_ns, 9);
  LIMITER(refill_interval_ns, INT64_MAX);
  LIMITER(initial_tokens, 11);
  LIMITER(initial_tokens, -2);
  LIMITER(max_debt_tokens, -2);
  LIMITER(max_debt_tokens, INT64_MAX);
  LIMITER(reservation_timeout_ns, 0);
  LIMITER(max_reservations, UINT32_MAX);
  LIMITER(observe, 2);
  LIMITER(reserved, 1);
  KEYED(max_keys, 0);
  KEYED(max_keys, UINT32_MAX);
  KEYED(capacity, INT64_MIN);
  KEYED(refill_tokens, 0);
  KEYED(when_full, 2);
  KEYED(max_key_bytes, 0);
  KEYED(max_key_bytes, UINT32_MAX);
  CACHE(max_entries, 0);
  CACHE(max_entries, UINT32_MAX);
  CACHE(max_bytes, 0);
  CACHE(max_bytes, UINT64_MAX);
  CACHE(max_key_bytes, 0);
  CACHE(max_waiters, UINT32_MAX);
  CACHE(max_pins, 0);
  CACHE(when_full, -1);
  CACHE(on_failure, 2);
  CACHE(ttl_ns, 0);
  CACHE(lease_ns, INT64_MIN);
  CACHE(reserved, 1);
  BUDGET(quota, 0);
  BUDGET(initial, 101);
  BUDGET(min_per_second, UINT32_MAX);
}

static void keys(void) {
  agr_keyed_limiter_config config;
  agr_keyed_limiter *limiter = NULL;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 10;
  CHECK(agr_keyed_limiter_create(&config, &limiter, &error) == AGR_OK);
  char *million = calloc(1, 1000000);
  CHECK(agr_keyed_limiter_try_acquire(limiter, NULL, 0, 1, NULL, &error) == AGR_OK);
  REFUSED(agr_keyed_limiter_try_acquire(limiter, NULL, 1, 1, NULL, &error), "key");
  REFUSED(agr_keyed_limiter_try_acquire(limiter, million, 1000000, 1, NULL, &error), "key_length");
  REFUSED(agr_keyed_limiter_try_acquire(limiter, million, SIZE_MAX, 1, NULL, &error), "key_length");
  REFUSED(agr_keyed_limiter_try_acquire(limiter, "k", 1, -1, NULL, &error), "tokens");
  CHECK(agr_keyed_limiter_try_acquire(limiter, "k", 1, 11, NULL, &error) == AGR_ERR_NEVER_FITS);
  agr_keyed_limiter_destroy(limiter);

  agr_idempotency_config cache_config;
  agr_idempotency *cache = NULL;
  agr_idempotency_config_init(&cache_config, sizeof cache_config);
  CHECK(agr_idempotency_create(&cache_config, &cache, &error) == AGR_OK);
  agr_lease lease;
  agr_result result;
  REFUSED(agr_idempotency_begin(cache, NULL, 1, NULL, 0, &lease, &result, &error), "key");
  REFUSED(agr_idempotency_begin(cache, "k", 0, NULL, 0, &lease, &result, &error), "key_length");
  REFUSED(agr_idempotency_begin(cache, million, 1000000, NULL, 0, &lease, &result, &error),
          "key_length");
  REFUSED(agr_idempotency_begin(cache, "k", 1, NULL, 5, &lease, &result, &error), "fingerprint");
  REFUSED(agr_idempotency_begin(cache, "k", 1, NULL, 0, NULL, &result, &error), "out_lease");
  REFUSED(agr_idempotency_begin(cache, "k", 1, NULL, 0, &lease, NULL, &error), "out_result");
  CHECK(agr_idempotency_begin(cache, "k", 1, NULL, 0, &lease, &result, &error) == AGR_OK);
  REFUSED(agr_idempotency_complete(cache, lease.id, NULL, 5, &error), "data");
  CHECK(agr_idempotency_complete(cache, lease.id ^ 1, "x", 1, &error) == AGR_STALE);
  CHECK(agr_idempotency_complete(cache, lease.id, "x", SIZE_MAX, &error) < 0);
  CHECK(agr_idempotency_complete(cache, lease.id, "", 0, &error) == AGR_OK);
  CHECK(agr_idempotency_complete(cache, lease.id, "", 0, &error) == AGR_STALE);
  agr_idempotency_destroy(cache);
  free(million);
}

static void texts(void) {
  CHECK(!strcmp(agr_version(), "0.1.0"));
  CHECK(!strcmp(agr_status_name(AGR_ERR_NEVER_FITS), "AGR_ERR_NEVER_FITS"));
  CHECK(!strcmp(agr_status_name(12345), "AGR_UNKNOWN"));
  CHECK(!strcmp(agr_reason_name(-7), "unknown"));
  CHECK(!strcmp(agr_component_name(AGR_COMPONENT_BREAKER), "breaker"));
  uint64_t state = 0, random = 0;
  CHECK(agr_random_next(&state, &random, &error) == AGR_OK);
  CHECK(random == 0xe220a8397b1dcdaf); /* the first of SplitMix64 from 0 */
  REFUSED(agr_random_next(NULL, &random, &error), "state");
  int64_t delay;
  REFUSED(agr_hint_parse(AGR_HINT_RETRY_AFTER, NULL, 0, 0, &delay, &error), "text");
  REFUSED(agr_hint_parse(AGR_HINT_RETRY_AFTER, "1", SIZE_MAX, 0, &delay, &error), "length");
  size_t length;
  REFUSED(agr_event_json(NULL, NULL, 0, &length, &error), "event");
}

int main(void) {
  sizes();
  handles();
  fields();
  keys();
  texts();
  return finish();
}
