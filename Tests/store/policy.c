/* SPDX-License-Identifier: Apache-2.0
 * A policy whose parts are in a store: two stores on a redis-server are two processes, whose calls go through one
 * breaker, one set of buckets and one set of keys. */
#define _GNU_SOURCE
#include <string.h>

#include "../c/check.h"
#include "redis_store.h"

static const int64_t millisecond = 1000000, second = 1000000000, hour = 3600000000000;
static redis_server server;
static agr_error error;

/* A process's share of it. */
struct side {
  agr_store *store;
  agr_limiter *requests, *tokens;
  agr_breaker *breaker;
  agr_idempotency *keys;
  agr_policy *policy;
};

static agr_limiter *bucket(struct side *side, const char *name, int64_t capacity, int64_t interval, int32_t on_error) {
  agr_limiter_config config;
  agr_store_options options;
  agr_limiter *limiter = NULL;
  agr_limiter_config_init(&config, sizeof config);
  agr_store_options_init(&options, sizeof options);
  config.capacity = capacity;
  config.refill_tokens = 1;
  config.refill_interval_ns = interval;
  options.on_error = on_error;
  if (agr_limiter_create_in_store(side->store, name, &config, &options, &limiter, &error) != AGR_OK)
    give_up(error.message);
  return limiter;
}

static agr_policy_config policy_of(const struct side *side) {
  static agr_retry_config retry;
  agr_policy_config config;
  agr_retry_config_init(&retry, sizeof retry);
  retry.backoff.max_attempts = 2;
  retry.backoff.base_delay_ns = millisecond;
  retry.backoff.max_delay_ns = millisecond;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = side->keys;
  config.breaker = side->breaker;
  config.retry = &retry;
  config.limiters[0] = side->requests;
  config.limiters[1] = side->tokens;
  config.limiter_count = 2;
  config.total_timeout_ns = 20 * second;
  return config;
}

/* `on_error` is of the limiters and of the keys. */
static struct side make_side(int32_t on_error, int64_t interval, int64_t timeout) {
  struct side side = {.store = open_store(&server, timeout)};
  agr_breaker_config breaker;
  agr_idempotency_config keys;
  agr_store_options options;
  agr_breaker_config_init(&breaker, sizeof breaker);
  agr_idempotency_config_init(&keys, sizeof keys);
  agr_store_options_init(&options, sizeof options);
  breaker.window = AGR_WINDOW_NONE;
  breaker.consecutive_failures = 2;
  breaker.open_ns = breaker.open_max_ns = hour;
  options.sync_ns = millisecond;
  options.on_error = on_error;
  side.requests = bucket(&side, "requests", 100, hour, on_error);
  side.tokens = bucket(&side, "tokens", 1000, interval, on_error);
  if (agr_breaker_create_in_store(side.store, "upstream", &breaker, &options, &side.breaker, &error) != AGR_OK ||
      agr_idempotency_create_in_store(side.store, "keys", &keys, &options, &side.keys, &error) != AGR_OK)
    give_up(error.message);
  const agr_policy_config config = policy_of(&side);
  if (agr_policy_create(&config, &side.policy, &error) != AGR_OK) give_up(error.message);
  return side;
}

/* The policy has its parts for itself when nobody else has them. */
static void give_parts_up(struct side *side) {
  agr_limiter_destroy(side->tokens);
  agr_breaker_destroy(side->breaker);
  agr_idempotency_destroy(side->keys);
  agr_store_destroy(side->store);
}

static void end_side(struct side *side) {
  agr_policy_destroy(side->policy);
  agr_limiter_destroy(side->requests);
}

static int64_t left(const struct side *side) {
  int64_t tokens = -1;
  CHECK(agr_limiter_available(side->requests, &tokens, &error) == AGR_OK);
  return tokens;
}

static agr_step step;

static agr_call *begin(const struct side *side, const char *key, int64_t cost) {
  agr_call *call = NULL;
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = key;
  request.key_length = key ? strlen(key) : 0;
  request.fingerprint = "request";
  request.fingerprint_length = 7;
  request.costs[0] = 1;
  request.costs[1] = cost;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_call_begin(side->policy, &request, &call, &step, &error) == AGR_OK);
  return call;
}

