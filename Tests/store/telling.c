/* SPDX-License-Identifier: Apache-2.0
 * A breaker that has opened, when nobody has the time to tell the store so: it refuses at once all the same, and a call
 * tries to tell from time to time, not each. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "stub.h"

static const int64_t millisecond = 1000000, second = 1000000000, hour = 3600 * 1000000000ll;
static agr_error error;
static agr_step step;
static agr_status answer;
static int told;

static agr_status set(void *self, const agr_store_key *key, const agr_store_breaker *desired, int64_t ttl_ns,
                      int64_t timeout_ns, agr_store_breaker *out_breaker, agr_error *why) {
  (void)self, (void)key, (void)desired, (void)ttl_ns, (void)timeout_ns, (void)out_breaker, (void)why;
  ++told;
  return answer;
}

static agr_call *begin(agr_policy *policy) {
  agr_call *call = NULL;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_call_begin(policy, NULL, &call, &step, &error) == AGR_OK);
  return call;
}

/* Calls have less time than the store. */
static agr_policy *opened(int64_t sync) {
  static agr_store_api api;
  static struct stub stub = {.answer = AGR_OK};
  agr_store *store = NULL;
  agr_store_config limits;
  agr_store_options options;
  agr_breaker_config breaker;
  agr_policy_config config;
  agr_policy *policy = NULL;
  agr_outcome outcome;
  api = stub_api;
  api.breaker_set = set;
  const agr_store_driver driver = {&api, &stub};
  agr_store_config_init(&limits, sizeof limits);
  agr_store_options_init(&options, sizeof options);
  agr_breaker_config_init(&breaker, sizeof breaker);
  agr_policy_config_init(&config, sizeof config);
  limits.timeout_ns = 600 * second;
  limits.max_failures = 0;
  options.sync_ns = sync;
  breaker.window = AGR_WINDOW_NONE;
  breaker.consecutive_failures = 1;
  breaker.open_ns = breaker.open_max_ns = hour;
  config.total_timeout_ns = 300 * second;
  CHECK(agr_store_create(&driver, &limits, &store, &error) == AGR_OK);
  CHECK(agr_breaker_create_in_store(store, "upstream", &breaker, &options, &config.breaker, &error) == AGR_OK);
  CHECK(agr_policy_create(&config, &policy, &error) == AGR_OK);
  agr_call *call = begin(policy);
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.attempt_id = step.attempt_id;
  outcome.error_class = AGR_CLASS_TRANSIENT;
  told = 0;
  answer = AGR_ERR_STORE;
  CHECK(agr_call_advance(call, &outcome, &step, &error) == AGR_OK && step.kind == AGR_STEP_DONE);
  CHECK_EQUAL(told, 1, "when it opens");
  agr_call_destroy(call);
  agr_breaker_destroy(config.breaker);
  agr_store_destroy(store);
  return policy;
}

static void is_refused(agr_policy *policy) {
  agr_call *call = begin(policy);
  CHECK(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_OPEN);
  agr_call_destroy(call);
}

int main(void) {
  agr_policy *policy = opened(hour);
  for (int i = 0; i < 10; ++i) is_refused(policy);
  CHECK_EQUAL(told, 1, "before it is time");
  agr_policy_destroy(policy);

  policy = opened(millisecond);
  const int64_t patience = agr_now_ns() + 60 * second;
  while (told < 3 && agr_now_ns() < patience) is_refused(policy);
  CHECK_EQUAL(told, 3, "until there is an answer");
  answer = AGR_OK;
  while (told < 4 && agr_now_ns() < patience) is_refused(policy);
  const int64_t later = agr_now_ns() + 3 * millisecond;
  while (agr_now_ns() < later) is_refused(policy);
  CHECK_EQUAL(told, 4, "and no more");
  agr_policy_destroy(policy);
  return finish();
}
