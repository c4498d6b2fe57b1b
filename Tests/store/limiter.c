/* SPDX-License-Identifier: Apache-2.0
 * A limiter in a store, on a Redis server which is killed, held up and started anew. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>

#include "../c/check.h"
#include "redis_store.h"

static const int64_t second = 1000000000, hour = 3600 * INT64_C(1000000000);
static redis_server server;
static agr_error error;

static agr_limiter_config bucket_of(int64_t capacity, int64_t interval_ns) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = 1;
  config.refill_interval_ns = interval_ns;
  return config;
}

static agr_limiter *limiter_in(agr_store *store, const char *name, const agr_limiter_config *config,
                               int64_t lease_tokens, int32_t on_error) {
  agr_store_options options;
  agr_limiter *limiter = NULL;
  agr_store_options_init(&options, sizeof options);
  options.lease_tokens = lease_tokens;
  options.on_error = on_error;
  options.local_share = 0.5;
  if (agr_limiter_create_in_store(store, name, config, &options, &limiter, &error) != AGR_OK)
    give_up(error.message);
  return limiter;
}

static uint64_t calls_of(agr_store *store) {
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_store_snapshot_read(store, &snapshot, &error) == AGR_OK);
  return snapshot.calls;
}

static int taken_from(agr_limiter *limiter, int tries) {
  int taken = 0;
  for (int i = 0; i < tries; ++i) taken += agr_limiter_try_acquire(limiter, 1, NULL, NULL) == AGR_OK;
  return taken;
}

static void two_share_one_bucket(agr_store *store, agr_store *other) {
  const agr_limiter_config config = bucket_of(100, hour);
  agr_limiter *one = limiter_in(store, "shared", &config, 0, AGR_STORE_REFUSE);
  agr_limiter *two = limiter_in(other, "shared", &config, 0, AGR_STORE_REFUSE);
  int64_t left = 0, retry = 0;
  int taken = 0;
  for (int i = 0; i < 80; ++i) taken += taken_from(one, 1) + taken_from(two, 1);
  CHECK_EQUAL(taken, 100, "exactly what one would admit");
  CHECK(agr_limiter_try_acquire(two, 1, &retry, &error) == AGR_LIMITED && retry > 0 && retry <= hour);
  CHECK(agr_limiter_try_acquire(two, 101, &retry, &error) == AGR_ERR_NEVER_FITS);
  CHECK(agr_limiter_available(one, &left, &error) == AGR_OK && left == 0);
  agr_limiter_destroy(one);
  agr_limiter_destroy(two);
}

static void leased_tokens_need_no_round_trip(agr_store *store, agr_store *other) {
  const agr_limiter_config config = bucket_of(1000, hour);
  agr_limiter *one = limiter_in(store, "leased", &config, 99, AGR_STORE_REFUSE);
  agr_limiter *two = limiter_in(other, "leased", &config, 99, AGR_STORE_REFUSE);
  const uint64_t before = calls_of(store);
  CHECK_EQUAL(taken_from(one, 500), 500, "one");
  CHECK_EQUAL(calls_of(store) - before, 5, "round trips");
  CHECK_EQUAL(taken_from(two, 1) , 1, "two");
  CHECK_EQUAL(taken_from(one, 1000), 400, "what two has leased is not there for one");
  /* What was leased goes back with its limiter. */
  agr_limiter_destroy(two);
  int64_t left = 0;
  CHECK(agr_limiter_available(one, &left, &error) == AGR_OK);
  CHECK_EQUAL(left, 99, "given back");
  agr_limiter_destroy(one);
}

static void reservations_come_back(agr_store *store) {
  const agr_limiter_config config = bucket_of(100, second);
  agr_limiter *limiter = limiter_in(store, "reserved", &config, 0, AGR_STORE_REFUSE);
  agr_reservation reservation;
  int64_t left = 0, retry = 0;
  CHECK(agr_limiter_reserve(limiter, 60, 0, &reservation, NULL, &error) == AGR_OK);
  CHECK(reservation.permit && reservation.tokens == 60 && reservation.wait_ns == 0);
  CHECK(agr_limiter_settle(limiter, reservation.permit, 10, &error) == AGR_OK);
  CHECK(agr_limiter_settle(limiter, reservation.permit, 10, &error) == AGR_STALE);
  CHECK(agr_limiter_available(limiter, &left, &error) == AGR_OK && left >= 90 && left <= 91);
  /* More than was reserved is owed. */
  CHECK(agr_limiter_reserve(limiter, 90, 0, &reservation, NULL, &error) == AGR_OK);
  CHECK(agr_limiter_settle(limiter, reservation.permit, 95, &error) == AGR_OK);
  CHECK(agr_limiter_reserve(limiter, 50, second, &reservation, &retry, &error) == AGR_LIMITED);
  CHECK(reservation.permit == 0 && retry > 0);
  /* To be used later. */
  CHECK(agr_limiter_reserve(limiter, 50, 100 * second, &reservation, NULL, &error) == AGR_OK);
  CHECK(reservation.wait_ns > 40 * second && reservation.wait_ns <= 56 * second);
  CHECK(agr_limiter_cancel(limiter, reservation.permit, &error) == AGR_OK);
  agr_limiter_destroy(limiter);
}

