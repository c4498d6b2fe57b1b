/* SPDX-License-Identifier: Apache-2.0
 * Nobody who calls by a policy waits for a store beyond his own deadline, whatever time the store's parts have. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "redis_store.h"
#include "stub.h"

static const int64_t millisecond = 1000000, hour = 3600000000000;
/* A call that waited for its parts' time-out would take longer. */
static const int64_t timeout = 30 * 1000000000ll, hung = 10 * 1000000000ll;
static redis_server server;
static agr_error error;
static agr_step step;

struct parts {
  agr_limiter *limiters[2];
  agr_breaker *breaker;
  agr_idempotency *keys;
};

static struct parts parts_in(agr_store *store, int32_t on_error) {
  struct parts parts;
  char name[16];
  agr_limiter_config bucket;
  agr_breaker_config breaker;
  agr_idempotency_config keys;
  agr_store_options options;
  agr_limiter_config_init(&bucket, sizeof bucket);
  agr_breaker_config_init(&breaker, sizeof breaker);
  agr_idempotency_config_init(&keys, sizeof keys);
  agr_store_options_init(&options, sizeof options);
  bucket.capacity = bucket.refill_tokens = 1000;
  bucket.refill_interval_ns = hour;
  breaker.window = AGR_WINDOW_NONE;
  breaker.consecutive_failures = 1;
  breaker.open_ns = breaker.open_max_ns = hour;
  options.on_error = on_error;
  options.sync_ns = millisecond;
  for (int i = 0; i < 2; ++i) {
    if (agr_limiter_create_in_store(store, i ? "tokens" : "requests", &bucket, &options, &parts.limiters[i], &error))
      give_up(error.message);
  }
  snprintf(name, sizeof name, "upstream-%d", on_error);
  if (agr_breaker_create_in_store(store, name, &breaker, &options, &parts.breaker, &error) != AGR_OK ||
      agr_idempotency_create_in_store(store, "keys", &keys, &options, &parts.keys, &error) != AGR_OK)
    give_up(error.message);
  return parts;
}

static void end_parts(struct parts *parts) {
  for (int i = 0; i < 2; ++i) agr_limiter_destroy(parts->limiters[i]);
  agr_breaker_destroy(parts->breaker);
  agr_idempotency_destroy(parts->keys);
}

/* limiters  how many of them there are; 0 ... 2 */
static agr_policy *policy_of(const struct parts *parts, uint32_t limiters, int has_breaker, int64_t total) {
  agr_policy_config config;
  agr_policy *policy = NULL;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = parts->keys;
  config.breaker = has_breaker ? parts->breaker : NULL;
  for (uint32_t i = 0; i < limiters; ++i) config.limiters[i] = parts->limiters[i];
  config.limiter_count = limiters;
  config.total_timeout_ns = total;
  if (agr_policy_create(&config, &policy, &error) != AGR_OK) give_up(error.message);
  return policy;
}

static agr_call *begin(agr_policy *policy, const char *key) {
  agr_call *call = NULL;
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = key;
  request.key_length = key ? strlen(key) : 0;
  request.costs[1] = 1;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_call_begin(policy, &request, &call, &step, &error) == AGR_OK);
  return call;
}

static void succeed(agr_call *call) {
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.attempt_id = step.attempt_id;
  outcome.costs[0] = 0;
  CHECK(agr_call_advance(call, &outcome, &step, &error) == AGR_OK);
}

static int is_done_by_deadline(void) {
  return step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE && step.remaining_ns == 0;
}

/* Whatever is asked first: the key, one limiter, several, the breaker. */
static void a_call_begins(int32_t on_error) {
  agr_store *store = open_store(&server, timeout);
  struct parts parts = parts_in(store, on_error);
  for (uint32_t limiters = 0; limiters <= 2; ++limiters) {
    agr_policy *policy = policy_of(&parts, limiters, limiters == 0, 50 * millisecond);
    for (int has_key = limiters == 0; has_key >= 0; --has_key) {
      const int64_t start = agr_now_ns();
      agr_call *call = begin(policy, has_key ? "k" : NULL);
      CHECK(agr_now_ns() - start < hung);
      /* A breaker goes on by what it knows: nothing but the time is missing. */
      CHECK(is_done_by_deadline());
      agr_call_destroy(call);
      CHECK(agr_now_ns() - start < hung);
    }
    agr_policy_destroy(policy);
  }
  end_parts(&parts);
  agr_store_destroy(store);
}

