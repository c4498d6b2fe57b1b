/* SPDX-License-Identifier: Apache-2.0
 * Regions and their objects, in one process that opens everything twice: what one handle does, the other sees. */
#define _GNU_SOURCE
#include "region.h"

static agr_region *one, *other;

static void limiters(void) {
  agr_limiter *a, *b;
  agr_limiter_config config = limiter_config(100, 0);
  CHECK(agr_limiter_create_in_region_at(one, "tokens", &config, 0, &a, &error) == AGR_OK);
  CHECK(agr_limiter_create_in_region_at(other, "tokens", &config, 5, &b, &error) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(a, 60, 10, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(b, 60, 10, NULL, NULL) == AGR_LIMITED);
  CHECK(agr_limiter_try_acquire_at(b, 40, 10, NULL, NULL) == AGR_OK);

  /* A reservation of one is settled by the other, once. */
  agr_limiter *c, *d;
  CHECK(agr_limiter_create_in_region_at(one, "reserved", &config, 0, &c, &error) == AGR_OK);
  CHECK(agr_limiter_create_in_region_at(other, "reserved", &config, 0, &d, &error) == AGR_OK);
  agr_reservation reservation;
  CHECK(agr_limiter_reserve_at(c, 100, 0, 10, &reservation, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_settle_at(d, reservation.permit, 30, 11, NULL) == AGR_OK);
  CHECK(agr_limiter_settle_at(c, reservation.permit, 30, 11, NULL) == AGR_STALE);
  int64_t left = 0;
  CHECK(agr_limiter_available_at(c, 11, &left, NULL) == AGR_OK && left == 70);

  /* A change by one holds for the other, and for those who come with it. */
  agr_limiter_config changed = config;
  changed.capacity = 200;
  changed.refill_tokens = 60;
  changed.refill_interval_ns = 60 * SECOND;
  CHECK(agr_limiter_reconfigure_at(c, &changed, 12, &error) == AGR_OK);
  agr_limiter_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_limiter_snapshot_read_at(d, 12, &seen, NULL) == AGR_OK && seen.capacity == 200 &&
        seen.refill_tokens == 1 && seen.refill_interval_ns == SECOND);
  agr_limiter *e;
  CHECK_REFUSED(agr_limiter_create_in_region_at(one, "reserved", &config, 0, &e, &error),
                AGR_ERR_MISMATCH, "capacity");
  CHECK(e == NULL);
  CHECK(agr_limiter_create_in_region_at(one, "reserved", &changed, 0, &e, &error) == AGR_OK);

  /* Counters are of the object. */
  agr_limiter_snapshot counted = {.struct_size = sizeof counted};
  CHECK(agr_limiter_try_acquire_at(a, 1, 20, NULL, NULL) == AGR_LIMITED);
  CHECK(agr_limiter_try_acquire_at(b, 1, 20, NULL, NULL) == AGR_LIMITED);
  CHECK(agr_limiter_snapshot_read_at(b, 20, &counted, NULL) == AGR_OK && counted.refused == 3);
  agr_limiter_destroy(a);
  agr_limiter_destroy(b);
  agr_limiter_destroy(c);
  agr_limiter_destroy(d);
  agr_limiter_destroy(e);
  /* It stays as it was. */
  CHECK(agr_limiter_create_in_region_at(one, "tokens", &config, 100, &a, &error) == AGR_OK);
  CHECK(agr_limiter_available_at(a, 100, &left, NULL) == AGR_OK && left == 0);
  agr_limiter_destroy(a);
}

static void keyed(void) {
  agr_keyed_limiter *a, *b;
  agr_keyed_limiter_config config = keyed_config(10, 10);
  CHECK(agr_keyed_limiter_create_in_region(one, "keys", &config, &a, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_create_in_region(other, "keys", &config, &b, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_try_acquire_at(a, "k", 1, 7, SECOND, NULL, NULL) == AGR_OK);
  CHECK(agr_keyed_limiter_try_acquire_at(b, "k", 1, 7, SECOND, NULL, NULL) == AGR_LIMITED);
  CHECK(agr_keyed_limiter_try_acquire_at(b, "l", 1, 7, SECOND, NULL, NULL) == AGR_OK);
  agr_reservation reservation;
  CHECK(agr_keyed_limiter_reserve_at(a, "m", 1, 5, 0, SECOND, &reservation, NULL, NULL) == AGR_OK);
  CHECK(agr_keyed_limiter_cancel_at(b, reservation.permit, SECOND, NULL) == AGR_OK);
  agr_keyed_limiter_config changed = config;
  changed.capacity = 20;
  CHECK(agr_keyed_limiter_reconfigure(b, &changed, &error) == AGR_OK);
  int64_t left;
  CHECK(agr_keyed_limiter_available_at(a, "n", 1, SECOND, &left, NULL) == AGR_OK && left == 20);
  agr_keyed_limiter *c;
  CHECK_REFUSED(agr_keyed_limiter_create_in_region(one, "keys", &config, &c, &error),
                AGR_ERR_MISMATCH, "capacity");
  agr_keyed_limiter_destroy(a);
  agr_keyed_limiter_destroy(b);
}

static void breakers(void) {
  agr_breaker *a, *b;
  agr_breaker_config config = breaker_config();
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 2;
  config.half_open_permits = 1;
  config.open_jitter = 0;
  CHECK(agr_breaker_create_in_region(one, "upstream", &config, &a, &error) == AGR_OK);
  CHECK(agr_breaker_create_in_region(other, "upstream", &config, &b, &error) == AGR_OK);
  const int64_t now = agr_now_ns();
  uint64_t permits[3];
  for (int i = 0; i < 2; ++i) {
    CHECK(agr_breaker_acquire_at(i ? a : b, now, &permits[i], NULL, NULL) == AGR_OK);
    CHECK(agr_breaker_report_at(i ? b : a, permits[i], AGR_OUTCOME_FAILURE, 1, now, NULL) == AGR_OK);
  }
  int64_t wait = 0;
  CHECK(agr_breaker_acquire_at(a, now, &permits[0], &wait, NULL) == AGR_OPEN && wait == 5 * SECOND);
  CHECK(agr_breaker_acquire_at(b, now, &permits[0], &wait, NULL) == AGR_OPEN && wait == 5 * SECOND);
  const int64_t later = now + 5 * SECOND;
  CHECK(agr_breaker_acquire_at(a, later, &permits[0], NULL, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(b, later, &permits[1], NULL, NULL) == AGR_OPEN);
  CHECK(agr_breaker_report_at(b, permits[0], AGR_OUTCOME_SUCCESS, 1, later, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(b, later, &permits[1], NULL, NULL) == AGR_OK);
  agr_breaker_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_breaker_snapshot_read_at(b, later, &seen, NULL) == AGR_OK && seen.trips == 1 &&
        seen.refused == 3 && seen.state == AGR_BREAKER_CLOSED);
  agr_breaker_event event = {.struct_size = sizeof event};
  uint64_t cursor = 0;
  int events = 0;
  while (agr_breaker_next_event(b, &cursor, &event, NULL, NULL) == AGR_OK) ++events;
  CHECK_EQUAL(events, 3, "events");
  agr_breaker_destroy(a);
  agr_breaker_destroy(b);
}

static void budgets(void) {
  agr_retry_budget *a, *b;
  agr_retry_budget_config config = budget_config();
  config.min_per_second = 0;
  config.quota = config.initial = 3;
  CHECK(agr_retry_budget_create_in_region_at(one, "budget", &config, 0, &a, &error) == AGR_OK);
  CHECK(agr_retry_budget_create_in_region_at(other, "budget", &config, 0, &b, &error) == AGR_OK);
  CHECK(agr_retry_budget_withdraw_at(a, 2, 1, NULL, NULL) == AGR_OK);
  CHECK(agr_retry_budget_withdraw_at(b, 2, 1, NULL, NULL) == AGR_EXHAUSTED);
  CHECK(agr_retry_budget_deposit_at(a, 5, 1, NULL) == AGR_OK);
  CHECK(agr_retry_budget_withdraw_at(b, 2, 1, NULL, NULL) == AGR_OK);
  agr_retry_budget_destroy(a);
  agr_retry_budget_destroy(b);
}

/* Every field of every configuration, each of which is named. */
static void mismatches(void) {
  agr_limiter *limiter;
  agr_keyed_limiter *keyed;
  agr_breaker *breaker;
  agr_retry_budget *budget;
#define OBJECT(type, made, config, create)                                            \
  const type made = config;                                                           \
  CHECK(create == AGR_OK)
#define DIFFERS(type, made, member, value, create)                                    \
  do {                                                                                \
    type changed = made;                                                              \
    changed.member = value;                                                           \
    const type *config = &changed;                                                    \
    CHECK_REFUSED(create, AGR_ERR_MISMATCH, #member);                                 \
  } while (0)

#define LIMITER(config) agr_limiter_create_in_region_at(one, "fields.l", config, 9, &limiter, &error)
  OBJECT(agr_limiter_config, l, limiter_config(50, 5), LIMITER(&l));
  DIFFERS(agr_limiter_config, l, max_reservations, 63, LIMITER(config));
  DIFFERS(agr_limiter_config, l, capacity, 51, LIMITER(config));
  DIFFERS(agr_limiter_config, l, refill_tokens, 6, LIMITER(config));
  DIFFERS(agr_limiter_config, l, refill_interval_ns, 2 * SECOND, LIMITER(config));
  DIFFERS(agr_limiter_config, l, initial_tokens, 1, LIMITER(config));
  DIFFERS(agr_limiter_config, l, max_debt_tokens, 1, LIMITER(config));
  DIFFERS(agr_limiter_config, l, reservation_timeout_ns, 1, LIMITER(config));
  DIFFERS(agr_limiter_config, l, observe, 1, LIMITER(config));

#define KEYED(config) agr_keyed_limiter_create_in_region(one, "fields.k", config, &keyed, &error)
  OBJECT(agr_keyed_limiter_config, k, keyed_config(50, 5), KEYED(&k));
  DIFFERS(agr_keyed_limiter_config, k, max_keys, 1000, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, capacity, 51, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, refill_tokens, 7, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, refill_interval_ns, 2 * SECOND, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, max_debt_tokens, 1, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, reservation_timeout_ns, 1, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, max_reservations, 63, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, when_full, 1, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, max_key_bytes, 9, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, observe, 1, KEYED(config));
  DIFFERS(agr_keyed_limiter_config, k, seed, 1, KEYED(config));

#define BREAKER(config) agr_breaker_create_in_region(one, "fields.b", config, &breaker, &error)
  OBJECT(agr_breaker_config, b, breaker_config(), BREAKER(&b));
  DIFFERS(agr_breaker_config, b, consecutive_failures, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, window, AGR_WINDOW_TIME, BREAKER(config));
  DIFFERS(agr_breaker_config, b, window_calls, 99, BREAKER(config));
  DIFFERS(agr_breaker_config, b, minimum_calls, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, window_ns, SECOND, BREAKER(config));
  DIFFERS(agr_breaker_config, b, failure_rate, 0.25, BREAKER(config));
  DIFFERS(agr_breaker_config, b, slow_rate, 0.25, BREAKER(config));
  DIFFERS(agr_breaker_config, b, slow_call_ns, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, open_ns, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, open_max_ns, 299 * SECOND, BREAKER(config));
  DIFFERS(agr_breaker_config, b, open_growth, 3, BREAKER(config));
  DIFFERS(agr_breaker_config, b, open_jitter, 0.5, BREAKER(config));
  DIFFERS(agr_breaker_config, b, half_open_permits, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, half_open_successes, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, permit_timeout_ns, 9, BREAKER(config));
  DIFFERS(agr_breaker_config, b, max_permits, 63, BREAKER(config));
  DIFFERS(agr_breaker_config, b, backpressure_fails, 1, BREAKER(config));
  DIFFERS(agr_breaker_config, b, mode, AGR_BREAKER_OBSERVE, BREAKER(config));
  DIFFERS(agr_breaker_config, b, seed, 9, BREAKER(config));

#define BUDGET(config) agr_retry_budget_create_in_region_at(one, "fields.r", config, 9, &budget, &error)
  OBJECT(agr_retry_budget_config, r, budget_config(), BUDGET(&r));
  DIFFERS(agr_retry_budget_config, r, min_per_second, 9, BUDGET(config));
  DIFFERS(agr_retry_budget_config, r, ratio, 0.5, BUDGET(config));
  DIFFERS(agr_retry_budget_config, r, quota, 101, BUDGET(config));
  DIFFERS(agr_retry_budget_config, r, initial, 9, BUDGET(config));

  agr_limiter *wrong;
  CHECK_REFUSED(agr_limiter_create_in_region_at(one, "fields.k", &l, 9, &wrong, &error),
                AGR_ERR_MISMATCH, "name");
  agr_limiter_destroy(limiter);
  agr_keyed_limiter_destroy(keyed);
  agr_breaker_destroy(breaker);
  agr_retry_budget_destroy(budget);
}

static void directory(void) {
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = 3;
  agr_region *region;
  CHECK(agr_region_open(NULL, 32768, &config, &region, &error) == AGR_OK);
  const agr_limiter_config limits = limiter_config(10, 1);
  agr_limiter *a, *b, *c;
  CHECK(agr_limiter_create_in_region_at(region, "a", &limits, 0, &a, &error) == AGR_OK);
  agr_region_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_region_snapshot_read(region, &snapshot, NULL) == AGR_OK);
  CHECK(snapshot.bytes == 32768 && snapshot.objects == 1 && snapshot.used_objects == 1 &&
        snapshot.max_objects == 3 && snapshot.used_bytes + snapshot.free_bytes == 32768);
  agr_keyed_limiter *none;
  const agr_keyed_limiter_config many = keyed_config(1, 1);
  agr_keyed_limiter_config more = many;
  more.max_keys = 100000;
  CHECK_REFUSED(agr_keyed_limiter_create_in_region(region, "k", &more, &none, &error),
                AGR_ERR_CAPACITY, "bytes");

  /* Whoever has a removed one keeps it. */
  CHECK(agr_limiter_try_acquire_at(a, 10, 0, NULL, NULL) == AGR_OK);
  CHECK(agr_region_remove(region, "a", &error) == AGR_OK);
  CHECK(agr_region_remove(region, "a", &error) == AGR_NOT_FOUND);
  CHECK(agr_limiter_create_in_region_at(region, "a", &limits, 0, &b, &error) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(a, 1, 0, NULL, NULL) == AGR_LIMITED);
  CHECK(agr_limiter_try_acquire_at(b, 10, 0, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_create_in_region_at(region, "c", &limits, 0, &c, &error) == AGR_OK);
  agr_limiter *d;
  CHECK_REFUSED(agr_limiter_create_in_region_at(region, "d", &limits, 0, &d, &error),
                AGR_ERR_CAPACITY, "max_objects");

  uint64_t cursor = 0;
  agr_region_object object = {.struct_size = sizeof object};
  CHECK(agr_region_next_object(region, &cursor, &object, NULL) == AGR_OK);
  CHECK(!strcmp(object.name, "a") && object.kind == AGR_OBJECT_LIMITER && object.state_bytes > 4096);
  CHECK(agr_region_next_object(region, &cursor, &object, NULL) == AGR_OK);
  CHECK(!strcmp(object.name, "c"));
  CHECK(agr_region_next_object(region, &cursor, &object, NULL) == AGR_EMPTY);

  /* Objects outlive the handle of their region. */
  agr_region_close(region);
  CHECK(agr_limiter_try_acquire_at(c, 10, 0, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_create_in_region_at(region, "c", &limits, 0, &d, &error) == AGR_ERR_ARGUMENT);
  agr_limiter_destroy(a);
  agr_limiter_destroy(b);
  agr_limiter_destroy(c);
}

static void policies(void) {
  agr_limiter *limiter;
  agr_breaker *breaker;
  agr_retry_budget *budget;
  const agr_limiter_config limits = limiter_config(2, 0);
  const agr_breaker_config breaking = breaker_config();
  const agr_retry_budget_config saving = budget_config();
  CHECK(agr_limiter_create_in_region(one, "p.l", &limits, &limiter, &error) == AGR_OK);
  CHECK(agr_breaker_create_in_region(one, "p.b", &breaking, &breaker, &error) == AGR_OK);
  CHECK(agr_retry_budget_create_in_region(one, "p.r", &saving, &budget, &error) == AGR_OK);
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.limiters[0] = limiter;
  config.limiter_count = 1;
  config.breaker = breaker;
  config.budget = budget;
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  config.retry = &retry;
  agr_policy *policy;
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  agr_limiter_destroy(limiter);
  agr_breaker_destroy(breaker);
  agr_retry_budget_destroy(budget);
  for (int i = 0; i < 3; ++i) {
    agr_step step = {.struct_size = sizeof step};
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    agr_call *call;
    CHECK(agr_call_begin(policy, NULL, &call, &step, &error) == AGR_OK);
    CHECK_EQUAL(step.kind, i < 2 ? AGR_STEP_ATTEMPT : AGR_STEP_DONE, "step");
    if (i < 2) CHECK(agr_call_advance(call, &outcome, &step, &error) == AGR_OK);
    agr_call_destroy(call);
  }
  agr_policy_destroy(policy);
}

/* A forked child goes on with what its parent has, on the same state. */
static void children(void) {
  agr_region *region = open_region(NULL, 0);
  const agr_limiter_config limits = limiter_config(10, 0);
  agr_limiter *limiter;
  CHECK(agr_limiter_create_in_region_at(region, "l", &limits, 0, &limiter, &error) == AGR_OK);
  for (int i = 0; i < 4; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      agr_limiter *found;
      int bad = agr_limiter_try_acquire_at(limiter, 2, 0, NULL, NULL) != AGR_OK;
      for (int j = 0; j < 100; ++j) bad += agr_limiter_try_acquire_at(limiter, 9, 0, NULL, NULL) != AGR_LIMITED;
      bad += agr_limiter_create_in_region_at(region, "l", &limits, 0, &found, NULL) != AGR_OK;
      for (int j = 0; j < 100; ++j) bad += agr_limiter_try_acquire_at(found, 9, 0, NULL, NULL) != AGR_LIMITED;
      agr_limiter_destroy(found);
      _exit(bad);
    }
    reap(pid);
  }
  int64_t left;
  CHECK(agr_limiter_available_at(limiter, 0, &left, NULL) == AGR_OK && left == 2);
  agr_limiter_snapshot counted = {.struct_size = sizeof counted};
  CHECK(agr_limiter_snapshot_read_at(limiter, 0, &counted, NULL) == AGR_OK);
  CHECK_EQUAL(counted.refused, 800, "refused");

  /* By its descriptor, as one that is handed over. */
  int32_t fd;
  agr_region *second;
  CHECK(agr_region_fd(region, &fd, &error) == AGR_OK);
  CHECK(ftruncate(fd, 4096) != 0 && errno == EPERM);
  CHECK(agr_region_open_fd(fd, NULL, &second, &error) == AGR_OK);
  agr_limiter *again;
  CHECK(agr_limiter_create_in_region_at(second, "l", &limits, 0, &again, &error) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(again, 2, 0, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(limiter, 1, 0, NULL, NULL) == AGR_LIMITED);
  agr_limiter_destroy(again);
  agr_region_close(second);
  agr_limiter_destroy(limiter);
  agr_region_close(region);
}

int main(void) {
  const char *name = region_name("objects");
  one = open_region(name, 1 << 20);
  other = open_region(name, 0);
  limiters();
  keyed();
  breakers();
  budgets();
  mismatches();
  directory();
  policies();
  children();
  agr_region_close(one);
  agr_region_close(other);
  CHECK(agr_region_unlink(name, &error) == AGR_OK);
  CHECK(agr_region_unlink(name, &error) == AGR_NOT_FOUND);
  return finish();
}
