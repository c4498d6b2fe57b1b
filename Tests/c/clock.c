/* SPDX-License-Identifier: Apache-2.0
 * Clocks that step, sleep and run to the end of their range: nobody is locked out, no delay is
 * negative, and no more is admitted than the header's bound. */
#include <autoglm_reliability.h>
#include <string.h>

#include "check.h"

#define SECOND INT64_C(1000000000)
#define HOUR (3600 * SECOND)
#define YEAR (365 * 24 * HOUR)

/* Where a scale may begin: at boot, after a while, in the middle, and near its end. */
static const int64_t STARTS[] = {0, 1, SECOND, HOUR, YEAR, AGR_TIME_MAX_NS / 2,
                                 AGR_TIME_MAX_NS - 2 * YEAR};
static const int64_t OUTSIDE[] = {-1, INT64_MIN, INT64_MIN + 1, AGR_TIME_MAX_NS + 1, INT64_MAX - 1,
                                  INT64_MAX};
enum { START_COUNT = sizeof STARTS / sizeof STARTS[0] };
enum { OUTSIDE_COUNT = sizeof OUTSIDE / sizeof OUTSIDE[0] };

enum { CAPACITY = 10 };

static agr_limiter *new_limiter(int64_t now) {
  agr_limiter *limiter = NULL;
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = CAPACITY;
  config.refill_tokens = 1; /* a second */
  CHECK(agr_limiter_create_at(&config, now, &limiter, NULL) == AGR_OK);
  return limiter;
}

static agr_keyed_limiter *new_keyed(void) {
  agr_keyed_limiter *limiter = NULL;
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = CAPACITY;
  config.refill_tokens = 1;
  CHECK(agr_keyed_limiter_create(&config, &limiter, NULL) == AGR_OK);
  return limiter;
}

/* One bucket, by itself or under a key. */
typedef struct {
  agr_limiter *one;
  agr_keyed_limiter *keyed;
} bucket;

static agr_status take(bucket bucket, int64_t now, int64_t *retry_after) {
  return bucket.one
             ? agr_limiter_try_acquire_at(bucket.one, 1, now, retry_after, NULL)
             : agr_keyed_limiter_try_acquire_at(bucket.keyed, "k", 1, 1, now, retry_after, NULL);
}

/* Takes all there is; how much it was. behind: how far now is behind a time that was given before. */
static int drain_behind(bucket bucket, int64_t now, int64_t behind) {
  int64_t retry_after = 0;
  int taken = 0;
  while (taken <= 3 * CAPACITY && take(bucket, now, &retry_after) == AGR_OK) ++taken;
  /* Whoever is refused is told a time that is no longer than one token's. */
  CHECK(retry_after > 0 && retry_after <= SECOND + behind);
  return taken;
}

static int drain(bucket bucket, int64_t now) { return drain_behind(bucket, now, 0); }

static void a_bucket_lives_through_it(bucket bucket, int64_t start) {
  int64_t now = start;
  CHECK(drain(bucket, now) == CAPACITY);

  /* Steps of less than a second are jitter: they bring nothing, and take nothing. */
  if (now >= SECOND) CHECK(drain_behind(bucket, now - SECOND / 2, SECOND / 2) == 0);
  CHECK(drain(bucket, now) == 0);

  /* An hour asleep fills the bucket and no more. */
  now += HOUR;
  CHECK(drain(bucket, now) == CAPACITY);

  /* Set back an hour, again and again: at most one capacity for each step, and it goes on
   * filling on the new scale. */
  for (int step = 0; step < 50; ++step) {
    now -= HOUR;
    CHECK(drain(bucket, now) <= CAPACITY);
    for (int second = 0; second < 3; ++second) {
      now += SECOND;
      CHECK(drain(bucket, now) <= 1 + (second == 0));
    }
    now += HOUR - 3 * SECOND;
    int taken = drain(bucket, now);
    CHECK(taken <= CAPACITY && taken >= CAPACITY - 1);
  }

  /* To the end of the scale and back to its beginning. */
  CHECK(drain(bucket, AGR_TIME_MAX_NS) <= CAPACITY);
  CHECK(drain(bucket, AGR_TIME_MAX_NS) == 0);
  CHECK(drain(bucket, 0) <= CAPACITY);
  CHECK(drain(bucket, 0) == 0);
  int taken = drain(bucket, 2 * SECOND);
  CHECK(taken == 2);
}

