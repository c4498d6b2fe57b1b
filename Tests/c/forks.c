/* SPDX-License-Identifier: Apache-2.0
 * Forks while four threads use every handle: the child uses them all, and destroys them. What its parent
 * holds it holds too, as a copy.
 *
 *   test_forks [refuses | nods]    under a kernel that does not wipe a page at a fork and says so, or that
 *                                  says yes to any advice and does nothing, as some emulators do */
#define _DEFAULT_SOURCE
#include <autoglm_reliability.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { THREADS = 4, FORKS = 2000, FEWER_FORKS = 200, CHILD_SECONDS = 60 };

static agr_limiter *limiter;
static agr_keyed_limiter *keyed;
static agr_breaker *breaker;
static agr_retry_budget *budget;
static agr_idempotency *cache;
static agr_policy *policy;
static agr_lease inherited;
static atomic_int broken;
static atomic_bool stop;

static const char *kernel = "";

/* In front of libc's, for the library as well. */
int madvise(void *memory, size_t bytes, int advice) {
  if (!strcmp(kernel, "nods")) return 0;
  if (!strcmp(kernel, "refuses") && advice == MADV_WIPEONFORK) return errno = EINVAL, -1;
  return (int)syscall(SYS_madvise, memory, bytes, advice);
}

static int good(agr_status status) { return status >= 0; }

static void use_limiters(const char *key, size_t length) {
  agr_reservation reserved;
  agr_limiter_demand demand = {limiter, 1};
  broken += !good(agr_limiter_try_acquire(limiter, 1, NULL, NULL));
  broken += !good(agr_limiter_try_acquire_all(&demand, 1, NULL, NULL, NULL));
  agr_status status = agr_limiter_reserve(limiter, 3, 0, &reserved, NULL, NULL);
  broken += !good(status);
  if (status == AGR_OK) broken += agr_limiter_settle(limiter, reserved.permit, 2, NULL) != AGR_OK;
  broken += !good(agr_keyed_limiter_try_acquire(keyed, key, length, 1, NULL, NULL));
  status = agr_keyed_limiter_reserve(keyed, key, length, 1, 0, &reserved, NULL, NULL);
  broken += !good(status);
  if (status == AGR_OK) broken += agr_keyed_limiter_cancel(keyed, reserved.permit, NULL) != AGR_OK;
}

static void use_breaker_and_budget(void) {
  uint64_t permit;
  agr_status status = agr_breaker_acquire(breaker, &permit, NULL, NULL);
  broken += !good(status);
  int32_t outcome = agr_random() % 3 ? AGR_OUTCOME_SUCCESS : AGR_OUTCOME_FAILURE;
  if (status == AGR_OK) broken += !good(agr_breaker_report(breaker, permit, outcome, 5, NULL));
  broken += !good(agr_retry_budget_deposit(budget, 1, NULL));
  broken += !good(agr_retry_budget_withdraw(budget, 1, NULL, NULL));
}

/* Executes the key, or joins whoever does. */
static void use_cache(const char *key, size_t length) {
  agr_lease lease;
  agr_result result;
  uint64_t ticket;
  agr_status status =
      agr_idempotency_join(cache, key, length, NULL, 0, &ticket, &lease, &result, NULL);
  if (status == AGR_IN_PROGRESS) {
    status = agr_idempotency_wait(cache, ticket, 1000, &lease, &result, NULL);
    if (status == AGR_TIMED_OUT) broken += !good(agr_idempotency_leave(cache, ticket, NULL));
  }
  broken += !good(status);
  if (status == AGR_REPLAY)
    broken += result.length != length || memcmp(result.data, key, length) ||
              agr_idempotency_release(cache, result.pin, NULL) != AGR_OK;
  if (status == AGR_OK)
    broken += !good(agr_idempotency_complete(cache, lease.id, key, length, NULL));
}

static void use_policy(const char *key, size_t length) {
  agr_call *call = NULL;
  agr_step step = {.struct_size = sizeof step};
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = key;
  request.key_length = length;
  agr_status status = agr_call_begin(policy, &request, &call, &step, NULL);
  broken += status != AGR_OK;
  if (status == AGR_OK && step.kind == AGR_STEP_ATTEMPT) {
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.result = key;
    outcome.result_length = length;
    if (agr_random() % 4 == 0) outcome.error_class = AGR_CLASS_PERMANENT;
    broken += agr_call_advance(call, &outcome, &step, NULL) != AGR_OK;
  }
  agr_call_destroy(call);
  agr_policy_snapshot snapshot = {.struct_size = sizeof snapshot};
  broken += agr_policy_snapshot_read(policy, &snapshot, NULL) != AGR_OK;
}

