/* SPDX-License-Identifier: Apache-2.0
 * A limiter of many keys in a store, on a Redis server which is killed. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "redis_store.h"

static const int64_t second = 1000000000, hour = 3600 * INT64_C(1000000000);
static redis_server server;
static agr_error error;

static agr_keyed_limiter_config config_of(int64_t capacity, int64_t interval_ns) {
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = 1;
  config.refill_interval_ns = interval_ns;
  config.max_keys = 8;
  config.max_key_bytes = 64;
  config.max_reservations = 4;
  return config;
}

static agr_keyed_limiter *limiter_in(agr_store *store, const char *name,
                                     const agr_keyed_limiter_config *config, int32_t on_error) {
  agr_store_options options;
  agr_keyed_limiter *limiter = NULL;
  agr_store_options_init(&options, sizeof options);
  options.on_error = on_error;
  options.local_share = 0.5;
  if (agr_keyed_limiter_create_in_store(store, name, config, &options, &limiter, &error) != AGR_OK)
    give_up(error.message);
  return limiter;
}

static int taken_from(agr_keyed_limiter *limiter, const char *key, int tries) {
  int taken = 0;
  for (int i = 0; i < tries; ++i)
    taken += agr_keyed_limiter_try_acquire(limiter, key, strlen(key), 1, NULL, NULL) == AGR_OK;
  return taken;
}

static void each_key_has_its_bucket(agr_store *store, agr_store *other) {
  const agr_keyed_limiter_config config = config_of(10, hour);
  agr_keyed_limiter *one = limiter_in(store, "shared", &config, AGR_STORE_REFUSE);
  agr_keyed_limiter *two = limiter_in(other, "shared", &config, AGR_STORE_REFUSE);
  int64_t left = 0, retry = 0;
  CHECK_EQUAL(taken_from(one, "a", 6) + taken_from(two, "a", 6), 10, "a");
  CHECK(agr_keyed_limiter_try_acquire(two, "a", 1, 1, &retry, &error) == AGR_LIMITED);
  CHECK(retry > 0 && retry <= hour);
  /* More keys than a process keeps. */
  for (int i = 0; i < 100; ++i) {
    char key[8];
    snprintf(key, sizeof key, "k%d", i);
    CHECK_EQUAL(taken_from(i % 2 ? one : two, key, 11), 10, key);
  }
  CHECK(agr_keyed_limiter_available(one, "b", 1, &left, &error) == AGR_OK && left == 10);
  CHECK(agr_keyed_limiter_available(one, "a", 1, &left, &error) == AGR_OK && left == 0);
  CHECK(agr_keyed_limiter_try_acquire(one, "b", 1, 11, &retry, &error) == AGR_ERR_NEVER_FITS);
  agr_keyed_limiter_destroy(one);
  agr_keyed_limiter_destroy(two);
}

