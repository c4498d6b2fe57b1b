/* SPDX-License-Identifier: Apache-2.0
 * Signals that arrive while a call blocks neither shorten the wait nor become its answer. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>

#include "check.h"

enum { SIGNALS = 300 };
#define WAIT_NS INT64_C(50000000)

static pthread_t blocked;
static atomic_int handled;
static atomic_bool done;

static void count(int number) {
  (void)number;
  if (pthread_equal(pthread_self(), blocked)) ++handled;
}

/* Runs body on a thread of its own, which gets signal after signal until it is through; meanwhile is called
 * after every SIGNALS of them, until it says that it is done. The time that body took. [ns] */
static int64_t pelted(void *(*body)(void *), int (*meanwhile)(void)) {
  handled = 0;
  done = 0;
  int next = SIGNALS;
  int64_t start = agr_now_ns();
  CHECK(pthread_create(&blocked, NULL, body, NULL) == 0);
  while (!done) {
    CHECK(pthread_kill(blocked, SIGUSR1) == 0);
    sched_yield();
    if (meanwhile && handled >= next) {
      next = handled + SIGNALS;
      if (meanwhile()) meanwhile = NULL;
    }
  }
  pthread_join(blocked, NULL);
  CHECK(handled > 0);
  return agr_now_ns() - start;
}

static agr_limiter *limiter;

static void *acquire(void *unused) {
  (void)unused;
  CHECK(agr_limiter_acquire(limiter, 1, AGR_FOREVER, NULL, NULL) == AGR_OK);
  done = 1;
  return NULL;
}

static void a_limiter_waits_for_its_token(void) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 1;
  config.refill_interval_ns = WAIT_NS;
  config.initial_tokens = 0;
  const int64_t before = agr_now_ns();
  CHECK(agr_limiter_create(&config, &limiter, NULL) == AGR_OK);
  pelted(acquire, NULL);
  CHECK(agr_now_ns() - before >= WAIT_NS);
  agr_limiter_destroy(limiter);
}

static agr_keyed_limiter *keyed;

static void *acquire_key(void *unused) {
  (void)unused;
  CHECK(agr_keyed_limiter_acquire(keyed, "key", 3, 1, AGR_FOREVER, NULL, NULL) == AGR_OK);
  CHECK(agr_keyed_limiter_acquire(keyed, "key", 3, 1, AGR_FOREVER, NULL, NULL) == AGR_OK);
  done = 1;
  return NULL;
}

static void a_keyed_limiter_waits_for_its_token(void) {
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = config.refill_tokens = 1;
  config.refill_interval_ns = WAIT_NS;
  CHECK(agr_keyed_limiter_create(&config, &keyed, NULL) == AGR_OK);
  CHECK(pelted(acquire_key, NULL) >= WAIT_NS);
  agr_keyed_limiter_destroy(keyed);
}

static agr_idempotency *cache;
static agr_lease held;

static void *wait_in_vain(void *unused) {
  (void)unused;
  agr_lease lease;
  agr_result result;
  uint64_t ticket;
  CHECK(agr_idempotency_join(cache, "key", 3, NULL, 0, &ticket, &lease, &result, NULL) ==
        AGR_IN_PROGRESS);
  CHECK(agr_idempotency_wait(cache, ticket, WAIT_NS, &lease, &result, NULL) == AGR_TIMED_OUT);
  CHECK(agr_idempotency_leave(cache, ticket, NULL) == AGR_OK);
  done = 1;
  return NULL;
}

static void *wait_for_it(void *unused) {
  (void)unused;
  agr_lease lease;
  agr_result result;
  uint64_t ticket;
  CHECK(agr_idempotency_join(cache, "key", 3, NULL, 0, &ticket, &lease, &result, NULL) ==
        AGR_IN_PROGRESS);
  CHECK(agr_idempotency_wait(cache, ticket, AGR_FOREVER, &lease, &result, NULL) == AGR_REPLAY);
  CHECK(result.length == 5 && memcmp(result.data, "value", 5) == 0);
  CHECK(agr_idempotency_release(cache, result.pin, NULL) == AGR_OK);
  done = 1;
  return NULL;
}

/* Gives the result when somebody waits for it. */
static int complete(void) {
  agr_idempotency_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_idempotency_snapshot_read(cache, &snapshot, NULL) == AGR_OK);
  if (snapshot.waiters == 0) return 0;
  CHECK(agr_idempotency_complete(cache, held.id, "value", 5, NULL) == AGR_OK);
  return 1;
}

static void a_joined_caller_waits_for_the_result(void) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  CHECK(agr_idempotency_create(&config, &cache, NULL) == AGR_OK);
  agr_result result;
  CHECK(agr_idempotency_begin(cache, "key", 3, NULL, 0, &held, &result, NULL) == AGR_OK);
  CHECK(pelted(wait_in_vain, NULL) >= WAIT_NS);
  pelted(wait_for_it, complete);
}

static agr_policy *policy;
static const char *policy_key;
static int attempts;

static void attempt(const agr_step *step, agr_outcome *outcome, void *unused) {
  (void)unused;
  ++attempts;
  outcome->error_class = step->attempt == 1 ? AGR_CLASS_TRANSIENT : AGR_CLASS_SUCCESS;
}

static void *execute(void *unused) {
  (void)unused;
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = policy_key;
  request.key_length = policy_key ? strlen(policy_key) : 0;
  agr_step step = {.struct_size = sizeof step};
  agr_call *call = NULL;
  CHECK(agr_policy_execute(policy, &request, attempt, NULL, &call, &step, NULL) == AGR_OK);
  CHECK(step.kind == AGR_STEP_DONE);
  if (policy_key) {
    CHECK(step.reason == AGR_REASON_REPLAYED && step.result_length == 5);
  } else {
    CHECK(step.reason == AGR_REASON_SUCCEEDED && step.attempt == 2);
  }
  agr_call_destroy(call);
  done = 1;
  return NULL;
}

static void a_policy_waits_between_attempts_and_for_others(void) {
  agr_retry_config retry;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.jitter = AGR_JITTER_NONE;
  retry.backoff.base_delay_ns = WAIT_NS;
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.retry = &retry;
  config.idempotency = cache;
  CHECK(agr_policy_create(&config, &policy, NULL) == AGR_OK);
  CHECK(pelted(execute, NULL) >= WAIT_NS);
  CHECK(attempts == 2);

  agr_result result;
  policy_key = "other";
  CHECK(agr_idempotency_begin(cache, "other", 5, NULL, 0, &held, &result, NULL) == AGR_OK);
  pelted(execute, complete);
  CHECK(attempts == 2);
  agr_policy_destroy(policy);
  agr_idempotency_destroy(cache);
}

int main(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action); /* without SA_RESTART: system calls answer EINTR */
  action.sa_handler = count;
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  a_limiter_waits_for_its_token();
  a_keyed_limiter_waits_for_its_token();
  a_joined_caller_waits_for_the_result();
  a_policy_waits_between_attempts_and_for_others();
  return finish();
}
