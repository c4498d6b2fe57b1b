/* SPDX-License-Identifier: Apache-2.0
 * Sixteen processes on the objects of one region admit what one process would, in virtual time. */
#define _GNU_SOURCE
#include "region.h"

enum { PROCESSES = 16, STEPS = 20000 };

/* Beside the region: the time, and what was admitted. */
static struct shared {
  int64_t now;
  int64_t limiter, refused, keyed, budget, permits, probes, most_probes, settled;
  int64_t arrived;
} *shared;

static agr_region *region;

#define ADD(counter, amount) __atomic_add_fetch(&shared->counter, amount, __ATOMIC_SEQ_CST)
#define GET(counter) __atomic_load_n(&shared->counter, __ATOMIC_SEQ_CST)

/* All are there before one goes on. */
static void meet(void) {
  ADD(arrived, 1);
  while (GET(arrived) % PROCESSES) {
  }
}

static void run(void (*work)(void)) {
  pid_t pids[PROCESSES];
  for (int i = 0; i < PROCESSES; ++i) {
    pids[i] = fork();
    if (pids[i] == 0) {
      failures = 0;
      work();
      _exit(failures != 0);
    }
  }
  for (int i = 0; i < PROCESSES; ++i) reap(pids[i]);
}

/* A token each microsecond, and ten times as many calls. */
static agr_limiter_config limits(void) {
  agr_limiter_config config = limiter_config(1000, 1000000);
  config.max_reservations = 256;
  config.initial_tokens = 0; /* so that it is never full, and nothing spills over */
  return config;
}

static void use_limiter(void) {
  const agr_limiter_config config = limits();
  agr_limiter *limiter;
  CHECK(agr_limiter_create_in_region_at(region, "tokens", &config, 0, &limiter, &error) == AGR_OK);
  for (int i = 0; i < STEPS; ++i) {
    const int64_t now = ADD(now, 100);
    int64_t wait;
    const agr_status status = agr_limiter_try_acquire_at(limiter, 1 + i % 3, now, &wait, NULL);
    if (status == AGR_OK) ADD(limiter, 1 + i % 3);
    if (status == AGR_LIMITED) ADD(refused, 1);
    CHECK(status == AGR_OK || status == AGR_LIMITED);
  }
}

static void limiters(void) {
  const agr_limiter_config config = limits();
  agr_limiter *limiter;
  int64_t left;
  CHECK(agr_limiter_create_in_region_at(region, "tokens", &config, 0, &limiter, &error) == AGR_OK);
  shared->now = 0;
  run(use_limiter);
  const int64_t end = GET(now);
  CHECK(end == INT64_C(100) * STEPS * PROCESSES);
  CHECK(agr_limiter_available_at(limiter, end, &left, NULL) == AGR_OK);
  CHECK_EQUAL(GET(limiter) + left, end / 1000, "tokens that there ever were");
  CHECK(left < 3);
  agr_limiter_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_limiter_snapshot_read_at(limiter, end, &seen, NULL) == AGR_OK);
  CHECK(seen.refused > 0);
  CHECK_EQUAL(seen.refused, GET(refused), "refused, by all");
  agr_limiter_destroy(limiter);
}

/* Reservations, each settled by its half: nothing comes back twice, whoever reserves meanwhile. */
static void use_reservations(void) {
  agr_limiter_config config = limiter_config(INT64_C(1) << 40, 0);
  config.max_reservations = 256;
  agr_limiter *limiter;
  CHECK(agr_limiter_create_in_region_at(region, "held", &config, 0, &limiter, &error) == AGR_OK);
  for (int i = 0; i < STEPS / 4; ++i) {
    agr_reservation reservation;
    if (agr_limiter_reserve_at(limiter, 8, 0, 1, &reservation, NULL, NULL) != AGR_OK) continue;
    CHECK(agr_limiter_settle_at(limiter, reservation.permit, 4, 1, NULL) == AGR_OK);
    CHECK(agr_limiter_settle_at(limiter, reservation.permit, 4, 1, NULL) == AGR_STALE);
    ADD(settled, 4);
  }
}

