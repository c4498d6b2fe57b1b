/* SPDX-License-Identifier: Apache-2.0
 * Locks in a store, on a Redis server which is held up. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>

#include "../c/check.h"
#include "redis_store.h"

static const int64_t millisecond = 1000000, second = 1000000000;
static redis_server server;
static agr_error error;

static agr_lock *lock_in(agr_store *store, const char *name, uint32_t limit, int64_t ttl_ns) {
  agr_lock_config config;
  agr_lock *lock = NULL;
  agr_lock_config_init(&config, sizeof config);
  config.limit = limit;
  config.ttl_ns = ttl_ns;
  if (agr_lock_create_in_store(store, name, &config, NULL, &lock, &error) != AGR_OK)
    give_up(error.message);
  return lock;
}

static void one_holder_of_a_key(agr_store *store, agr_store *other) {
  agr_lock *one = lock_in(store, "lock", 1, 60 * second), *two = lock_in(other, "lock", 1, 60 * second);
  agr_lock_hold first, second_hold, third;
  int64_t retry = 0;
  CHECK(agr_lock_try_acquire(one, "k", 1, &first, NULL, &error) == AGR_OK);
  CHECK(first.fence != 0 && (first.owner[0] || first.owner[1]) && first.until_ns > agr_now_ns());
  CHECK(agr_lock_try_acquire(two, "k", 1, &second_hold, &retry, &error) == AGR_LIMITED);
  CHECK(!second_hold.fence && retry > 50 * second && retry <= 60 * second);
  /* Long enough for a machine under load to ask at least once. */
  CHECK(agr_lock_acquire(two, "k", 1, 300 * millisecond, &second_hold, &error) == AGR_LIMITED);
  CHECK(agr_lock_try_acquire(two, "other", 5, &second_hold, NULL, &error) == AGR_OK);
  /* Nobody ends another's. */
  agr_lock_hold stranger = first;
  stranger.owner[0] ^= 2;
  CHECK(agr_lock_release(two, "k", 1, &stranger, &error) == AGR_STALE);
  CHECK(agr_lock_renew(two, "k", 1, &stranger, &error) == AGR_STALE);
  CHECK(agr_lock_renew(one, "k", 1, &first, &error) == AGR_OK);
  /* The hold can be released through another lock of the name. */
  CHECK(agr_lock_release(two, "k", 1, &first, &error) == AGR_OK);
  CHECK(agr_lock_release(one, "k", 1, &first, &error) == AGR_STALE);
  CHECK(agr_lock_try_acquire(two, "k", 1, &third, NULL, &error) == AGR_OK);
  CHECK(third.fence > first.fence);
  agr_lock_destroy(one);
  agr_lock_destroy(two);
}

static void as_many_as_the_limit(agr_store *store) {
  agr_lock *lock = lock_in(store, "semaphore", 3, 60 * second);
  agr_lock_hold holds[3], more;
  for (int i = 0; i < 3; ++i)
    CHECK(agr_lock_try_acquire(lock, NULL, 0, &holds[i], NULL, &error) == AGR_OK);
  CHECK(agr_lock_try_acquire(lock, NULL, 0, &more, NULL, &error) == AGR_LIMITED);
  CHECK(agr_lock_release(lock, NULL, 0, &holds[1], &error) == AGR_OK);
  CHECK(agr_lock_try_acquire(lock, NULL, 0, &more, NULL, &error) == AGR_OK);
  agr_lock_destroy(lock);
}

static void a_hold_ends_by_itself(agr_store *store) {
  agr_lock *lock = lock_in(store, "short", 1, 20 * millisecond);
  agr_lock_hold first, next;
  CHECK(agr_lock_try_acquire(lock, "k", 1, &first, NULL, &error) == AGR_OK);
  CHECK(agr_lock_acquire(lock, "k", 1, 10 * second, &next, &error) == AGR_OK);
  CHECK(next.fence > first.fence);
  CHECK(agr_lock_renew(lock, "k", 1, &first, &error) == AGR_STALE);
  agr_lock_destroy(lock);
}

