/* SPDX-License-Identifier: Apache-2.0
 * What is taken before it is there is its reservation's, and nobody else's meanwhile: tokens of tomorrow are not spent
 * today. The store answers at once, so that the threads are next to each other nearly all the time. */
#include <pthread.h>
#include <stdatomic.h>

#include "../c/check.h"
#include "stub.h"

enum { RESERVATIONS = 200000, WATCHERS = 2 };

static const int64_t hour = 3600000000000;
static agr_limiter *limiter;
static atomic_int watching;
static atomic_long stolen, asked;
static agr_error error;

/* A bucket that is empty, and lends. */
static agr_status lend(void *self, agr_store_bucket *buckets, uint32_t count, int64_t timeout_ns, uint32_t *out_refused,
                       agr_error *why) {
  (void)self, (void)count, (void)timeout_ns, (void)why;
  buckets[0].level = -10;
  buckets[0].taken = buckets[0].tokens;
  buckets[0].retry_after_ns = hour;
  *out_refused = 0;
  return buckets[0].tokens <= 0 || buckets[0].flags & AGR_STORE_MAY_OWE ? AGR_OK : AGR_LIMITED;
}

static void *watch(void *unused) {
  agr_error own;
  while (watching) {
    stolen += agr_limiter_try_acquire(limiter, 1, NULL, &own) == AGR_OK;
    ++asked;
  }
  return unused;
}

int main(void) {
  static agr_store_api api;
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = NULL;
  agr_limiter_config config;
  pthread_t threads[WATCHERS];
  api = stub_api;
  api.take = lend;
  const agr_store_driver driver = {&api, &stub};
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = 1000;
  config.refill_tokens = 1;
  config.refill_interval_ns = hour;
  CHECK(agr_store_create(&driver, NULL, &store, &error) == AGR_OK);
  CHECK(agr_limiter_create_in_store(store, "ahead", &config, NULL, &limiter, &error) == AGR_OK);
  watching = 1;
  for (int i = 0; i < WATCHERS; ++i) CHECK(pthread_create(&threads[i], NULL, watch, NULL) == 0);
  long reserved = 0;
  for (int i = 0; i < RESERVATIONS && !stolen; ++i) {
    agr_reservation reservation;
    reserved += agr_limiter_reserve(limiter, 1, 2000 * hour, &reservation, NULL, &error) == AGR_OK &&
                reservation.wait_ns > hour / 2 && reservation.permit &&
                agr_limiter_settle(limiter, reservation.permit, -1, &error) == AGR_OK;
  }
  watching = 0;
  for (int i = 0; i < WATCHERS; ++i) pthread_join(threads[i], NULL);
  CHECK_EQUAL(stolen, 0, "spent by others");
  CHECK_EQUAL(reserved, RESERVATIONS, "reserved");
  CHECK(asked > 100);
  agr_limiter_destroy(limiter);
  agr_store_destroy(store);
  return finish();
}