static void a_greater_cost_is_owed(agr_store *store, agr_store *other) {
  const agr_limiter_config config = bucket_of(100, hour);
  agr_limiter *one = limiter_in(store, "owed", &config, 0, AGR_STORE_REFUSE);
  agr_limiter *two = limiter_in(other, "owed", &config, 0, AGR_STORE_REFUSE);
  agr_reservation reservation;
  int64_t left = 0;
  CHECK(agr_limiter_reserve(one, 10, 0, &reservation, NULL, &error) == AGR_OK);
  CHECK(agr_limiter_settle(one, reservation.permit, 30, &error) == AGR_OK);
  CHECK(agr_limiter_settle(one, reservation.permit, 30, &error) == AGR_STALE);
  CHECK(agr_limiter_available(one, &left, &error) == AGR_OK && left == 70);
  /* It is fetched with what the process takes next. */
  CHECK(agr_limiter_try_acquire(one, 5, NULL, &error) == AGR_OK);
  CHECK(agr_limiter_available(two, &left, &error) == AGR_OK && left == 65);
  CHECK(agr_limiter_reserve(one, 5, 0, &reservation, NULL, &error) == AGR_OK);
  CHECK(agr_limiter_settle(one, reservation.permit, -2, &error) == AGR_ERR_ARGUMENT);
  CHECK(agr_limiter_settle(one, reservation.permit, -1, &error) == AGR_OK);
  CHECK(agr_limiter_available(two, &left, &error) == AGR_OK && left == 60);
  agr_limiter_destroy(one);
  agr_limiter_destroy(two);
}

static void several_are_taken_as_one(agr_store *store, agr_store *other) {
  const agr_limiter_config requests = bucket_of(3, hour), tokens = bucket_of(100, second);
  agr_limiter *both[2][2];
  for (int i = 0; i < 2; ++i) {
    both[i][0] = limiter_in(i ? other : store, "requests", &requests, 0, AGR_STORE_REFUSE);
    both[i][1] = limiter_in(i ? other : store, "tokens", &tokens, 0, AGR_STORE_REFUSE);
  }
  agr_limiter_demand mine[] = {{both[0][0], 1}, {both[0][1], 40}}, theirs[] = {{both[1][0], 1}, {both[1][1], 40}};
  uint32_t refused = 9;
  int64_t retry = 0, left = 0;
  const uint64_t before = calls_of(store);
  CHECK(agr_limiter_try_acquire_all(mine, 2, &refused, &retry, &error) == AGR_OK && refused == 2);
  CHECK_EQUAL(calls_of(store) - before, 1, "one round trip");
  CHECK(agr_limiter_try_acquire_all(theirs, 2, &refused, &retry, &error) == AGR_OK);
  /* All or none. */
  CHECK(agr_limiter_try_acquire_all(theirs, 2, &refused, &retry, &error) == AGR_LIMITED);
  CHECK(refused == 1 && retry > 15 * second && retry <= 20 * second);
  CHECK(agr_limiter_available(both[0][0], &left, &error) == AGR_OK && left == 1);
  theirs[1].tokens = 101;
  CHECK(agr_limiter_try_acquire_all(theirs, 2, &refused, &retry, &error) == AGR_ERR_NEVER_FITS && refused == 1);
  /* Ahead of time, and back again. */
  agr_reservation reservations[2];
  CHECK(agr_limiter_reserve_all(mine, 2, second, reservations, &refused, &retry, &error) == AGR_LIMITED);
  CHECK(refused == 1 && !reservations[0].permit && !reservations[1].permit);
  CHECK(agr_limiter_reserve_all(mine, 2, 60 * second, reservations, &refused, &retry, &error) == AGR_OK);
  CHECK(reservations[0].wait_ns == 0 && reservations[1].wait_ns > 10 * second &&
        reservations[1].wait_ns <= 21 * second);
  CHECK(agr_limiter_try_acquire_all(theirs, 1, &refused, &retry, &error) == AGR_LIMITED && refused == 0);
  for (int i = 0; i < 2; ++i)
    CHECK(agr_limiter_cancel(both[0][i], reservations[i].permit, &error) == AGR_OK);
  CHECK(agr_limiter_available(both[1][0], &left, &error) == AGR_OK && left == 1);
  CHECK(agr_limiter_available(both[1][1], &left, &error) == AGR_OK && left >= 20 && left < 40);
  /* One could be waited for, the other not: what was taken ahead of time of both goes back. */
  const agr_limiter_config quick_config = bucket_of(10, second), slow_config = bucket_of(10, hour);
  agr_limiter *quick = limiter_in(store, "quick", &quick_config, 0, AGR_STORE_REFUSE);
  agr_limiter *slow = limiter_in(store, "slow", &slow_config, 0, AGR_STORE_REFUSE);
  agr_limiter_demand pair[] = {{quick, 10}, {slow, 10}};
  CHECK(agr_limiter_try_acquire_all(pair, 2, &refused, &retry, &error) == AGR_OK);
  CHECK(agr_limiter_reserve_all(pair, 2, 30 * second, reservations, &refused, &retry, &error) == AGR_LIMITED);
  CHECK(refused == 1 && retry > hour && !reservations[0].permit && !reservations[0].wait_ns);
  CHECK(agr_limiter_available(quick, &left, &error) == AGR_OK && left >= 0);
  CHECK(agr_limiter_available(slow, &left, &error) == AGR_OK && left == 0);
  /* One that only observes counts its refusal, and the rest is taken. */
  agr_limiter_config observing = bucket_of(10, hour);
  observing.observe = 1;
  agr_limiter *observer = limiter_in(store, "slow", &observing, 0, AGR_STORE_REFUSE);
  agr_limiter_demand watched[] = {{observer, 10}, {both[0][1], 1}};
  agr_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_limiter_try_acquire_all(watched, 2, &refused, &retry, &error) == AGR_OK && refused == 2 && !retry);
  CHECK(agr_limiter_reserve_all(watched, 2, 0, reservations, &refused, &retry, &error) == AGR_OK);
  CHECK(reservations[0].permit && reservations[1].permit && !reservations[0].wait_ns);
  CHECK(agr_limiter_snapshot_read(observer, &snapshot, &error) == AGR_OK && snapshot.would_refuse == 2);
  agr_limiter_destroy(quick);
  agr_limiter_destroy(slow);
  agr_limiter_destroy(observer);
  for (int i = 0; i < 4; ++i) agr_limiter_destroy(both[i / 2][i % 2]);
}

