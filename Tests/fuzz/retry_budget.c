/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  config.min_per_second = u8(&in) > 250 ? u32(&in) : u8(&in);
  config.ratio = real(&in);
  config.quota = u8(&in) > 250 ? u32(&in) : u8(&in);
  config.initial = u8(&in);
  agr_retry_budget *budget = NULL;
  agr_status status = agr_retry_budget_create_at(&config, 0, &budget, &error);
  check_status(status, &error);
  if (status != AGR_OK) {
    HOLDS(!budget);
    return 0;
  }
  int64_t now = 0, number;
  while (in.size > 0) {
    uint8_t op = u8(&in);
    clock_step(&in, &now);
    number = -1;
    if (op % 3 == 0) {
      status = agr_retry_budget_withdraw_at(budget, u8(&in), now, &number, &error);
    } else if (op % 3 == 1) {
      status = agr_retry_budget_deposit_at(budget, u8(&in) > 250 ? u32(&in) : 1, now, &error);
    } else {
      status = agr_retry_budget_balance_at(budget, now, &number, &error);
      if (status == AGR_OK) HOLDS(number >= 0 && number <= INT64_C(1000) * config.quota);
    }
    check_status(status, &error);
  }
  agr_retry_budget_destroy(budget);
  return 0;
}
