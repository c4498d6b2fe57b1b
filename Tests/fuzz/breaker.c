/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.consecutive_failures = u8(&in) % 8;
  config.window = u8(&in) % 4;
  config.window_calls = 1 + u8(&in) % 40;
  config.window_ns = i64(&in) * 1000;
  config.minimum_calls = u8(&in) % 12;
  config.half_open_permits = u8(&in) % 6;
  config.half_open_successes = u8(&in) % 6;
  config.max_permits = 1 + u8(&in) % 16;
  config.failure_rate = real(&in);
  config.slow_rate = real(&in);
  config.slow_call_ns = i64(&in);
  config.open_ns = i64(&in) * 1000;
  config.open_growth = real(&in);
  config.open_jitter = real(&in);
  if (u8(&in) > 128) config.permit_timeout_ns = i64(&in) * 1000;
  config.backpressure_fails = u8(&in) % 2;
  config.mode = u8(&in) % 6;
  config.seed = 1;
  agr_breaker *breaker = NULL;
  agr_status status = agr_breaker_create(&config, &breaker, &error);
  check_status(status, &error);
  if (status != AGR_OK) {
    HOLDS(!breaker);
    return 0;
  }
  int64_t now = 0, number;
  uint64_t permits[16] = {0}, cursor = 0;
  while (in.size > 0) {
    uint8_t op = u8(&in), slot = u8(&in) % 16;
    clock_step(&in, &now);
    agr_breaker_snapshot before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    int seen = agr_breaker_snapshot_read_at(breaker, now, &before, NULL) == AGR_OK;
    switch (op % 6) {
      case 0: case 1:
        status = agr_breaker_acquire_at(breaker, now, &permits[slot], &number, &error);
        if (status == AGR_OPEN) HOLDS(permits[slot] == 0 && number >= 0);
        if (status == AGR_OK) HOLDS(permits[slot] != 0);
        break;
      case 2: case 3:
        status = agr_breaker_report_at(breaker, permits[slot], u8(&in) % 6, i64(&in), now, &error);
        if (status == AGR_OK)
          HOLDS(agr_breaker_report_at(breaker, permits[slot], AGR_OUTCOME_FAILURE, 0, now, NULL) == AGR_STALE);
        if (status == AGR_STALE && seen &&
            agr_breaker_snapshot_read_at(breaker, now, &after, NULL) == AGR_OK)
          HOLDS(after.generation == before.generation && after.window_total == before.window_total);
        break;
      case 4: status = agr_breaker_force_at(breaker, u8(&in) % 6, now, &error); break;
      default: {
        agr_breaker_event event = {.struct_size = sizeof event};
        uint64_t lost;
        status = agr_breaker_next_event(breaker, &cursor, &event, &lost, &error);
      }
    }
    check_status(status, &error);
    if (agr_breaker_snapshot_read_at(breaker, now, &after, NULL) == AGR_OK) {
      HOLDS(after.window_failures <= after.window_total && after.window_slow <= after.window_total);
      HOLDS(after.half_open_in_flight <= config.half_open_permits);
      HOLDS(after.retry_after_ns >= 0 && after.state_age_ns >= 0);
      HOLDS(!seen || after.generation >= before.generation);
    }
  }
  agr_breaker_destroy(breaker);
  return 0;
}