static void advance(agr_call *call, int32_t error_class, const char *result, int64_t cost) {
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.attempt_id = step.attempt_id;
  outcome.error_class = error_class;
  outcome.costs[1] = cost;
  outcome.result = result;
  outcome.result_length = result ? strlen(result) : 0;
  CHECK(agr_call_advance(call, &outcome, &step, &error) == AGR_OK);
}

static void wait_out(agr_call *call) {
  CHECK(step.kind == AGR_STEP_WAIT || step.kind == AGR_STEP_JOIN);
  while (step.kind == AGR_STEP_WAIT || step.kind == AGR_STEP_JOIN) {
    const int64_t wait = step.wait_ns < 5 * millisecond ? step.wait_ns : 5 * millisecond;
    nanosleep(&(struct timespec){.tv_nsec = wait}, NULL);
    CHECK(agr_call_advance(call, NULL, &step, &error) == AGR_OK);
  }
}

static int replays(const char *what) {
  return step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_REPLAYED && step.result_length == strlen(what) &&
         !memcmp(step.result, what, step.result_length);
}

static uint64_t calls_of(const struct side *side) {
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_store_snapshot_read(side->store, &snapshot, &error) == AGR_OK);
  return snapshot.calls;
}

/* The key, the limiters, the result: an attempt within the lease renews nothing. The breaker looks from time to time. */
static void three_round_trips(struct side *side) {
  const uint64_t before = calls_of(side);
  agr_call *call = begin(side, "counted", 1);
  advance(call, AGR_CLASS_SUCCESS, "answer", 1);
  agr_call_destroy(call);
  const uint64_t calls = calls_of(side) - before;
  CHECK(calls >= 3 && calls <= 4);
}

/* A deadline beyond the lease: it is renewed, and another may not begin. */
static void a_lease_lasts_as_long_as_the_call(struct side *side) {
  agr_policy_config config = policy_of(side);
  agr_policy *policy = NULL;
  config.idempotency = side->keys;
  config.total_timeout_ns = hour;
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  struct side longer = *side;
  longer.policy = policy;
  const uint64_t before = calls_of(side);
  agr_call *call = begin(&longer, "long", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT && calls_of(side) - before >= 3);
  agr_call *other = begin(side, "long", 1);
  CHECK(step.kind == AGR_STEP_JOIN && step.wait_ns >= 19 * second);
  agr_call_destroy(other);
  agr_call_destroy(call);
  agr_policy_destroy(policy);
}

static void a_result_is_everybodys(struct side *one, struct side *two) {
  const int64_t before = left(one);
  agr_call *call = begin(one, "k", 100);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.fence > 0 && !step.outcome_unknown);
  CHECK_EQUAL(left(two), before - 1, "reserved");
  /* Another process joins, and is told when there is an answer. */
  agr_call *joined = begin(two, "k", 100);
  CHECK(step.kind == AGR_STEP_JOIN && step.reason == AGR_REASON_JOINED && step.wait_ns > 0);
  const agr_step joining = step;
  step.attempt_id = 0;
  CHECK(agr_call_advance(joined, NULL, &step, &error) == AGR_OK && step.kind == AGR_STEP_JOIN);
  advance(call, AGR_CLASS_SUCCESS, "answer", 40);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED);
  agr_call_destroy(call);
  step = joining;
  wait_out(joined);
  CHECK(replays("answer"));
  agr_call_destroy(joined);
  call = begin(two, "k", 100);
  CHECK(replays("answer"));
  agr_call_destroy(call);
  CHECK_EQUAL(left(one), before - 1, "a replay costs nothing");
}