/* ---- threads: never two inside ---- */

enum { THREADS = 6, ROUNDS = 40 };
static agr_lock *common;
static _Atomic int inside, most, entries;
static _Atomic uint64_t largest_fence;

static void *enters(void *unused) {
  (void)unused;
  agr_error own;
  for (int i = 0; i < ROUNDS; ++i) {
    agr_lock_hold hold;
    if (agr_lock_acquire(common, "k", 1, 60 * second, &hold, &own) != AGR_OK) continue;
    const int now = atomic_fetch_add(&inside, 1) + 1;
    if (now > atomic_load(&most)) atomic_store(&most, now);
    if (hold.fence <= atomic_load(&largest_fence)) atomic_store(&most, 99);
    atomic_store(&largest_fence, hold.fence);
    atomic_fetch_add(&entries, 1);
    atomic_fetch_sub(&inside, 1);
    agr_lock_release(common, "k", 1, &hold, &own);
  }
  return NULL;
}

static void never_two_inside(agr_store *store) {
  pthread_t threads[THREADS];
  common = lock_in(store, "common", 1, 60 * second);
  for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, enters, NULL);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  CHECK_EQUAL(atomic_load(&entries), THREADS * ROUNDS, "everybody was in");
  CHECK_EQUAL(atomic_load(&most), 1, "and alone");
  agr_lock_destroy(common);
}

static void without_the_store(void) {
  agr_store *hasty = open_store(&server, 50 * millisecond);
  agr_lock *lock = lock_in(hasty, "held", 1, 60 * second);
  agr_lock_hold hold, next;
  CHECK(agr_lock_try_acquire(lock, "k", 1, &hold, NULL, &error) == AGR_OK);
  kill(server.pid, SIGSTOP);
  CHECK(agr_lock_try_acquire(lock, "j", 1, &next, NULL, &error) == AGR_ERR_STORE);
  CHECK(error.message[0] && !next.fence);
  CHECK(agr_lock_renew(lock, "k", 1, &hold, &error) == AGR_ERR_STORE);
  kill(server.pid, SIGCONT);
  int tries = 0;
  while (agr_lock_renew(lock, "k", 1, &hold, &error) == AGR_ERR_STORE && ++tries < 10000)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  CHECK(agr_lock_renew(lock, "k", 1, &hold, &error) == AGR_OK);
  agr_lock_destroy(lock);
  agr_store_destroy(hasty);
}

static void wrong_arguments_are_named(agr_store *store) {
  agr_lock *lock = NULL;
  agr_lock_config config;
  agr_lock_hold hold = {{0, 0}, 0, 0};
  agr_lock_config_init(&config, sizeof config);
  config.limit = 0;
  CHECK(agr_lock_create_in_store(store, "x", &config, NULL, &lock, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "limit") && !lock);
  lock = lock_in(store, "x", 1, second);
  CHECK(agr_lock_release(lock, "k", 1, &hold, &error) == AGR_ERR_ARGUMENT && !strcmp(error.field, "hold"));
  CHECK(agr_lock_try_acquire(lock, NULL, 1, &hold, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "key"));
  CHECK(agr_lock_acquire(lock, "k", 1, -1, &hold, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "timeout_ns"));
  agr_lock_destroy(lock);
}

int main(void) {
  start_server(&server);
  agr_store *store = open_store(&server, 10 * second), *other = open_store(&server, 10 * second);
  one_holder_of_a_key(store, other);
  as_many_as_the_limit(store);
  a_hold_ends_by_itself(store);
  never_two_inside(store);
  wrong_arguments_are_named(store);
  without_the_store();
  agr_store_destroy(store);
  agr_store_destroy(other);
  end_server(&server);
  return finish();
}