static void reservations(void) {
  agr_limiter_config config = limiter_config(INT64_C(1) << 40, 0);
  config.max_reservations = 256;
  agr_limiter *limiter;
  int64_t left;
  CHECK(agr_limiter_create_in_region_at(region, "held", &config, 0, &limiter, &error) == AGR_OK);
  run(use_reservations);
  CHECK(agr_limiter_available_at(limiter, 1, &left, NULL) == AGR_OK);
  CHECK_EQUAL(left + GET(settled), INT64_C(1) << 40, "tokens");
  agr_limiter_destroy(limiter);
}

static agr_keyed_limiter_config keyed_limits(void) {
  agr_keyed_limiter_config config = keyed_config(500, 1);
  config.refill_interval_ns = INT64_C(1000) * SECOND;
  return config;
}

static void use_keys(void) {
  const agr_keyed_limiter_config config = keyed_limits();
  agr_keyed_limiter *limiter;
  CHECK(agr_keyed_limiter_create_in_region(region, "keys", &config, &limiter, &error) == AGR_OK);
  meet();
  for (int i = 0; i < STEPS; ++i) {
    char key = (char)('a' + i % 20);
    if (agr_keyed_limiter_try_acquire_at(limiter, &key, 1, 1, SECOND, NULL, NULL) == AGR_OK)
      ADD(keyed, 1);
  }
}

static void keys(void) {
  shared->arrived = 0;
  run(use_keys);
  CHECK_EQUAL(GET(keyed), 20 * 500, "by key");
}

static agr_retry_budget_config savings(void) {
  agr_retry_budget_config config = budget_config();
  config.min_per_second = 0;
  config.ratio = 0.5;
  config.quota = 1000000;
  config.initial = 1000;
  return config;
}

static void use_budget(void) {
  const agr_retry_budget_config config = savings();
  agr_retry_budget *budget;
  CHECK(agr_retry_budget_create_in_region_at(region, "retries", &config, 0, &budget, &error) ==
        AGR_OK);
  for (int i = 0; i < STEPS; ++i) {
    if (i % 10 == 0) CHECK(agr_retry_budget_deposit_at(budget, 1, 1, NULL) == AGR_OK);
    if (agr_retry_budget_withdraw_at(budget, 1, 1, NULL, NULL) == AGR_OK) ADD(budget, 1);
  }
}

static void budgets(void) {
  run(use_budget);
  CHECK_EQUAL(GET(budget), 1000 + PROCESSES * STEPS / 10 / 2, "retries");
}

static agr_breaker_config breaking(void) {
  agr_breaker_config config = breaker_config();
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 1;
  config.half_open_permits = 3;
  config.half_open_successes = 1000;
  config.open_jitter = 0;
  return config;
}

/* Half open: never more probes at a time than permitted, over all processes. */
static void use_breaker(void) {
  const agr_breaker_config config = breaking();
  agr_breaker *breaker;
  CHECK(agr_breaker_create_in_region(region, "upstream", &config, &breaker, &error) == AGR_OK);
  const int64_t now = GET(now);
  meet();
  for (int i = 0; i < STEPS; ++i) {
    uint64_t permit;
    if (agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) != AGR_OK) continue;
    const int64_t probes = ADD(probes, 1);
    CHECK(probes <= 3);
    ADD(permits, 1);
    ADD(probes, -1);
    CHECK(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_NEUTRAL, 1, now, NULL) == AGR_OK);
    CHECK(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_NEUTRAL, 1, now, NULL) == AGR_STALE);
  }
}

static void breakers(void) {
  const agr_breaker_config config = breaking();
  agr_breaker *breaker;
  uint64_t permit;
  const int64_t now = agr_now_ns();
  CHECK(agr_breaker_create_in_region(region, "upstream", &config, &breaker, &error) == AGR_OK);
  CHECK(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
  CHECK(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_FAILURE, 1, now, NULL) == AGR_OK);
  shared->now = now + 6 * SECOND;
  shared->arrived = 0;
  run(use_breaker);
  CHECK(GET(permits) > 100);
  agr_breaker_destroy(breaker);
}

int main(void) {
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  region = open_region(NULL, 1 << 20);
  limiters();
  reservations();
  keys();
  budgets();
  breakers();
  agr_region_close(region);
  return finish();
}