/* The result, what is given back, a breaker that opens: after an attempt. */
static void a_call_ends(int32_t on_error) {
  agr_store *store = open_store(&server, timeout);
  struct parts parts = parts_in(store, on_error);
  agr_policy *policy = policy_of(&parts, 2, 1, 1500 * millisecond);
  char key[] = {'e', (char)('0' + on_error), '0', 0};
  agr_call *call = begin(policy, key), *failing = NULL, *abandoned = NULL;
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  const agr_step attempt = step;
  ++key[2];
  failing = begin(policy, key);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  const agr_step other = step;
  ++key[2];
  abandoned = begin(policy, key);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  kill(server.pid, SIGSTOP);
  int64_t start = agr_now_ns();
  step = attempt;
  succeed(call);
  /* A success is one, though the store has not got it. */
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED);
  agr_call_destroy(call);
  step = other;
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.attempt_id = step.attempt_id;
  outcome.error_class = AGR_CLASS_TRANSIENT;
  CHECK(agr_call_advance(failing, &outcome, &step, &error) == AGR_OK && step.kind == AGR_STEP_DONE);
  agr_call_destroy(failing);
  agr_call_destroy(abandoned);
  CHECK(agr_now_ns() - start < hung);
  kill(server.pid, SIGCONT);
  agr_policy_destroy(policy);
  end_parts(&parts);
  agr_store_destroy(store);
}

/* Who has joined another process's run, and asks what has become of it. */
static void a_joined_call(int32_t on_error, const char *key) {
  agr_store *store = open_store(&server, timeout), *elsewhere = open_store(&server, timeout);
  struct parts parts = parts_in(store, on_error), theirs = parts_in(elsewhere, on_error);
  agr_policy *policy = policy_of(&parts, 0, 0, 1500 * millisecond), *other = policy_of(&theirs, 0, 0, hour);
  agr_call *runs = begin(other, key), *call = begin(policy, key);
  CHECK(step.kind == AGR_STEP_JOIN);
  kill(server.pid, SIGSTOP);
  const int64_t start = agr_now_ns();
  while (step.kind == AGR_STEP_JOIN && agr_now_ns() - start < hung) {
    nanosleep(&(struct timespec){.tv_nsec = millisecond}, NULL);
    CHECK(agr_call_advance(call, NULL, &step, &error) == AGR_OK);
  }
  CHECK(agr_now_ns() - start < hung);
  CHECK(is_done_by_deadline());
  agr_call_destroy(call);
  kill(server.pid, SIGCONT);
  agr_call_destroy(runs);
  agr_policy_destroy(policy);
  agr_policy_destroy(other);
  end_parts(&parts);
  end_parts(&theirs);
  agr_store_destroy(store);
  agr_store_destroy(elsewhere);
}

/* ---- what a driver is told, and what its silence says of it ---- */

static agr_store *stubbed(struct stub *stub, uint32_t max_failures) {
  agr_store *store = NULL;
  agr_store_config limits;
  const agr_store_driver driver = {&stub_api, stub};
  agr_store_config_init(&limits, sizeof limits);
  limits.timeout_ns = timeout;
  limits.max_failures = max_failures;
  limits.open_ns = limits.open_max_ns = hour;
  if (agr_store_create(&driver, &limits, &store, &error) != AGR_OK) give_up(error.message);
  return store;
}

