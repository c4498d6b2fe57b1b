/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

enum { CALLS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  uint8_t parts = u8(&in);
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.window = AGR_WINDOW_NONE;
  breaking.consecutive_failures = 1 + u8(&in) % 4;
  breaking.max_permits = 4;
  breaking.open_ns = 1 + (int64_t)u8(&in) * 1000000;
  agr_limiter_config limiting;
  agr_limiter_config_init(&limiting, sizeof limiting);
  limiting.capacity = 1 + u8(&in);
  limiting.refill_tokens = u8(&in);
  limiting.max_reservations = 4;
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  caching.max_entries = 4;
  caching.max_bytes = 256;
  caching.max_waiters = 4;
  caching.max_pins = 4;
  caching.on_failure = u8(&in) % 2;
  agr_retry_config retrying;
  agr_retry_config_init(&retrying, sizeof retrying);
  retrying.backoff.max_attempts = u8(&in) % 5;
  retrying.backoff.base_delay_ns = (int64_t)u8(&in) * 1000000;
  agr_retry_budget_config budgeting;
  agr_retry_budget_config_init(&budgeting, sizeof budgeting);
  if (parts & 1) HOLDS(agr_breaker_create(&breaking, &config.breaker, NULL) == AGR_OK);
  if (parts & 2) HOLDS(agr_limiter_create_at(&limiting, 0, &config.limiters[0], NULL) == AGR_OK);
  config.limiter_count = parts & 2 ? 1 : 0;
  if (parts & 4) HOLDS(agr_idempotency_create(&caching, &config.idempotency, NULL) == AGR_OK);
  if (parts & 8) config.retry = &retrying;
  if (parts & 16) HOLDS(agr_retry_budget_create_at(&budgeting, 0, &config.budget, NULL) == AGR_OK);
  config.retry_when_open = u8(&in) % 2;
  config.max_limiter_wait_ns = (int64_t)u8(&in) * 10000000;
  config.total_timeout_ns = u8(&in) < 200 ? (int64_t)u8(&in) * 100000000 : i64(&in);
  config.fallback = u8(&in) % 6;
  config.cached_entries = u8(&in) % 4;
  config.fallback_data = "sorry";
  config.fallback_length = 5;
  config.max_calls = CALLS - 1;
  config.observe = u8(&in) & 0xfc;
  config.off = u8(&in) > 128 ? u8(&in) & 0xfc : 0;
  config.seed = 1;
  agr_policy *policy = NULL;
  agr_status status = agr_policy_create(&config, &policy, &error);
  check_status(status, &error);
  int64_t now = 0;
  agr_call *calls[CALLS] = {NULL};
  agr_step steps[CALLS];
  while (status == AGR_OK && in.size > 0) {
    uint8_t op = u8(&in), slot = u8(&in) % CALLS;
    agr_status did = AGR_OK;
    clock_step(&in, &now);
    switch (op % 8) {
      case 0: case 1: {
        agr_call_destroy_at(calls[slot], now);
        calls[slot] = NULL;
        agr_request request;
        agr_request_init(&request, sizeof request);
        char key = (char)('a' + u8(&in) % 3);
        request.key = request.cache_key = &key;
        request.key_length = u8(&in) % 2;
        request.cache_key_length = u8(&in) % 2;
        request.costs[0] = i64(&in);
        if (u8(&in) > 200) request.deadline_ns = i64(&in);
        steps[slot].struct_size = sizeof steps[slot];
        did = agr_call_begin_at(policy, &request, now, &calls[slot], &steps[slot], &error);
        HOLDS((did == AGR_OK) == (calls[slot] != NULL));
        break;
      }
      case 2: case 3: case 4: {
        agr_outcome outcome;
        agr_outcome_init(&outcome, sizeof outcome);
        outcome.error_class = u8(&in) % 8;
        if (u8(&in) > 128) outcome.domain = u8(&in) % 5, outcome.code = (int32_t)(u8(&in) * 3);
        if (u8(&in) > 200) outcome.server_delay_ns = i64(&in);
        if (u8(&in) > 200) outcome.costs[0] = i64(&in);
        outcome.result = "result";
        outcome.result_length = u8(&in) % 7;
        did = agr_call_advance_at(calls[slot], &outcome, now, &steps[slot], &error);
        break;
      }
      case 5: did = agr_call_advance_at(calls[slot], NULL, now, &steps[slot], &error); break;
      case 6: did = agr_call_commit(calls[slot], &error); break;
      default: did = agr_policy_set_mode(policy, u8(&in) % 9, u8(&in) % 4, &error);
    }
    check_status(did, &error);
    if (calls[slot] && op % 8 <= 5 && did >= 0) {
      agr_step *step = &steps[slot];
      HOLDS(step->kind >= AGR_STEP_ATTEMPT && step->kind <= AGR_STEP_DONE);
      HOLDS(step->wait_ns >= 0 && step->wait_ns <= step->remaining_ns);
      HOLDS(step->kind != AGR_STEP_ATTEMPT || step->remaining_ns > 0);
      volatile char last = 0;
      for (size_t i = 0; i < step->result_length; ++i) last = ((const char *)step->result)[i];
      (void)last;
    }
  }
  if (status == AGR_OK) {
    for (int i = 0; i < CALLS; ++i) agr_call_destroy_at(calls[i], now);
    agr_policy_snapshot after = {.struct_size = sizeof after};
    HOLDS(agr_policy_snapshot_read(policy, &after, NULL) == AGR_OK && after.calls_alive == 0);
    /* Everything was given back. */
    agr_limiter_snapshot tokens = {.struct_size = sizeof tokens};
    if (parts & 2) {
      HOLDS(agr_limiter_snapshot_read_at(config.limiters[0], 0, &tokens, NULL) == AGR_OK);
      HOLDS(tokens.open_reservations == 0);
    }
    agr_idempotency_snapshot keys = {.struct_size = sizeof keys};
    if (parts & 4) {
      HOLDS(agr_idempotency_snapshot_read(config.idempotency, &keys, NULL) == AGR_OK);
      HOLDS(keys.waiters == 0 && keys.pins == 0);
    }
  }
  agr_policy_destroy(policy);
  agr_breaker_destroy(config.breaker);
  agr_limiter_destroy(config.limiters[0]);
  agr_idempotency_destroy(config.idempotency);
  agr_retry_budget_destroy(config.budget);
  return 0;
}