static void wrong_configurations_are_named(agr_store *store) {
  agr_limiter *limiter = NULL;
  agr_store_options options;
  agr_limiter_config config = bucket_of(10, second);
  agr_store_options_init(&options, sizeof options);
  options.lease_tokens = 11;
  CHECK(agr_limiter_create_in_store(store, "x", &config, &options, &limiter, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "lease_tokens") && !limiter);
  config.refill_tokens = 0;
  CHECK(agr_limiter_create_in_store(store, "x", &config, NULL, &limiter, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "refill_tokens"));
  config = bucket_of(10, second);
  CHECK(agr_limiter_create_in_store(store, "x y", &config, NULL, &limiter, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "name"));
  limiter = limiter_in(store, "fixed", &config, 0, AGR_STORE_REFUSE);
  CHECK(agr_limiter_reconfigure(limiter, &config, &error) == AGR_ERR_STATE);
  agr_limiter *alone = NULL;
  CHECK(agr_limiter_create(&config, &alone, &error) == AGR_OK);
  const agr_limiter_demand mixed[] = {{limiter, 1}, {alone, 1}};
  CHECK(agr_limiter_try_acquire_all(mixed, 2, NULL, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "demands.limiter"));
  agr_limiter_destroy(alone);
  CHECK(agr_limiter_try_acquire(limiter, -1, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "tokens"));
  agr_limiter_destroy(limiter);
}

