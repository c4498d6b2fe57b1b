/* SPDX-License-Identifier: Apache-2.0
 * Plain threads on one object of each kind, and a fork while they run. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { THREADS = 4, ROUNDS = 50000 };

static agr_limiter *limiter;
static agr_keyed_limiter *keyed;
static agr_breaker *breaker;
static agr_idempotency *cache;
static agr_policy *policy;
static atomic_long admitted, executed, replayed, broken;
static atomic_bool stop;

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

static void *calls(void *unused) {
  (void)unused;
  while (!stop) {
    agr_call *call;
    agr_step step = {.struct_size = sizeof step};
    agr_request request;
    agr_request_init(&request, sizeof request);
    char key[8];
    request.key = key;
    request.key_length = (size_t)snprintf(key, sizeof key, "c%d", (int)(agr_random() % 100));
    if (agr_call_begin(policy, &request, &call, &step, NULL) != AGR_OK) continue;
    if (step.kind == AGR_STEP_ATTEMPT) {
      agr_outcome outcome;
      agr_outcome_init(&outcome, sizeof outcome);
      if (agr_random() % 4 == 0) outcome.error_class = AGR_CLASS_PERMANENT;
      if (agr_call_advance(call, &outcome, &step, NULL) != AGR_OK) ++broken;
    }
    agr_call_destroy(call);
  }
  return NULL;
}

static void run(void *(*body)(void *)) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, body, NULL) == 0);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
}

/* In the child of a fork, everything works, and its random numbers are its own. */
static void child(int out) {
  agr_call *call = NULL;
  agr_step step = {.struct_size = sizeof step};
  agr_lease lease;
  agr_result result;
  int good = agr_limiter_try_acquire(limiter, 0, NULL, NULL) >= 0;
  good &= agr_idempotency_begin(cache, "child", 5, NULL, 0, &lease, &result, NULL) >= 0;
  good &= agr_call_begin(policy, NULL, &call, &step, NULL) == AGR_OK;
  agr_call_destroy(call);
  uint64_t random = agr_random();
  good &= write(out, &random, sizeof random) == sizeof random;
  _exit(good ? 0 : 1);
}

static void forks(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) pthread_create(&threads[i], NULL, calls, NULL);
  uint64_t seen[201];
  for (int i = 0; i < 200; ++i) {
    int ends[2], status = 0;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) child(ends[1]);
    close(ends[1]);
    CHECK(read(ends[0], &seen[i], sizeof seen[i]) == sizeof seen[i]);
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  seen[200] = agr_random();
  for (int i = 0; i < 201; ++i)
    for (int j = 0; j < i; ++j) CHECK(seen[i] != seen[j]);
  stop = 1;
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
  agr_policy_config composing;
  agr_policy_config_init(&composing, sizeof composing);
  composing.breaker = breaker;
  composing.idempotency = cache;
  CHECK(agr_policy_create(&composing, &policy, NULL) == AGR_OK);

  run(take);
  CHECK(admitted == 70000);
  agr_keyed_limiter_snapshot keys = {.struct_size = sizeof keys};
  CHECK(agr_keyed_limiter_snapshot_read_at(keyed, 1000, &keys, NULL) == AGR_OK);
  CHECK(keys.busy_keys == 64 && keys.refused == THREADS * ROUNDS - 64 * 100);
  run(once);
  CHECK(executed == 2000 && replayed == (THREADS - 1) * 2000);
  forks();
  CHECK(broken == 0);

  agr_policy_destroy(policy);
  agr_idempotency_destroy(cache);
  agr_breaker_destroy(breaker);
  agr_keyed_limiter_destroy(keyed);
  agr_limiter_destroy(limiter);
  return finish();
}
