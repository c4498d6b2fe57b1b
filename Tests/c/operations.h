/* SPDX-License-Identifier: Apache-2.0
 * What a server does all day with each part, one operation at a time, any number of times. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include <autoglm_reliability.h>
#include <string.h>

#include "check.h"

struct parts {
  agr_limiter *limiter, *other;
  agr_keyed_limiter *keyed;
  agr_breaker *breaker, *tripping;
  agr_retry_budget *budget;
  agr_idempotency *cache, *turnover; /* the keys of the second come and go */
  agr_policy *policy, *keeping;
  agr_backoff_config backoff;
  agr_retry_config retry;
  agr_limiter_config limiter_config;
  agr_keyed_limiter_config keyed_config;
  uint64_t lease, breaker_cursor, policy_cursor;
  int64_t now;
};

static struct parts parts;

static agr_status make_limiter(agr_limiter **out) {
  return agr_limiter_create_at(&parts.limiter_config, parts.now, out, NULL);
}

static agr_status make_keyed(agr_keyed_limiter **out) {
  return agr_keyed_limiter_create(&parts.keyed_config, out, NULL);
}

static agr_status make_breaker(agr_breaker **out) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.max_permits = 64;
  config.consecutive_failures = 3;
  config.open_ns = config.open_max_ns = 10;
  return agr_breaker_create(&config, out, NULL);
}

static agr_status make_budget(agr_retry_budget **out) {
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  config.ratio = 2; /* pays for a retry of every call */
  return agr_retry_budget_create_at(&config, parts.now, out, NULL);
}

static agr_status make_cache(agr_idempotency **out) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 64;
  config.max_waiters = config.max_pins = 16;
  config.when_full = AGR_WHEN_FULL_EVICT;
  return agr_idempotency_create(&config, out, NULL);
}

static agr_status make_policy(agr_idempotency *cache, agr_policy **out) {
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.max_calls = 64;
  config.idempotency = cache;
  config.breaker = parts.breaker;
  config.budget = parts.budget;
  config.retry = &parts.retry;
  config.limiters[0] = parts.limiter;
  config.limiter_count = 1;
  config.event_capacity = 16;
  config.cached_entries = 16;
  config.fallback = AGR_FALLBACK_CACHED_OR_DEFAULT;
  config.fallback_data = "default";
  config.fallback_length = 7;
  return agr_policy_create(&config, out, NULL);
}

static void configure_parts(void) {
  memset(&parts, 0, sizeof parts);
  parts.now = 1000000000;
  agr_backoff_config_init(&parts.backoff, sizeof parts.backoff);
  parts.backoff.max_attempts = 0;
  agr_retry_config_init(&parts.retry, sizeof parts.retry);
  parts.retry.temporary_delay_ns = 1000; /* keys must not grow too old meanwhile */
  agr_limiter_config_init(&parts.limiter_config, sizeof parts.limiter_config);
  parts.limiter_config.capacity = 1000;
  parts.limiter_config.refill_tokens = 1000000000; /* one a nanosecond */
  parts.limiter_config.max_reservations = 64;
  agr_keyed_limiter_config_init(&parts.keyed_config, sizeof parts.keyed_config);
  parts.keyed_config.capacity = 1000;
  parts.keyed_config.refill_tokens = 1000000;
  parts.keyed_config.max_keys = 64;
  parts.keyed_config.max_reservations = 64;
  parts.keyed_config.when_full = AGR_WHEN_FULL_EVICT;
}

/* The key "done" gets a result, "held" a lease. */
static int fill_cache(void) {
  agr_lease lease;
  agr_result result;
  if (agr_idempotency_begin_at(parts.cache, "done", 4, NULL, 0, parts.now, &lease, &result, NULL) !=
          AGR_OK ||
      agr_idempotency_complete_at(parts.cache, lease.id, "result", 6, parts.now, NULL) != AGR_OK ||
      agr_idempotency_begin_at(parts.cache, "held", 4, NULL, 0, parts.now, &lease, &result, NULL) !=
          AGR_OK) {
    return 0;
  }
  parts.lease = lease.id;
  return 1;
}

enum { PART_COUNT = 10 };

/* Makes all of them; how many there are. */
static int try_parts(void) {
  configure_parts();
  int made = make_limiter(&parts.limiter) == AGR_OK;
  made += make_limiter(&parts.other) == AGR_OK;
  made += make_keyed(&parts.keyed) == AGR_OK;
  made += make_breaker(&parts.breaker) == AGR_OK;
  made += make_breaker(&parts.tripping) == AGR_OK;
  made += make_budget(&parts.budget) == AGR_OK;
  made += make_cache(&parts.cache) == AGR_OK;
  made += make_cache(&parts.turnover) == AGR_OK;
  made += make_policy(parts.cache, &parts.policy) == AGR_OK;
  made += make_policy(parts.turnover, &parts.keeping) == AGR_OK;
  return made;
}

