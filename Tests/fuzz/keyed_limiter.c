/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = i64(&in);
  config.refill_tokens = i64(&in);
  config.refill_interval_ns = i64(&in) * 1000;
  config.max_keys = u8(&in) > 250 ? u32(&in) % 100000 : u8(&in);
  config.max_reservations = u8(&in) % 8;
  config.when_full = u8(&in) % 3;
  config.max_key_bytes = u8(&in);
  config.seed = 1;
  int64_t now = 0;
  agr_keyed_limiter *limiter = NULL;
  agr_status status = agr_keyed_limiter_create(&config, &limiter, &error);
  check_status(status, &error);
  if (status != AGR_OK) {
    HOLDS(!limiter);
    return 0;
  }
  uint64_t permits[8] = {0};
  while (in.size > 0) {
    uint8_t op = u8(&in), slot = u8(&in) % 8, key = u8(&in) % 64;
    int64_t tokens = i64(&in), number = -7;
    clock_step(&in, &now);
    agr_reservation reservation;
    switch (op % 5) {
      case 0: case 1:
        status = agr_keyed_limiter_try_acquire_at(limiter, &key, key % 2, tokens, now, &number, &error);
        if (status == AGR_LIMITED) HOLDS(number > 0);
        break;
      case 2:
        status = agr_keyed_limiter_reserve_at(limiter, &key, 1, tokens, i64(&in), now, &reservation,
                                              &number, &error);
        if (status == AGR_OK) permits[slot] = reservation.permit;
        break;
      case 3:
        status = agr_keyed_limiter_settle_at(limiter, permits[slot], tokens, now, &error);
        if (status == AGR_OK)
          HOLDS(agr_keyed_limiter_settle_at(limiter, permits[slot], 0, now, NULL) == AGR_STALE);
        break;
      default: {
        status = agr_keyed_limiter_available_at(limiter, &key, 1, now, &number, &error);
        if (status == AGR_OK) HOLDS(number <= config.capacity);
        agr_keyed_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
        if (agr_keyed_limiter_snapshot_read_at(limiter, now, &snapshot, NULL) == AGR_OK)
          HOLDS(snapshot.busy_keys <= snapshot.slots && snapshot.busy_keys <= 65);
      }
    }
    check_status(status, &error);
  }
  agr_keyed_limiter_destroy(limiter);
  return 0;
}