static void what_is_abandoned_is_told_of(struct side *one, struct side *two) {
  const int64_t before = left(one);
  agr_call *call = begin(one, "lost", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  const uint64_t fence = step.fence;
  agr_call_destroy(call);
  CHECK_EQUAL(left(two), before, "the reservation of an abandoned call came back");
  call = begin(two, "lost", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.outcome_unknown && step.fence > fence);
  /* What has failed for sure may be tried again by anybody. */
  advance(call, AGR_CLASS_PERMANENT, NULL, 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_FAILED_PERMANENT);
  agr_call_destroy(call);
  call = begin(one, "lost", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  advance(call, AGR_CLASS_SUCCESS, "at last", 1);
  agr_call_destroy(call);
  call = begin(two, "lost", 1);
  CHECK(replays("at last"));
  agr_call_destroy(call);
}

static void costs_are_everybodys(struct side *one, struct side *two) {
  agr_call *call = begin(one, NULL, 900);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  agr_call *other = begin(two, NULL, 900);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LIMITED && step.component == AGR_COMPONENT_LIMITER);
  CHECK(step.retry_after_ns > 0);
  agr_call_destroy(other);
  /* Who was refused has begun nothing: the next to ask for the key is told nothing of it. */
  other = begin(two, "refused", 900);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LIMITED);
  agr_call_destroy(other);
  other = begin(one, "refused", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT && !step.outcome_unknown);
  advance(other, AGR_CLASS_SUCCESS, NULL, 0);
  agr_call_destroy(other);
  /* The real cost was less. */
  advance(call, AGR_CLASS_SUCCESS, NULL, 10);
  agr_call_destroy(call);
  other = begin(two, NULL, 900);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  agr_call_destroy(other);
  call = begin(one, NULL, 1001);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_NEVER_FITS);
  agr_call_destroy(call);
}

/* Of all attempts of a call the last fails: two failures, and the breaker is open for all. */
static void a_breaker_opens_for_all(struct side *one, struct side *two) {
  agr_call *call = begin(one, NULL, 1);
  advance(call, AGR_CLASS_TRANSIENT, NULL, 1);
  CHECK(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_BACKOFF);
  wait_out(call);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.attempt == 2);
  advance(call, AGR_CLASS_TRANSIENT, NULL, 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_ATTEMPTS_EXHAUSTED);
  agr_call_destroy(call);
  for (int tries = 0; tries < 5000; ++tries) {
    agr_call *other = begin(two, NULL, 1);
    const int is_open = step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_OPEN;
    agr_call_destroy(other);
    if (is_open) {
      CHECK(step.retry_after_ns > 0);
      return;
    }
    nanosleep(&(struct timespec){.tv_nsec = millisecond}, NULL);
  }
  CHECK(!"the other process's breaker opens");
}

static void a_wait_is_a_step(void) {
  struct side side = make_side(AGR_STORE_REFUSE, 10 * millisecond, 10 * second);
  agr_policy_config config = policy_of(&side);
  /* In a store, or not: all of them. */
  agr_limiter_config alone_config;
  agr_limiter *alone = NULL;
  agr_policy *policy = NULL;
  agr_limiter_config_init(&alone_config, sizeof alone_config);
  alone_config.capacity = alone_config.refill_tokens = 1;
  CHECK(agr_limiter_create(&alone_config, &alone, &error) == AGR_OK);
  config.idempotency = NULL;
  config.breaker = NULL;
  config.limiters[1] = alone;
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_ERR_ARGUMENT && !strcmp(error.field, "limiters"));
  config.limiters[1] = side.requests;
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_ERR_ARGUMENT && !strcmp(error.field, "limiters"));
  agr_limiter_destroy(alone);
  /* One, which leases: its calls after the first need no round trip. */
  agr_store *store = open_store(&server, 10 * second);
  agr_store_options options;
  agr_limiter_config one;
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  agr_store_options_init(&options, sizeof options);
  agr_limiter_config_init(&one, sizeof one);
  options.lease_tokens = 10;
  one.capacity = 20;
  one.refill_tokens = 1;
  one.refill_interval_ns = 20 * millisecond;
  CHECK(agr_limiter_create_in_store(store, "leased", &one, &options, &config.limiters[0], &error) == AGR_OK);
  config.limiter_count = 1;
  config.max_limiter_wait_ns = 10 * second;
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  agr_limiter_destroy(config.limiters[0]);
  struct side leased = {.policy = policy};
  uint64_t calls = 0;
  for (int i = 0; i < 10; ++i) {
    agr_call *call = begin(&leased, NULL, 1);
    CHECK(step.kind == AGR_STEP_ATTEMPT);
    advance(call, AGR_CLASS_SUCCESS, NULL, 1);
    agr_call_destroy(call);
    CHECK(agr_store_snapshot_read(store, &snapshot, &error) == AGR_OK);
    if (i == 0) calls = snapshot.calls;
  }
  CHECK_EQUAL(snapshot.calls, calls, "leased calls ask nobody");
  agr_call *call = NULL;
  for (int i = 0; i < 40 && (step.kind != AGR_STEP_WAIT || !call); ++i) {
    agr_call_destroy(call);
    call = begin(&leased, NULL, 1);
    if (step.kind == AGR_STEP_ATTEMPT) advance(call, AGR_CLASS_SUCCESS, NULL, 1);
  }
  CHECK(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_WAIT_LIMITER && step.wait_ns > 0);
  wait_out(call);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  agr_call_destroy(call);
  agr_policy_destroy(policy);
  agr_store_destroy(store);
  give_parts_up(&side);
  end_side(&side);
}