static void make_parts(void) {
  CHECK_EQUAL(try_parts(), PART_COUNT, "parts");
  CHECK(fill_cache());
}

static void destroy_parts(void) {
  agr_policy_destroy(parts.keeping);
  agr_policy_destroy(parts.policy);
  agr_idempotency_destroy(parts.turnover);
  agr_idempotency_destroy(parts.cache);
  agr_retry_budget_destroy(parts.budget);
  agr_breaker_destroy(parts.tripping);
  agr_breaker_destroy(parts.breaker);
  agr_keyed_limiter_destroy(parts.keyed);
  agr_limiter_destroy(parts.other);
  agr_limiter_destroy(parts.limiter);
}

/* ---- operations: each says whether it went as it should; time goes on by a microsecond ---- */

static int draw(void) {
  uint64_t state = 1, random;
  agr_random();
  return agr_random_next(&state, &random, NULL) == AGR_OK;
}

static int back_off(void) {
  int64_t delay;
  return agr_backoff_delay(&parts.backoff, 7, 0, agr_random(), &delay, NULL) == AGR_OK &&
         agr_backoff_adapt(&parts.backoff, delay, AGR_OUTCOME_FAILURE, 1, &delay, NULL) == AGR_OK;
}

static int decide(void) {
  agr_retry_rule rule, all[64];
  uint32_t count;
  int64_t delay;
  return agr_retry_classify(&parts.retry, AGR_DOMAIN_HTTP, 502, &rule, NULL) == AGR_OK &&
         agr_retry_decide(&parts.retry, 1, 0, &rule, 0, 0, -1, agr_random(), &delay, NULL) ==
             AGR_OK &&
         agr_retry_rules_default(all, 64, &count, NULL) == AGR_OK;
}

static int read_hint(void) {
  int64_t delay;
  return agr_hint_parse(AGR_HINT_DURATION, "1h2m3.5s", 8, 0, &delay, NULL) == AGR_OK &&
         agr_hint_parse(AGR_HINT_RETRY_AFTER, "Fri, 31 Dec 1999 23:59:59 GMT", 29, 0, &delay,
                        NULL) == AGR_OK;
}

static int pay(void) {
  int64_t wait, balance;
  return agr_retry_budget_deposit_at(parts.budget, 5, parts.now, NULL) == AGR_OK &&
         agr_retry_budget_withdraw_at(parts.budget, 1, parts.now, &wait, NULL) == AGR_OK &&
         agr_retry_budget_balance_at(parts.budget, parts.now, &balance, NULL) == AGR_OK;
}

static int report_success(void) {
  uint64_t permit;
  return agr_breaker_acquire_at(parts.breaker, parts.now, &permit, NULL, NULL) == AGR_OK &&
         agr_breaker_report_at(parts.breaker, permit, AGR_OUTCOME_SUCCESS, 1, parts.now, NULL) ==
             AGR_OK;
}

/* Trips, is open, half-open, and trips again. */
static int report_failure(void) {
  uint64_t permit;
  int64_t wait;
  const agr_status status = agr_breaker_acquire_at(parts.tripping, parts.now, &permit, &wait, NULL);
  if (status == AGR_OPEN) return 1;
  return status == AGR_OK && agr_breaker_report_at(parts.tripping, permit, AGR_OUTCOME_FAILURE, 1,
                                                   parts.now, NULL) == AGR_OK;
}

static int watch_breaker(void) {
  agr_breaker_snapshot snapshot = {.struct_size = sizeof snapshot};
  agr_breaker_event event = {.struct_size = sizeof event};
  uint64_t lost;
  int32_t state;
  return agr_breaker_snapshot_read_at(parts.tripping, parts.now, &snapshot, NULL) == AGR_OK &&
         agr_breaker_state_at(parts.tripping, parts.now, &state, NULL) == AGR_OK &&
         agr_breaker_next_event(parts.tripping, &parts.breaker_cursor, &event, &lost, NULL) >= 0;
}

static int take(void) {
  int64_t wait;
  return agr_limiter_try_acquire_at(parts.limiter, 3, parts.now, &wait, NULL) == AGR_OK &&
         agr_limiter_try_acquire_at(parts.limiter, 1001, parts.now, &wait, NULL) ==
             AGR_ERR_NEVER_FITS;
}