static void limiters(void) {
  for (int i = 0; i < START_COUNT; ++i) {
    bucket bucket = {new_limiter(STARTS[i]), NULL};
    a_bucket_lives_through_it(bucket, STARTS[i]);
    for (int j = 0; j < OUTSIDE_COUNT; ++j) {
      agr_error error;
      int64_t tokens = 0;
      CHECK(agr_limiter_try_acquire_at(bucket.one, 1, OUTSIDE[j], NULL, &error) ==
            AGR_ERR_ARGUMENT);
      CHECK(strcmp(error.field, "now_ns") == 0);
      CHECK(agr_limiter_available_at(bucket.one, OUTSIDE[j], &tokens, NULL) == AGR_ERR_ARGUMENT);
    }
    CHECK(drain(bucket, 3 * SECOND) == 1);
    agr_limiter_destroy(bucket.one);
    bucket.one = NULL;
    bucket.keyed = new_keyed();
    a_bucket_lives_through_it(bucket, STARTS[i]);
    for (int j = 0; j < OUTSIDE_COUNT; ++j)
      CHECK(agr_keyed_limiter_try_acquire_at(bucket.keyed, "k", 1, 1, OUTSIDE[j], NULL, NULL) ==
            AGR_ERR_ARGUMENT);
    agr_keyed_limiter_destroy(bucket.keyed);
  }
}

static agr_breaker *new_breaker(int64_t open_ns) {
  agr_breaker *breaker = NULL;
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.consecutive_failures = 1;
  config.open_ns = config.open_max_ns = open_ns;
  config.half_open_permits = 1;
  config.open_jitter = 0;
  config.permit_timeout_ns = 24 * HOUR;
  CHECK(agr_breaker_create(&config, &breaker, NULL) == AGR_OK);
  return breaker;
}

/* Open for five seconds on whichever scale, never for longer; and a probe that is out while the clock
 * steps still decides. */
static void a_breaker_lives_through_it(int64_t now, int64_t leap, int64_t second_leap) {
  int64_t retry_after = 0;
  uint64_t permit;
  agr_breaker *breaker = new_breaker(5 * SECOND);
  CHECK(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
  CHECK(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_FAILURE, 0, now, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(breaker, now, &permit, &retry_after, NULL) == AGR_OPEN);
  CHECK(retry_after == 5 * SECOND);
  now += leap;
  agr_status status = agr_breaker_acquire_at(breaker, now, &permit, &retry_after, NULL);
  CHECK(status == (leap > 5 * SECOND ? AGR_OK : AGR_OPEN));
  if (status == AGR_OPEN) {
    CHECK(retry_after >= 0 && retry_after <= 6 * SECOND);
    now += retry_after;
    CHECK(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
  }
  now += second_leap;
  CHECK(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_SUCCESS, 0, now, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
  for (int j = 0; j < OUTSIDE_COUNT; ++j)
    CHECK(agr_breaker_acquire_at(breaker, OUTSIDE[j], &permit, NULL, NULL) == AGR_ERR_ARGUMENT);
  agr_breaker_destroy(breaker);
}

static void breakers(void) {
  static const int64_t leaps[] = {-HOUR, -SECOND / 2, 0, HOUR};
  for (int i = 0; i < START_COUNT; ++i)
    for (int first = 0; first < 4; ++first)
      for (int second = 0; second < 4; ++second) {
        int64_t now = STARTS[i] < 2 * HOUR ? STARTS[i] + 2 * HOUR : STARTS[i];
        a_breaker_lives_through_it(now, leaps[first], leaps[second]);
      }
}

static void budgets(void) {
  for (int i = 0; i < START_COUNT; ++i) {
    agr_retry_budget *budget = NULL;
    agr_retry_budget_config config;
    agr_retry_budget_config_init(&config, sizeof config);
    config.min_per_second = 1;
    config.quota = config.initial = 5;
    int64_t now = STARTS[i], retry_after;
    CHECK(agr_retry_budget_create_at(&config, now, &budget, NULL) == AGR_OK);
    CHECK(agr_retry_budget_withdraw_at(budget, 5, now, NULL, NULL) == AGR_OK);
    for (int step = 0; step < 20; ++step) {
      now = now > HOUR ? now - HOUR : now + YEAR;
      (void)agr_retry_budget_withdraw_at(budget, 5, now, NULL, NULL);
      agr_status status = agr_retry_budget_withdraw_at(budget, 1, now, &retry_after, NULL);
      CHECK(status == AGR_OK || (retry_after > 0 && retry_after <= 6 * SECOND));
      if (status == AGR_OK) continue;
      now += retry_after;
      CHECK(agr_retry_budget_withdraw_at(budget, 1, now, NULL, NULL) == AGR_OK);
    }
    for (int j = 0; j < OUTSIDE_COUNT; ++j)
      CHECK(agr_retry_budget_withdraw_at(budget, 1, OUTSIDE[j], NULL, NULL) == AGR_ERR_ARGUMENT);
    agr_retry_budget_destroy(budget);
  }
}

/* A lease ends after its time on whichever scale, and a result outlives a step. */
static void caches(void) {
  for (int i = 0; i < START_COUNT; ++i) {
    agr_idempotency *cache = NULL;
    agr_idempotency_config config;
    agr_idempotency_config_init(&config, sizeof config);
    config.lease_ns = 60 * SECOND;
    config.ttl_ns = 2 * HOUR;
    CHECK(agr_idempotency_create(&config, &cache, NULL) == AGR_OK);
    agr_lease lease, next;
    agr_result result;
    int64_t now = STARTS[i];
    CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, now, &lease, &result, NULL) == AGR_OK);
    now = now > HOUR ? now - HOUR : now;
    CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, now, &next, &result, NULL) ==
          AGR_IN_PROGRESS);
    CHECK(next.expires_in_ns > 0 && next.expires_in_ns <= 61 * SECOND);
    now += next.expires_in_ns;
    CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, now, &next, &result, NULL) == AGR_OK);
    CHECK(next.outcome_unknown == 1 && next.fence > lease.fence);
    CHECK(agr_idempotency_complete_at(cache, lease.id, "late", 4, now, NULL) == AGR_STALE);
    CHECK(agr_idempotency_complete_at(cache, next.id, "v", 1, now, NULL) == AGR_OK);
    now = now > HOUR ? now - HOUR : now + HOUR;
    CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, now, &lease, &result, NULL) ==
          AGR_REPLAY);
    CHECK(agr_idempotency_release(cache, result.pin, NULL) == AGR_OK);
    now += 2 * HOUR + SECOND;
    CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, now, &lease, &result, NULL) == AGR_OK);
    for (int j = 0; j < OUTSIDE_COUNT; ++j)
      CHECK(agr_idempotency_begin_at(cache, "k", 1, NULL, 0, OUTSIDE[j], &lease, &result, NULL) ==
            AGR_ERR_ARGUMENT);
    agr_idempotency_destroy(cache);
  }
}

