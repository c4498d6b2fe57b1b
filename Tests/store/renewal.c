/* SPDX-License-Identifier: Apache-2.0
 * The lease of a policy's key, when the store does not answer to its renewal: it lasts as long as it did, is asked for
 * again, and is lost when its time has passed. The clock is the test's own. */
#define _GNU_SOURCE
#include <time.h>

#include "../c/check.h"
#include "stub.h"

static const int64_t second = 1000000000, millisecond = 1000000;
static agr_error error;
static agr_step step;
static struct stub stub;
static agr_status renewal;
static int renewals;
static int64_t renewed_for, now;
static long slowness; /* of the driver, in nanoseconds */

static agr_status renew(void *self, const agr_store_key *key, uint64_t fence, int64_t lease_ns, int64_t ttl_ns,
                        int64_t timeout_ns, agr_error *why) {
  (void)self, (void)key, (void)fence, (void)ttl_ns, (void)timeout_ns, (void)why;
  ++renewals;
  nanosleep(&(struct timespec){.tv_nsec = slowness}, NULL);
  renewed_for = lease_ns;
  return renewal;
}

/* Calls last a minute; attempts are `delay` apart. */
static agr_policy *policy_of(int32_t on_error, int64_t lease, int64_t delay) {
  static agr_store_api api;
  agr_store *store = NULL;
  agr_store_config limits;
  agr_idempotency_config keys;
  agr_store_options options;
  agr_retry_config retry;
  agr_policy_config config;
  agr_policy *policy = NULL;
  api = stub_api;
  api.renew = renew;
  const agr_store_driver driver = {&api, &stub};
  agr_store_config_init(&limits, sizeof limits);
  agr_idempotency_config_init(&keys, sizeof keys);
  agr_store_options_init(&options, sizeof options);
  agr_retry_config_init(&retry, sizeof retry);
  agr_policy_config_init(&config, sizeof config);
  limits.max_failures = 0;
  options.on_error = on_error;
  keys.lease_ns = lease;
  retry.backoff.max_attempts = 5;
  retry.backoff.jitter = AGR_JITTER_NONE;
  retry.backoff.base_delay_ns = retry.backoff.max_delay_ns = delay;
  config.retry = &retry;
  config.total_timeout_ns = 60 * second;
  stub = (struct stub){.answer = AGR_OK};
  renewals = 0;
  renewal = AGR_ERR_STORE;
  now = agr_now_ns();
  CHECK(agr_store_create(&driver, &limits, &store, &error) == AGR_OK);
  CHECK(agr_idempotency_create_in_store(store, "keys", &keys, &options, &config.idempotency, &error) == AGR_OK);
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  agr_idempotency_destroy(config.idempotency);
  agr_store_destroy(store);
  return policy;
}

static agr_policy *policy_with(int32_t on_error, int64_t delay) { return policy_of(on_error, 10 * second, delay); }

static agr_call *begin(agr_policy *policy) {
  agr_request request;
  agr_call *call = NULL;
  agr_request_init(&request, sizeof request);
  request.key = "k";
  request.key_length = 1;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_call_begin_at(policy, &request, now, &call, &step, &error) == AGR_OK);
  return call;
}

static void fail_at(agr_call *call, int64_t later) {
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.attempt_id = step.attempt_id;
  outcome.error_class = AGR_CLASS_TRANSIENT;
  CHECK(agr_call_advance_at(call, &outcome, now += later, &step, &error) == AGR_OK);
}

/* The store's answers have taken real time, by which the call is ahead of the test's clock: it is a rest of the wait. */
static void go_on_at(agr_call *call, int64_t later) {
  for (int64_t rest = later; rest;) {
    CHECK(agr_call_advance_at(call, NULL, now += rest, &step, &error) == AGR_OK);
    rest = step.kind == AGR_STEP_WAIT && step.wait_ns < 300 * millisecond ? step.wait_ns : 0;
  }
}

static int is_about(int64_t time, int64_t wanted) {
  return time < wanted + 700 * millisecond && time > wanted - 700 * millisecond;
}

/* An attempt is made while the lease lasts, and each asks again, until there is an answer. */
static void it_is_asked_for_again(int32_t on_error) {
  agr_policy *policy = policy_with(on_error, second);
  agr_call *call = begin(policy);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.fence > 0);
  int before = renewals;
  CHECK(before > 0);
  fail_at(call, 2 * second);
  CHECK(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_BACKOFF && is_about(step.wait_ns, second));
  CHECK(renewals > before);
  before = renewals;
  renewal = AGR_OK;
  go_on_at(call, second);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.attempt == 2);
  CHECK_EQUAL(renewals, before + 1, "asked until there is an answer");
  CHECK(is_about(renewed_for, 57 * second));
  /* It lasts until the deadline now. */
  fail_at(call, 40 * second);
  go_on_at(call, second);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.attempt == 3);
  CHECK_EQUAL(renewals, before + 1, "it has been renewed");
  agr_call_destroy_at(call, now);
  agr_policy_destroy(policy);
}

