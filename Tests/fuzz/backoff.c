/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  /* In as much memory as a structure may claim to have. */
  static union { agr_retry_config config; char room[4096]; } space;
  memset(&space, 0, sizeof space);
  agr_retry_config *config = &space.config;
  agr_retry_config_init(config, sizeof *config);
  config->backoff.strategy = u8(&in) % 8;
  config->backoff.jitter = u8(&in) % 6;
  config->backoff.max_attempts = u8(&in) % 4 ? 0 : u32(&in);
  config->backoff.base_delay_ns = i64(&in);
  config->backoff.max_delay_ns = i64(&in);
  config->backoff.min_delay_ns = i64(&in);
  config->backoff.multiplier = real(&in);
  config->backoff.jitter_ratio = real(&in);
  config->temporary_delay_ns = i64(&in);
  config->max_server_delay_ns = i64(&in);
  config->server_delay_spread_ns = i64(&in);
  config->retry_unknown = u8(&in) % 3;
  agr_retry_rule rules[4], rule;
  for (int i = 0; i < 4; ++i) {
    memset(&rules[i], 0, sizeof rules[i]);
    rules[i].domain = u8(&in) % 5;
    rules[i].code_min = (int32_t)i64(&in);
    rules[i].code_max = (int32_t)i64(&in);
    rules[i].error_class = u8(&in) % 8;
    rules[i].max_retries = u32(&in);
    rules[i].first_delay_ns = i64(&in);
  }
  config->rules = rules;
  config->rule_count = u8(&in) % 5;
  spoil(&in, &config->struct_size);
  int64_t delay = -1, previous = i64(&in), hint = i64(&in);
  uint32_t attempt = u32(&in);
  uint64_t random = take(&in, 8);
  agr_status status = agr_backoff_delay(&config->backoff, attempt, previous, random, &delay, &error);
  check_status(status, &error);
  if (status == AGR_OK) HOLDS(delay >= 0 && delay <= config->backoff.max_delay_ns);
  status = agr_backoff_adapt(&config->backoff, previous, u8(&in) % 6, i64(&in), &delay, &error);
  check_status(status, &error);
  if (status == AGR_OK) HOLDS(delay >= config->backoff.min_delay_ns && delay <= config->backoff.max_delay_ns);
  status = agr_retry_classify(config, u8(&in) % 5, (int32_t)i64(&in), &rule, &error);
  check_status(status, &error);
  status = agr_retry_decide(config, attempt, u32(&in), &rules[0], u8(&in) % 3, previous, hint, random,
                            &delay, &error);
  check_status(status, &error);
  if (status == AGR_OK) {
    HOLDS(delay >= 0);
    if (hint >= 0) HOLDS(delay >= hint && delay - hint <= config->server_delay_spread_ns);
  }
  return 0;
}