static void use_all(const char *key, size_t length) {
  use_limiters(key, length);
  use_breaker_and_budget();
  use_cache(key, length);
  use_policy(key, length);
}

static void destroy_all(void) {
  agr_policy_destroy(policy);
  agr_idempotency_destroy(cache);
  agr_retry_budget_destroy(budget);
  agr_breaker_destroy(breaker);
  agr_keyed_limiter_destroy(keyed);
  agr_limiter_destroy(limiter);
}

static void *work(void *unused) {
  (void)unused;
  while (!stop) {
    char key[8];
    use_all(key, (size_t)snprintf(key, sizeof key, "k%d", (int)(agr_random() % 100)));
  }
  return NULL;
}

/* Whatever the vanished threads were in the middle of, every handle works, also for keys of theirs. A
 * child that hangs is ended by its alarm. */
static void child(int out, int number) {
  alarm(CHILD_SECONDS);
  broken = 0;
  uint64_t random = agr_random();
  char key[16];
  for (int i = 0; i < 5; ++i) {
    use_all(key, (size_t)snprintf(key, sizeof key, "k%d", (number + i) % 100));
    use_all(key, (size_t)snprintf(key, sizeof key, "child%d.%d", number, i));
  }
  broken += agr_idempotency_complete(cache, inherited.id, "child", 5, NULL) != AGR_OK;
  broken += agr_idempotency_complete(cache, inherited.id, "child", 5, NULL) != AGR_STALE;
  destroy_all();
  if (write(out, &random, sizeof random) != sizeof random) broken += 1;
  _exit(broken ? 1 : 0);
}

static int ascending(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

static void make_all(void) {
  agr_limiter_config limits;
  agr_limiter_config_init(&limits, sizeof limits);
  limits.capacity = limits.refill_tokens = 1000000;
  CHECK(agr_limiter_create(&limits, &limiter, NULL) == AGR_OK);
  agr_keyed_limiter_config keyed_limits;
  agr_keyed_limiter_config_init(&keyed_limits, sizeof keyed_limits);
  keyed_limits.capacity = keyed_limits.refill_tokens = 1000;
  CHECK(agr_keyed_limiter_create(&keyed_limits, &keyed, NULL) == AGR_OK);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.open_ns = breaking.open_max_ns = 100000;
  CHECK(agr_breaker_create(&breaking, &breaker, NULL) == AGR_OK);
  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  CHECK(agr_retry_budget_create(&saving, &budget, NULL) == AGR_OK);
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  caching.lease_ns = AGR_TIME_MAX_NS;
  caching.ttl_ns = 1000000; /* so that keys are executed again and again */
  CHECK(agr_idempotency_create(&caching, &cache, NULL) == AGR_OK);
  agr_policy_config composing;
  agr_policy_config_init(&composing, sizeof composing);
  composing.idempotency = cache;
  composing.breaker = breaker;
  composing.limiters[0] = limiter;
  composing.limiter_count = 1;
  CHECK(agr_policy_create(&composing, &policy, NULL) == AGR_OK);
}

int main(int count, char **arguments) {
  static uint64_t seen[2 * FORKS];
  pthread_t threads[THREADS];
  agr_result result;
  if (count > 1) kernel = arguments[1];
  const int forks = count > 1 ? FEWER_FORKS : FORKS;
  make_all();
  CHECK(agr_idempotency_begin(cache, "inherited", 9, NULL, 0, &inherited, &result, NULL) == AGR_OK);
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
  for (int i = 0; i < forks; ++i) {
    int ends[2], status = 0;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) child(ends[1], i);
    seen[2 * i] = agr_random();
    close(ends[1]);
    CHECK(pid > 0 && read(ends[0], &seen[2 * i + 1], sizeof seen[0]) == sizeof seen[0]);
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop = 1;
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  CHECK(broken == 0);
  /* What the children did was done to their copies. */
  CHECK(agr_idempotency_complete(cache, inherited.id, "parent", 6, NULL) == AGR_OK);

  /* Every number was drawn once, in whichever process. */
  qsort(seen, 2 * (size_t)forks, sizeof seen[0], ascending);
  for (int i = 1; i < 2 * forks; ++i) CHECK(seen[i - 1] != seen[i]);
  destroy_all();
  return finish();
}