static int reserve(void) {
  agr_reservation first, second;
  return agr_limiter_reserve_at(parts.limiter, 3, 0, parts.now, &first, NULL, NULL) == AGR_OK &&
         agr_limiter_reserve_at(parts.limiter, 3, 0, parts.now, &second, NULL, NULL) == AGR_OK &&
         agr_limiter_settle_at(parts.limiter, first.permit, 1, parts.now, NULL) == AGR_OK &&
         agr_limiter_cancel_at(parts.limiter, second.permit, parts.now, NULL) == AGR_OK;
}

static int reserve_all(void) {
  const agr_limiter_demand demands[] = {{parts.limiter, 1}, {parts.other, 2}};
  agr_reservation reservations[2];
  uint32_t index;
  return agr_limiter_try_acquire_all_at(demands, 2, parts.now, &index, NULL, NULL) == AGR_OK &&
         agr_limiter_reserve_all_at(demands, 2, 0, parts.now, reservations, &index, NULL, NULL) ==
             AGR_OK &&
         agr_limiter_cancel_at(parts.limiter, reservations[0].permit, parts.now, NULL) == AGR_OK &&
         agr_limiter_settle_at(parts.other, reservations[1].permit, -1, parts.now, NULL) == AGR_OK;
}

static int watch_limiter(void) {
  agr_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  int64_t tokens;
  return agr_limiter_snapshot_read_at(parts.limiter, parts.now, &snapshot, NULL) == AGR_OK &&
         agr_limiter_available_at(parts.limiter, parts.now, &tokens, NULL) == AGR_OK &&
         agr_limiter_reconfigure_at(parts.limiter, &parts.limiter_config, parts.now, NULL) ==
             AGR_OK;
}

/* A new key nearly each time, so that keys come and go. */
static int take_keyed(void) {
  const int64_t key = parts.now;
  int64_t wait;
  agr_reservation reservation;
  return agr_keyed_limiter_try_acquire_at(parts.keyed, &key, sizeof key, 3, parts.now, &wait,
                                          NULL) == AGR_OK &&
         agr_keyed_limiter_reserve_at(parts.keyed, &key, sizeof key, 3, 0, parts.now, &reservation,
                                      &wait, NULL) == AGR_OK &&
         agr_keyed_limiter_settle_at(parts.keyed, reservation.permit, 1, parts.now, NULL) ==
             AGR_OK &&
         agr_keyed_limiter_available_at(parts.keyed, &key, sizeof key, parts.now, &wait, NULL) ==
             AGR_OK;
}

static int watch_keyed(void) {
  agr_keyed_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  return agr_keyed_limiter_snapshot_read_at(parts.keyed, parts.now, &snapshot, NULL) == AGR_OK &&
         agr_keyed_limiter_reconfigure(parts.keyed, &parts.keyed_config, NULL) == AGR_OK;
}

static int replay(void) {
  agr_lease lease;
  agr_result result;
  return agr_idempotency_begin_at(parts.cache, "done", 4, "print", 0, parts.now, &lease, &result,
                                  NULL) == AGR_REPLAY &&
         agr_idempotency_release(parts.cache, result.pin, NULL) == AGR_OK;
}

/* Joins the key that is held, looks, waits for no time, and leaves. */
static int join(void) {
  agr_lease lease;
  agr_result result;
  uint64_t ticket;
  int32_t state;
  return agr_idempotency_renew_at(parts.cache, parts.lease, 0, parts.now, NULL) == AGR_OK &&
         agr_idempotency_join_at(parts.cache, "held", 4, NULL, 0, parts.now, &ticket, &lease,
                                 &result, NULL) == AGR_IN_PROGRESS &&
         agr_idempotency_poll_at(parts.cache, ticket, parts.now, &lease, &result, NULL) ==
             AGR_IN_PROGRESS &&
         agr_idempotency_state_at(parts.cache, "held", 4, parts.now, &state, NULL) == AGR_OK &&
         agr_idempotency_leave_at(parts.cache, ticket, parts.now, NULL) == AGR_OK;
}

static int watch_cache(void) {
  agr_idempotency_snapshot snapshot = {.struct_size = sizeof snapshot};
  return agr_idempotency_snapshot_read(parts.cache, &snapshot, NULL) == AGR_OK;
}

/* An attempt that fails, a wait, and one that succeeds. */
static int guarded_call(void) {
  agr_call *call;
  agr_step step = {.struct_size = sizeof step};
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.domain = AGR_DOMAIN_HTTP;
  outcome.code = 429;
  if (agr_call_begin_at(parts.policy, NULL, parts.now, &call, &step, NULL) != AGR_OK) return 0;
  int good = agr_call_advance_at(call, &outcome, parts.now, &step, NULL) == AGR_OK &&
             step.kind == AGR_STEP_WAIT;
  parts.now += step.wait_ns;
  good = good && agr_call_advance_at(call, NULL, parts.now, &step, NULL) == AGR_OK &&
         step.kind == AGR_STEP_ATTEMPT && agr_call_commit(call, NULL) == AGR_OK;
  outcome.code = 200;
  good = good && agr_call_advance_at(call, &outcome, parts.now, &step, NULL) == AGR_OK &&
         step.reason == AGR_REASON_SUCCEEDED;
  agr_call_destroy_at(call, parts.now);
  return good;
}

