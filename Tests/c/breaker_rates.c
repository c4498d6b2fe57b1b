/* SPDX-License-Identifier: Apache-2.0
 * A rate that was never reached opens no breaker, however many threads report at a time: each reports a success before
 * each failure, so that there are never as many failures as successes. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */

#include "check.h"

enum { THREADS = 3, ROUNDS = 150, PAIRS = 1500, TIME = 1000 };

static agr_breaker *breaker;
static atomic_long refused;

/* False when the breaker is open. */
static int report(int32_t outcome) {
  uint64_t permit;
  return agr_breaker_acquire_at(breaker, TIME, &permit, NULL, NULL) == AGR_OK &&
         agr_breaker_report_at(breaker, permit, outcome, 0, TIME, NULL) == AGR_OK;
}

static void *alternate(void *unused) {
  for (int i = 0; i < PAIRS; ++i) {
    if (!report(AGR_OUTCOME_SUCCESS) || !report(AGR_OUTCOME_FAILURE)) {
      ++refused;
      break;
    }
  }
  return unused;
}

static void never_reached(int32_t window, const char *name) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = window;
  config.window_calls = 10000;
  config.minimum_calls = 10;
  config.failure_rate = 0.5;
  for (int round = 0; round < ROUNDS && !refused; ++round) {
    pthread_t threads[THREADS];
    CHECK(agr_breaker_create(&config, &breaker, NULL) == AGR_OK);
    CHECK(report(AGR_OUTCOME_SUCCESS));
    for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, alternate, NULL) == 0);
    for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
    CHECK_EQUAL(refused, 0, name);
    /* One more, and it is. */
    if (!refused) CHECK(report(AGR_OUTCOME_FAILURE) && !report(AGR_OUTCOME_SUCCESS));
    agr_breaker_destroy(breaker);
  }
}

int main(void) {
  never_reached(AGR_WINDOW_TIME, "time");
  never_reached(AGR_WINDOW_COUNT, "count");
  return finish();
}