static void a_driver_is_told_what_is_left(void) {
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = stubbed(&stub, 0);
  struct parts parts = parts_in(store, AGR_STORE_REFUSE);
  const int64_t totals[] = {50 * millisecond, AGR_FOREVER, hour};
  for (int i = 0; i < 3; ++i) {
    const int64_t most = i ? timeout : totals[i], least = i ? timeout - hung : 0;
    agr_policy *policy = policy_of(&parts, 2, 0, totals[i]);
    for (int has_key = 0; has_key < 2; ++has_key) {
      const char key[] = {(char)('a' + i), 0};
      agr_call *call = begin(policy, has_key ? key : NULL);
      if (i) CHECK(step.kind == AGR_STEP_ATTEMPT);
      CHECK(stub.timeout_ns <= most && stub.timeout_ns > least);
      if (step.kind == AGR_STEP_ATTEMPT) succeed(call);
      CHECK(stub.timeout_ns <= most && stub.timeout_ns > least);
      agr_call_destroy(call);
    }
    agr_policy_destroy(policy);
  }
  end_parts(&parts);
  agr_store_destroy(store);
}

static int32_t state_after(int64_t total, const char *what) {
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = stubbed(&stub, 2);
  struct parts parts = parts_in(store, AGR_STORE_REFUSE);
  agr_policy *policy = policy_of(&parts, 1, 0, total);
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  stub.answer = AGR_ERR_STORE;
  for (int i = 0; i < 10; ++i) {
    agr_call *call = begin(policy, NULL);
    CHECK_EQUAL(step.kind, AGR_STEP_DONE, what);
    CHECK(step.reason == AGR_REASON_STORE || is_done_by_deadline());
    agr_call_destroy(call);
  }
  CHECK(agr_store_snapshot_read(store, &snapshot, &error) == AGR_OK);
  agr_policy_destroy(policy);
  end_parts(&parts);
  agr_store_destroy(store);
  return snapshot.state;
}

/* Of a caller in a hurry a store that is well may not have answered: others go on asking it. */
static void haste_says_nothing_of_the_store(void) {
  CHECK_EQUAL(state_after(5 * millisecond, "hurry"), AGR_BREAKER_CLOSED, "hurry");
  CHECK_EQUAL(state_after(hour, "time"), AGR_BREAKER_OPEN, "time");
}

static agr_status hang(void *self, agr_store_bucket *buckets, uint32_t count, int64_t timeout_ns,
                       uint32_t *out_refused, agr_error *why) {
  (void)self, (void)buckets, (void)count, (void)out_refused, (void)why;
  nanosleep(&(struct timespec){.tv_nsec = timeout_ns}, NULL);
  return AGR_ERR_STORE;
}

/* The limiters' store takes all the time there is: that of the keys is still told that the run is not made. */
static void what_was_begun_is_given_back(void) {
  struct stub well = {.answer = AGR_OK}, hung_one = {.answer = AGR_OK};
  static agr_store_api api;
  api = stub_api;
  api.take = hang;
  const agr_store_driver driver = {&api, &hung_one};
  agr_store *store = stubbed(&well, 0), *slow = NULL;
  if (agr_store_create(&driver, NULL, &slow, &error) != AGR_OK) give_up(error.message);
  struct parts parts = parts_in(store, AGR_STORE_REFUSE), others = parts_in(slow, AGR_STORE_REFUSE);
  const struct parts both = {{others.limiters[0], others.limiters[1]}, NULL, parts.keys};
  agr_policy *policy = policy_of(&both, 1, 0, 100 * millisecond);
  agr_call *call = begin(policy, "k");
  CHECK(is_done_by_deadline());
  /* Begun, renewed or not, and given back: with a time in which that can be done. */
  CHECK(well.calls >= 2 && well.timeout_ns > 1 && well.timeout_ns <= 20 * millisecond);
  agr_call_destroy(call);
  agr_policy_destroy(policy);
  end_parts(&parts);
  end_parts(&others);
  agr_store_destroy(store);
  agr_store_destroy(slow);
}

int main(void) {
  start_server(&server);
  for (int32_t on_error = AGR_STORE_REFUSE; on_error <= AGR_STORE_LOCAL; ++on_error) {
    const char key[] = {'j', (char)('0' + on_error), 0};
    kill(server.pid, SIGSTOP);
    a_call_begins(on_error);
    kill(server.pid, SIGCONT);
    a_call_ends(on_error);
    a_joined_call(on_error, key);
  }
  end_server(&server);
  a_driver_is_told_what_is_left();
  haste_says_nothing_of_the_store();
  what_was_begun_is_given_back();
  return finish();
}