static void count_up(const agr_step *now, agr_outcome *outcome, void *count) {
  (void)now;
  ++*(int *)count;
  outcome->error_class = AGR_CLASS_SUCCESS;
  outcome->result = "done";
  outcome->result_length = 4;
}

static void executed_once(struct side *one, struct side *two) {
  int executed = 0;
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = "execute";
  request.key_length = 7;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_policy_execute(one->policy, &request, count_up, &executed, NULL, &step, &error) == AGR_OK);
  CHECK(agr_policy_execute(two->policy, &request, count_up, &executed, NULL, &step, &error) >= 0);
  CHECK_EQUAL(executed, 1, "executed");
}

static void without_the_store(void) {
  struct side refuses = make_side(AGR_STORE_REFUSE, hour, 50 * millisecond);
  struct side admits = make_side(AGR_STORE_ADMIT, hour, 50 * millisecond);
  agr_call *under_way = begin(&refuses, "under way", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  const agr_step attempt = step;
  kill(server.pid, SIGSTOP);
  agr_call *call = begin(&refuses, "later", 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_STORE && step.component == AGR_COMPONENT_IDEMPOTENCY);
  agr_call_destroy(call);
  call = begin(&refuses, NULL, 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_STORE && step.component == AGR_COMPONENT_LIMITER);
  CHECK(!strcmp(agr_reason_name(AGR_REASON_STORE), "store"));
  agr_call_destroy(call);
  /* A success is one. */
  step = attempt;
  advance(under_way, AGR_CLASS_SUCCESS, "done", 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED);
  agr_call_destroy(under_way);
  call = begin(&admits, "anyway", 1);
  CHECK(step.kind == AGR_STEP_ATTEMPT);
  advance(call, AGR_CLASS_SUCCESS, "done", 1);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED);
  agr_call_destroy(call);
  kill(server.pid, SIGCONT);
  give_parts_up(&refuses);
  give_parts_up(&admits);
  end_side(&refuses);
  end_side(&admits);
}

int main(void) {
  start_server(&server);
  struct side one = make_side(AGR_STORE_REFUSE, hour, 10 * second), two = make_side(AGR_STORE_REFUSE, hour, 10 * second);
  a_result_is_everybodys(&one, &two);
  three_round_trips(&one);
  a_lease_lasts_as_long_as_the_call(&one);
  give_parts_up(&one);
  give_parts_up(&two);
  what_is_abandoned_is_told_of(&one, &two);
  executed_once(&one, &two);
  costs_are_everybodys(&one, &two);
  a_wait_is_a_step();
  without_the_store();
  a_breaker_opens_for_all(&one, &two);
  end_side(&one);
  end_side(&two);
  end_server(&server);
  return finish();
}
