/* SPDX-License-Identifier: Apache-2.0
 * Plain threads on one object of each kind. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>

#include "check.h"

enum { THREADS = 4, ROUNDS = 50000 };

static agr_limiter *limiter;
static agr_keyed_limiter *keyed;
static agr_breaker *breaker;
static agr_idempotency *cache;
static atomic_long admitted, executed, replayed, broken;

static void *take(void *unused) {
  (void)unused;
  for (int i = 0; i < ROUNDS; ++i) {
    if (agr_limiter_try_acquire_at(limiter, 1, 1000, NULL, NULL) == AGR_OK) ++admitted;
    char key[8];
    snprintf(key, sizeof key, "k%d", i % 64);
    (void)agr_keyed_limiter_try_acquire_at(keyed, key, strlen(key), 1, 1000, NULL, NULL);
    uint64_t permit;
    if (agr_breaker_acquire_at(breaker, 1000, &permit, NULL, NULL) == AGR_OK &&
        agr_breaker_report_at(breaker, permit, AGR_OUTCOME_SUCCESS, 5, 1000, NULL) != AGR_OK)
      ++broken;
  }
  return NULL;
}

/* Everybody wants the same keys: one executes each, the others join and are given its result. */
static void *once(void *unused) {
  (void)unused;
  for (int i = 0; i < 2000; ++i) {
    char key[16];
    int length = snprintf(key, sizeof key, "once%d", i);
    agr_lease lease;
    agr_result result;
    uint64_t ticket;
    agr_status status = agr_idempotency_join(cache, key, (size_t)length, NULL, 0, &ticket, &lease,
                                             &result, NULL);
    if (status == AGR_IN_PROGRESS)
      status = agr_idempotency_wait(cache, ticket, AGR_FOREVER, &lease, &result, NULL);
    if (status == AGR_OK) {
      ++executed;
      if (agr_idempotency_complete(cache, lease.id, key, (size_t)length, NULL) != AGR_OK) ++broken;
    } else if (status == AGR_REPLAY) {
      ++replayed;
      if (result.length != (size_t)length || memcmp(result.data, key, result.length)) ++broken;
      if (agr_idempotency_release(cache, result.pin, NULL) != AGR_OK) ++broken;
    } else {
      ++broken;
    }
  }
  return NULL;
}

static void run(void *(*body)(void *)) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, body, NULL) == 0);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
}

int main(void) {
  agr_limiter_config limits;
  agr_limiter_config_init(&limits, sizeof limits);
  limits.capacity = 70000;
  limits.refill_tokens = 1;
  CHECK(agr_limiter_create_at(&limits, 1000, &limiter, NULL) == AGR_OK);
  agr_keyed_limiter_config keyed_limits;
  agr_keyed_limiter_config_init(&keyed_limits, sizeof keyed_limits);
  keyed_limits.capacity = keyed_limits.refill_tokens = 100;
  CHECK(agr_keyed_limiter_create(&keyed_limits, &keyed, NULL) == AGR_OK);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  CHECK(agr_breaker_create(&breaking, &breaker, NULL) == AGR_OK);
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  CHECK(agr_idempotency_create(&caching, &cache, NULL) == AGR_OK);

  run(take);
  CHECK(admitted == 70000);
  agr_keyed_limiter_snapshot keys = {.struct_size = sizeof keys};
  CHECK(agr_keyed_limiter_snapshot_read_at(keyed, 1000, &keys, NULL) == AGR_OK);
  CHECK(keys.busy_keys == 64 && keys.refused == THREADS * ROUNDS - 64 * 100);
  run(once);
  CHECK(executed == 2000 && replayed == (THREADS - 1) * 2000);
  CHECK(broken == 0);

  agr_idempotency_destroy(cache);
  agr_breaker_destroy(breaker);
  agr_keyed_limiter_destroy(keyed);
  agr_limiter_destroy(limiter);
  return finish();
}