/* Asks until the store is back. */
static int is_back(agr_limiter *limiter) {
  for (int i = 0; i < 10000; ++i) {
    if (agr_limiter_try_acquire(limiter, 1, NULL, NULL) == AGR_OK) return 1;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return 0;
}

/* Each object does what it was told, and goes on when the store is there again. */
static void without_the_store(agr_store *store, const char *how) {
  const agr_limiter_config config = bucket_of(10, hour);
  char names[3][32];
  for (int i = 0; i < 3; ++i) snprintf(names[i], sizeof names[i], "%s-%d", how, i);
  agr_limiter *refuses = limiter_in(store, names[0], &config, 0, AGR_STORE_REFUSE);
  agr_limiter *admits = limiter_in(store, names[1], &config, 0, AGR_STORE_ADMIT);
  agr_limiter *local = limiter_in(store, names[2], &config, 0, AGR_STORE_LOCAL);
  CHECK_EQUAL(agr_limiter_try_acquire(refuses, 1, NULL, &error), AGR_OK, how);
  CHECK_EQUAL(agr_limiter_try_acquire(local, 1, NULL, &error), AGR_OK, how);
  const int holds = !strcmp(how, "held");
  if (holds) {
    kill(server.pid, SIGSTOP);
  } else {
    stop_server(&server);
  }
  CHECK_EQUAL(agr_limiter_try_acquire(refuses, 1, NULL, &error), AGR_ERR_STORE, how);
  CHECK(error.message[0]);
  CHECK_EQUAL(taken_from(admits, 30), 30, how);
  CHECK_EQUAL(taken_from(local, 30), 5, "half of the bucket");
  agr_reservation reservation;
  CHECK_EQUAL(agr_limiter_reserve(admits, 10, 0, &reservation, NULL, &error), AGR_OK, how);
  CHECK(reservation.permit != 0);
  CHECK_EQUAL(agr_limiter_cancel(admits, reservation.permit, &error), AGR_OK, how);
  const agr_limiter_demand two[] = {{admits, 1}, {refuses, 1}}, one[] = {{admits, 5}};
  CHECK_EQUAL(agr_limiter_try_acquire_all(one, 1, NULL, NULL, &error), AGR_OK, how);
  CHECK_EQUAL(agr_limiter_try_acquire_all(two, 2, NULL, NULL, &error), AGR_ERR_STORE, how);
  if (holds) {
    kill(server.pid, SIGCONT);
  } else {
    start_server(&server);
  }
  CHECK(is_back(refuses));
  agr_limiter_destroy(refuses);
  agr_limiter_destroy(admits);
  agr_limiter_destroy(local);
}

/* ---- threads ---- */

enum { THREADS = 8 };
static _Atomic int admitted;
static agr_limiter *common;

static void *takes(void *unused) {
  (void)unused;
  int refused = 0;
  while (refused < 3) {
    if (agr_limiter_try_acquire(common, 1, NULL, NULL) == AGR_OK) atomic_fetch_add(&admitted, 1);
    else ++refused;
  }
  return NULL;
}

static void threads_take_what_there_is(agr_store *store, int64_t lease_tokens) {
  const agr_limiter_config config = bucket_of(5000, hour);
  common = limiter_in(store, lease_tokens ? "threads-leased" : "threads", &config, lease_tokens,
                      AGR_STORE_REFUSE);
  pthread_t threads[THREADS];
  atomic_store(&admitted, 0);
  for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, takes, NULL);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  int64_t left = 0;
  CHECK(agr_limiter_available(common, &left, &error) == AGR_OK);
  CHECK_EQUAL(atomic_load(&admitted) + left, 5000, "no token twice, none lost");
  CHECK(left < 2 * THREADS);
  agr_limiter_destroy(common);
}

static pthread_barrier_t start;

static void *takes_at_once(void *unused) {
  (void)unused;
  pthread_barrier_wait(&start);
  if (agr_limiter_try_acquire(common, 1, NULL, NULL) == AGR_OK) atomic_fetch_add(&admitted, 1);
  return NULL;
}

/* One asks, and the others wait for it as long as it waits for the store: they too are to go on without. */
static void who_waits_for_another_goes_on_as_well(agr_store *store) {
  const agr_limiter_config config = bucket_of(100, hour);
  for (int on_error = AGR_STORE_ADMIT; on_error <= AGR_STORE_LOCAL; ++on_error) {
    pthread_t threads[THREADS];
    common = limiter_in(store, "waited-for", &config, 10, on_error);
    atomic_store(&admitted, 0);
    pthread_barrier_init(&start, NULL, THREADS);
    kill(server.pid, SIGSTOP);
    for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, takes_at_once, NULL);
    for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
    kill(server.pid, SIGCONT);
    CHECK_EQUAL(atomic_load(&admitted), THREADS, on_error == AGR_STORE_ADMIT ? "admit" : "local");
    pthread_barrier_destroy(&start);
    agr_limiter_destroy(common);
  }
}

int main(void) {
  start_server(&server);
  agr_store *store = open_store(&server, 10 * second), *other = open_store(&server, 10 * second);
  two_share_one_bucket(store, other);
  leased_tokens_need_no_round_trip(store, other);
  reservations_come_back(store);
  a_greater_cost_is_owed(store, other);
  several_are_taken_as_one(store, other);
  wrong_configurations_are_named(store);
  threads_take_what_there_is(store, 0);
  threads_take_what_there_is(store, 100);
  agr_store *hasty = open_store(&server, second / 20);
  without_the_store(hasty, "killed");
  without_the_store(hasty, "held");
  who_waits_for_another_goes_on_as_well(hasty);
  agr_store_destroy(hasty);
  agr_store_destroy(store);
  agr_store_destroy(other);
  end_server(&server);
  return finish();
}
