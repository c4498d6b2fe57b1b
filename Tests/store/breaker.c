/* SPDX-License-Identifier: Apache-2.0
 * Breakers that share their state through a Redis server, which is killed. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "redis_store.h"

static const int64_t millisecond = 1000000, second = 1000000000;
static redis_server server;
static agr_error error;

static agr_breaker *breaker_in(agr_store *store, const char *name, int64_t open_ns) {
  agr_breaker_config config;
  agr_store_options options;
  agr_breaker *breaker = NULL;
  agr_breaker_config_init(&config, sizeof config);
  agr_store_options_init(&options, sizeof options);
  config.consecutive_failures = 3;
  config.open_ns = open_ns;
  config.open_jitter = 0;
  config.half_open_permits = 2;
  config.half_open_successes = 2;
  options.sync_ns = millisecond;
  if (agr_breaker_create_in_store(store, name, &config, &options, &breaker, &error) != AGR_OK)
    give_up(error.message);
  return breaker;
}

static void fail(agr_breaker *breaker, int times) {
  for (int i = 0; i < times; ++i) {
    uint64_t permit;
    CHECK(agr_breaker_acquire(breaker, &permit, NULL, &error) == AGR_OK);
    CHECK(agr_breaker_report(breaker, permit, AGR_OUTCOME_FAILURE, 0, &error) == AGR_OK);
  }
}

/* Calls until the answer comes, which the other's news or the time bring about. */
static int comes(agr_breaker *breaker, agr_status wanted, uint64_t *permit) {
  for (int i = 0; i < 10000; ++i) {
    const agr_status status = agr_breaker_acquire(breaker, permit, NULL, &error);
    if (status == wanted) return 1;
    if (status == AGR_OK) agr_breaker_report(breaker, *permit, AGR_OUTCOME_NEUTRAL, 0, &error);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return 0;
}

static int32_t state_of(agr_breaker *breaker) {
  int32_t state = 0;
  CHECK(agr_breaker_state(breaker, &state, &error) == AGR_OK);
  return state;
}

static void one_opens_for_all(agr_store *store, agr_store *other) {
  agr_breaker *one = breaker_in(store, "opens", 60 * second), *two = breaker_in(other, "opens", 60 * second);
  uint64_t permit;
  int64_t retry = 0;
  fail(one, 3);
  CHECK(agr_breaker_acquire(one, &permit, &retry, &error) == AGR_OPEN && permit == 0);
  CHECK(retry > 50 * second && retry <= 60 * second);
  CHECK(comes(two, AGR_OPEN, &permit));
  CHECK(agr_breaker_acquire(two, &permit, &retry, &error) == AGR_OPEN);
  CHECK(retry > 50 * second && retry <= 60 * second);
  /* One that comes later learns it before its first call. */
  agr_breaker *three = breaker_in(other, "opens", 60 * second);
  CHECK(agr_breaker_acquire(three, &permit, NULL, &error) == AGR_OPEN);
  agr_breaker_destroy(one);
  agr_breaker_destroy(two);
  agr_breaker_destroy(three);
}

static void one_has_the_probes(agr_store *store, agr_store *other) {
  agr_breaker *one = breaker_in(store, "probes", 2 * second), *two = breaker_in(other, "probes", 2 * second);
  uint64_t permit, probe, again;
  fail(one, 3);
  CHECK(comes(two, AGR_OPEN, &permit));
  CHECK(comes(two, AGR_OK, &probe));
  CHECK_EQUAL(state_of(two), AGR_BREAKER_HALF_OPEN, "half-open");
  int64_t retry = 0;
  CHECK(agr_breaker_acquire(one, &permit, &retry, &error) == AGR_OPEN && retry > 0);
  CHECK(agr_breaker_acquire(two, &again, NULL, &error) == AGR_OK);
  CHECK(agr_breaker_acquire(two, &permit, NULL, &error) == AGR_OPEN);
  CHECK(agr_breaker_report(two, probe, AGR_OUTCOME_SUCCESS, 0, &error) == AGR_OK);
  CHECK(agr_breaker_report(two, again, AGR_OUTCOME_SUCCESS, 0, &error) == AGR_OK);
  CHECK_EQUAL(state_of(two), AGR_BREAKER_CLOSED, "closed");
  CHECK(comes(one, AGR_OK, &permit));
  CHECK_EQUAL(state_of(one), AGR_BREAKER_CLOSED, "closed for all");
  CHECK(agr_breaker_report(one, permit, AGR_OUTCOME_NEUTRAL, 0, &error) == AGR_OK);
  /* A probe that fails opens it for all again, for longer. */
  fail(two, 3);
  CHECK(comes(one, AGR_OPEN, &permit));
  CHECK(comes(one, AGR_OK, &probe));
  CHECK(agr_breaker_report(one, probe, AGR_OUTCOME_FAILURE, 0, &error) == AGR_OK);
  CHECK(agr_breaker_acquire(one, &permit, &retry, &error) == AGR_OPEN && retry > 2 * second);
  CHECK(comes(two, AGR_OPEN, &permit));
  agr_breaker_destroy(one);
  agr_breaker_destroy(two);
}

static void alone_without_the_store(agr_store *store) {
  agr_breaker *one = breaker_in(store, "alone", 60 * second);
  uint64_t permit;
  CHECK(agr_breaker_acquire(one, &permit, NULL, &error) == AGR_OK);
  stop_server(&server);
  CHECK(agr_breaker_report(one, permit, AGR_OUTCOME_SUCCESS, 0, &error) == AGR_OK);
  fail(one, 3);
  CHECK(agr_breaker_acquire(one, &permit, NULL, &error) == AGR_OPEN);
  start_server(&server);
  CHECK(agr_breaker_acquire(one, &permit, NULL, &error) == AGR_OPEN);
  agr_breaker_destroy(one);
}

static void wrong_arguments_are_named(agr_store *store) {
  agr_breaker *breaker = NULL;
  agr_breaker_config config;
  agr_store_options options;
  uint64_t permit;
  agr_breaker_config_init(&config, sizeof config);
  agr_store_options_init(&options, sizeof options);
  options.sync_ns = 0;
  CHECK(agr_breaker_create_in_store(store, "x", &config, &options, &breaker, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "sync_ns") && !breaker);
  breaker = breaker_in(store, "x", second);
  CHECK(agr_breaker_acquire_at(breaker, -1, &permit, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "now_ns"));
  CHECK(agr_breaker_acquire(breaker, NULL, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "out_permit"));
  CHECK(agr_breaker_report(breaker, 1, 99, 0, &error) == AGR_ERR_ARGUMENT);
  CHECK(agr_breaker_report(breaker, 12345, AGR_OUTCOME_SUCCESS, 0, &error) == AGR_STALE);
  agr_breaker_destroy(breaker);
}

int main(void) {
  start_server(&server);
  agr_store *store = open_store(&server, 10 * second), *other = open_store(&server, 10 * second);
  one_opens_for_all(store, other);
  one_has_the_probes(store, other);
  wrong_arguments_are_named(store);
  alone_without_the_store(store);
  agr_store_destroy(store);
  agr_store_destroy(other);
  end_server(&server);
  return finish();
}