/* One that is replayed, and one that is given up. */
static int replayed_call(void) {
  agr_call *call, *left;
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = "done";
  request.key_length = 4;
  agr_step step = {.struct_size = sizeof step};
  int good = agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, NULL) == AGR_OK &&
             step.reason == AGR_REASON_REPLAYED;
  agr_call_destroy_at(call, parts.now);
  good = good && agr_call_begin_at(parts.policy, NULL, parts.now, &left, &step, NULL) == AGR_OK;
  agr_call_destroy_at(left, parts.now);
  return good;
}

static int watch_policy(void) {
  agr_policy_snapshot snapshot = {.struct_size = sizeof snapshot};
  agr_event event = {.struct_size = sizeof event};
  char line[1024];
  size_t length;
  uint64_t lost;
  return agr_policy_snapshot_read(parts.policy, &snapshot, NULL) == AGR_OK &&
         agr_policy_next_event(parts.policy, &parts.policy_cursor, &event, &lost, NULL) >= 0 &&
         agr_event_json(&event, line, sizeof line, &length, NULL) == AGR_OK &&
         agr_policy_set_mode(parts.policy, AGR_COMPONENT_LIMITER, AGR_MODE_ENFORCE, NULL) ==
             AGR_OK &&
         agr_status_name(AGR_OK) && agr_reason_name(1) && agr_component_name(1);
}

/* These two allocate: a new key and its result. */
static int execute_key(void) {
  const int64_t key = parts.now;
  agr_lease lease;
  agr_result result;
  uint64_t ticket;
  return agr_idempotency_begin_at(parts.turnover, &key, sizeof key, NULL, 0, parts.now, &lease,
                                  &result, NULL) == AGR_OK &&
         agr_idempotency_join_at(parts.turnover, &key, sizeof key, NULL, 0, parts.now, &ticket,
                                 &(agr_lease){0}, &result, NULL) == AGR_IN_PROGRESS &&
         agr_idempotency_complete_at(parts.turnover, lease.id, &key, sizeof key, parts.now, NULL) ==
             AGR_OK &&
         agr_idempotency_poll_at(parts.turnover, ticket, parts.now, &lease, &result, NULL) ==
             AGR_REPLAY &&
         agr_idempotency_release(parts.turnover, result.pin, NULL) == AGR_OK;
}

static int cached_call(void) {
  const int64_t key = parts.now;
  agr_call *call;
  agr_step step = {.struct_size = sizeof step};
  agr_request request;
  agr_outcome outcome;
  agr_request_init(&request, sizeof request);
  agr_outcome_init(&outcome, sizeof outcome);
  request.key = request.cache_key = &key;
  request.key_length = request.cache_key_length = sizeof key;
  outcome.result = "answer";
  outcome.result_length = 6;
  if (agr_call_begin_at(parts.keeping, &request, parts.now, &call, &step, NULL) != AGR_OK) return 0;
  const int good = agr_call_advance_at(call, &outcome, parts.now, &step, NULL) == AGR_OK &&
                   step.reason == AGR_REASON_SUCCEEDED;
  agr_call_destroy_at(call, parts.now);
  return good;
}

static const struct operation {
  const char *name;
  int (*run)(void);
  int allocates;
} operations[] = {
    {"draw", draw, 0},
    {"back_off", back_off, 0},
    {"decide", decide, 0},
    {"read_hint", read_hint, 0},
    {"pay", pay, 0},
    {"report_success", report_success, 0},
    {"report_failure", report_failure, 0},
    {"watch_breaker", watch_breaker, 0},
    {"take", take, 0},
    {"reserve", reserve, 0},
    {"reserve_all", reserve_all, 0},
    {"watch_limiter", watch_limiter, 0},
    {"take_keyed", take_keyed, 0},
    {"watch_keyed", watch_keyed, 0},
    {"replay", replay, 0},
    {"join", join, 0},
    {"watch_cache", watch_cache, 0},
    {"guarded_call", guarded_call, 0},
    {"replayed_call", replayed_call, 0},
    {"watch_policy", watch_policy, 0},
    {"execute_key", execute_key, 1},
    {"cached_call", cached_call, 1},
};
enum { OPERATION_COUNT = sizeof operations / sizeof *operations };

/* Runs one, a microsecond after the one before. */
static inline int operate(const struct operation *operation) {
  parts.now += 1000;
  return operation->run();
}

#endif