static void reservations_know_their_key(agr_store *store) {
  const agr_keyed_limiter_config config = config_of(100, second);
  agr_keyed_limiter *limiter = limiter_in(store, "reserved", &config, AGR_STORE_REFUSE);
  agr_reservation a, b, more;
  agr_keyed_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  int64_t left = 0;
  char key[8] = "a";
  CHECK(agr_keyed_limiter_reserve(limiter, key, 1, 60, 0, &a, NULL, &error) == AGR_OK);
  key[0] = 'b';
  CHECK(agr_keyed_limiter_reserve(limiter, key, 1, 50, 0, &b, NULL, &error) == AGR_OK);
  key[0] = 'c';
  CHECK(agr_keyed_limiter_settle(limiter, a.permit, 10, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_settle(limiter, a.permit, 10, &error) == AGR_STALE);
  CHECK(agr_keyed_limiter_available(limiter, "a", 1, &left, &error) == AGR_OK && left >= 90 && left <= 91);
  CHECK(agr_keyed_limiter_settle(limiter, b.permit, 80, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_available(limiter, "b", 1, &left, &error) == AGR_OK && left >= 20 && left <= 21);
  CHECK(agr_keyed_limiter_reserve(limiter, "b", 1, 60, 100 * second, &b, NULL, &error) == AGR_OK);
  CHECK(b.wait_ns > 30 * second && b.wait_ns <= 41 * second);
  CHECK(agr_keyed_limiter_cancel(limiter, b.permit, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_available(limiter, "b", 1, &left, &error) == AGR_OK && left >= 20 && left <= 22);
  /* Four may be open. */
  for (int i = 0; i < 4; ++i)
    CHECK(agr_keyed_limiter_reserve(limiter, "d", 1, 10, 0, &more, NULL, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_reserve(limiter, "d", 1, 10, 0, &more, NULL, &error) == AGR_ERR_CAPACITY);
  CHECK(!strcmp(error.field, "max_reservations"));
  CHECK(agr_keyed_limiter_available(limiter, "d", 1, &left, &error) == AGR_OK && left >= 60 && left <= 61);
  CHECK(agr_keyed_limiter_snapshot_read(limiter, &snapshot, &error) == AGR_OK);
  CHECK_EQUAL(snapshot.open_reservations, 4, "open");
  agr_keyed_limiter_destroy(limiter);
}

static void expired_reservations_make_room(agr_store *store) {
  agr_keyed_limiter_config config = config_of(1000, second);
  config.max_reservations = 1;
  config.reservation_timeout_ns = 1000;
  agr_keyed_limiter *limiter = limiter_in(store, "expires", &config, AGR_STORE_REFUSE);
  agr_reservation old, next;
  CHECK(agr_keyed_limiter_reserve_at(limiter, "a", 1, 1, 0, 1000, &old, NULL, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_reserve_at(limiter, "b", 1, 1, 0, 5000, &next, NULL, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_settle_at(limiter, old.permit, 0, 5000, &error) == AGR_STALE);
  CHECK(agr_keyed_limiter_settle_at(limiter, next.permit, 0, 5500, &error) == AGR_OK);
  agr_keyed_limiter_destroy(limiter);
}

/* Who returns from a wait has what he waited for: the next token is one interval away at the most. */
static void a_caller_may_wait(agr_store *store) {
  const agr_keyed_limiter_config config = config_of(1, second / 20);
  agr_keyed_limiter *limiter = limiter_in(store, "waits", &config, AGR_STORE_REFUSE);
  int64_t wait = 0;
  for (int i = 0; i < 4; ++i)
    CHECK(agr_keyed_limiter_acquire(limiter, "a", 1, 1, 60 * second, &wait, &error) == AGR_OK);
  if (agr_keyed_limiter_try_acquire(limiter, "a", 1, 1, &wait, &error) != AGR_OK)
    CHECK(wait > 0 && wait <= second / 20);
  agr_keyed_limiter_destroy(limiter);
}

static void who_only_observes_admits_all(agr_store *store) {
  agr_keyed_limiter_config config = config_of(2, hour);
  config.observe = 1;
  agr_keyed_limiter *limiter = limiter_in(store, "observed", &config, AGR_STORE_REFUSE);
  agr_keyed_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK_EQUAL(taken_from(limiter, "a", 5), 5, "all are admitted");
  CHECK(agr_keyed_limiter_snapshot_read(limiter, &snapshot, &error) == AGR_OK);
  CHECK(snapshot.would_refuse == 3 && snapshot.refused == 0);
  agr_keyed_limiter_destroy(limiter);
}

static void wrong_arguments_are_named(agr_store *store) {
  agr_keyed_limiter *limiter = NULL;
  agr_keyed_limiter_config config = config_of(10, second);
  agr_reservation reservation;
  CHECK(agr_keyed_limiter_create_in_store(store, "", &config, NULL, &limiter, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "name") && !limiter);
  limiter = limiter_in(store, "x", &config, AGR_STORE_REFUSE);
  CHECK(agr_keyed_limiter_try_acquire(limiter, NULL, 1, 1, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "key"));
  CHECK(agr_keyed_limiter_try_acquire(limiter, "x", 65, 1, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "key_length"));
  CHECK(agr_keyed_limiter_try_acquire(limiter, "x", 1, -1, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "tokens"));
  CHECK(agr_keyed_limiter_reserve(limiter, "x", 1, 1, 0, &reservation, NULL, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_settle(limiter, reservation.permit, -2, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "actual_tokens"));
  CHECK(agr_keyed_limiter_settle(limiter, reservation.permit, 1, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_reserve_at(limiter, "x", 1, 1, 0, -1, &reservation, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "now_ns"));
  CHECK(agr_keyed_limiter_reconfigure(limiter, &config, &error) == AGR_ERR_STATE);
  agr_keyed_limiter_destroy(limiter);
}

static void without_the_store(void) {
  agr_store *hasty = open_store(&server, second / 20);
  const agr_keyed_limiter_config config = config_of(10, hour);
  agr_keyed_limiter *refuses = limiter_in(hasty, "refuses", &config, AGR_STORE_REFUSE);
  agr_keyed_limiter *admits = limiter_in(hasty, "admits", &config, AGR_STORE_ADMIT);
  agr_keyed_limiter *local = limiter_in(hasty, "local", &config, AGR_STORE_LOCAL);
  agr_reservation reservation;
  stop_server(&server);
  CHECK(agr_keyed_limiter_try_acquire(refuses, "a", 1, 1, NULL, &error) == AGR_ERR_STORE && error.message[0]);
  CHECK_EQUAL(taken_from(admits, "a", 30), 30, "admits");
  CHECK_EQUAL(taken_from(local, "a", 30), 5, "half of the bucket");
  CHECK_EQUAL(taken_from(local, "b", 30), 5, "for each key");
  CHECK(agr_keyed_limiter_reserve(admits, "r", 1, 10, 0, &reservation, NULL, &error) == AGR_OK);
  start_server(&server);
  int tries = 0;
  while (taken_from(refuses, "a", 1) == 0 && ++tries < 10000)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  CHECK(tries < 10000);
  /* What never was taken from the store is not given back to it. */
  int64_t left = 0;
  CHECK_EQUAL(taken_from(admits, "r", 6), 6, "r");
  CHECK(agr_keyed_limiter_cancel(admits, reservation.permit, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_available(admits, "r", 1, &left, &error) == AGR_OK);
  CHECK_EQUAL(left, 4, "left");
  agr_keyed_limiter_destroy(refuses);
  agr_keyed_limiter_destroy(admits);
  agr_keyed_limiter_destroy(local);
  agr_store_destroy(hasty);
}

int main(void) {
  start_server(&server);
  agr_store *store = open_store(&server, 10 * second), *other = open_store(&server, 10 * second);
  each_key_has_its_bucket(store, other);
  reservations_know_their_key(store);
  expired_reservations_make_room(store);
  a_caller_may_wait(store);
  who_only_observes_admits_all(store);
  wrong_arguments_are_named(store);
  without_the_store();
  agr_store_destroy(store);
  agr_store_destroy(other);
  end_server(&server);
  return finish();
}