/* A wait that is longer than the lease is cut, so that it is asked for before its end. */
static void within_a_wait(int32_t on_error) {
  agr_policy *policy = policy_with(on_error, 20 * second);
  agr_call *call = begin(policy);
  fail_at(call, 2 * second);
  CHECK(step.kind == AGR_STEP_WAIT && is_about(step.wait_ns, 4 * second));
  int before = renewals;
  /* Whoever comes early asks nobody. */
  go_on_at(call, second);
  CHECK(step.kind == AGR_STEP_WAIT && is_about(step.wait_ns, 3 * second));
  CHECK_EQUAL(renewals, before, "early");
  go_on_at(call, step.wait_ns);
  CHECK(step.kind == AGR_STEP_WAIT && is_about(step.wait_ns, 2 * second) && renewals > before);
  before = renewals;
  renewal = AGR_OK;
  go_on_at(call, step.wait_ns);
  /* With an answer the rest of the wait is one. */
  CHECK_EQUAL(renewals, before + 1, "answered");
  CHECK(step.kind == AGR_STEP_WAIT && is_about(step.wait_ns, 14 * second));
  go_on_at(call, step.wait_ns);
  CHECK(step.kind == AGR_STEP_ATTEMPT && step.attempt == 2);
  agr_call_destroy_at(call, now);
  agr_policy_destroy(policy);
}

/* When its time has passed without an answer, another may have it. */
static void its_time_passes(int32_t on_error) {
  agr_policy *policy = policy_with(on_error, 20 * second);
  const int64_t start = now;
  agr_call *call = begin(policy);
  fail_at(call, 2 * second);
  int waits = 0;
  while (step.kind == AGR_STEP_WAIT && ++waits < 100) {
    const int before = renewals;
    go_on_at(call, step.wait_ns);
    CHECK(renewals > before || step.kind == AGR_STEP_DONE);
  }
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LEASE_LOST);
  CHECK(now >= start + 9 * second && now <= start + 11 * second);
  CHECK(waits >= 3 && waits < 100);
  agr_call_destroy_at(call, now);
  agr_policy_destroy(policy);
}

/* That it is another's needs no second answer. */
static void it_is_anothers(int32_t on_error) {
  agr_policy *policy = policy_with(on_error, second);
  agr_call *call = begin(policy);
  renewal = AGR_STALE;
  fail_at(call, second);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LEASE_LOST);
  agr_call_destroy_at(call, now);
  agr_policy_destroy(policy);
}

/* The time that the store took to say nothing is the lease's. */
static void it_ends_while_the_store_is_asked(int32_t on_error) {
  agr_policy *policy = policy_of(on_error, 20 * millisecond, second);
  slowness = 40 * millisecond;
  agr_call *call = begin(policy);
  slowness = 0;
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LEASE_LOST && renewals > 0);
  agr_call_destroy(call);
  agr_policy_destroy(policy);
}

/* And of the call's: there is no wait beyond its deadline, whether one begins or goes on. */
static void it_takes_what_is_left_for_a_wait(int32_t on_error, int begins) {
  agr_policy *policy = policy_with(on_error, 57 * second + 500 * millisecond);
  agr_call *call = begin(policy);
  slowness = begins ? 600 * millisecond : 0;
  fail_at(call, 2 * second);
  if (!begins) {
    CHECK(step.kind == AGR_STEP_WAIT && is_about(step.wait_ns, 4 * second));
    slowness = 600 * millisecond;
    renewal = AGR_OK;
    const int before = renewals;
    go_on_at(call, step.wait_ns);
    CHECK(renewals > before);
    CHECK(step.kind == AGR_STEP_WAIT && step.wait_ns <= step.remaining_ns);
  } else {
    CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE);
  }
  slowness = 0;
  agr_call_destroy(call);
  agr_policy_destroy(policy);
}

int main(void) {
  for (int32_t on_error = AGR_STORE_REFUSE; on_error <= AGR_STORE_LOCAL; ++on_error) {
    it_is_asked_for_again(on_error);
    within_a_wait(on_error);
    its_time_passes(on_error);
    it_is_anothers(on_error);
    it_ends_while_the_store_is_asked(on_error);
    it_takes_what_is_left_for_a_wait(on_error, 1);
    it_takes_what_is_left_for_a_wait(on_error, 0);
  }
  return finish();
}