/* A wait does not grow when the clock is set back under it, and the deadline goes along. */
static void policies(void) {
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.jitter = AGR_JITTER_NONE;
  retry.backoff.base_delay_ns = SECOND;
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.total_timeout_ns = 60 * SECOND;
  agr_policy *policy = NULL;
  CHECK(agr_policy_create(&config, &policy, NULL) == AGR_OK);
  for (int i = 0; i < START_COUNT; ++i) {
    int64_t now = STARTS[i];
    agr_call *call = NULL;
    agr_step step = {.struct_size = sizeof step};
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.error_class = AGR_CLASS_TRANSIENT;
    CHECK(agr_call_begin_at(policy, NULL, now, &call, &step, NULL) == AGR_OK);
    CHECK(agr_call_advance_at(call, &outcome, now, &step, NULL) == AGR_OK);
    CHECK(step.kind == AGR_STEP_WAIT && step.wait_ns == SECOND);
    if (now > HOUR) {
      now -= HOUR;
      CHECK(agr_call_advance_at(call, NULL, now, &step, NULL) == AGR_OK);
      CHECK(step.kind == AGR_STEP_WAIT && step.wait_ns >= 0 && step.wait_ns <= 2 * SECOND);
      CHECK(step.remaining_ns > 0 && step.remaining_ns <= 61 * SECOND);
    }
    now += step.wait_ns;
    CHECK(agr_call_advance_at(call, NULL, now, &step, NULL) == AGR_OK);
    CHECK(step.kind == AGR_STEP_ATTEMPT && step.attempt == 2);
    for (int j = 0; j < OUTSIDE_COUNT; ++j)
      CHECK(agr_call_advance_at(call, &outcome, OUTSIDE[j], &step, NULL) == AGR_ERR_ARGUMENT);
    /* An hour asleep in the attempt: the deadline is over, and no wait is begun. */
    now += HOUR;
    CHECK(agr_call_advance_at(call, &outcome, now, &step, NULL) == AGR_OK);
    CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE);
    agr_call_destroy_at(call, now);
  }
  agr_policy_destroy(policy);
}

int main(void) {
  limiters();
  breakers();
  budgets();
  caches();
  policies();
  return finish();
}
