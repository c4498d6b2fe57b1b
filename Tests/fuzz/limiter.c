/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  /* In as much memory as a structure may claim to have. */
  static union { agr_limiter_config config; char room[4096]; } space;
  memset(&space, 0, sizeof space);
  agr_limiter_config *config = &space.config;
  agr_limiter_config_init(config, sizeof *config);
  config->capacity = i64(&in);
  config->refill_tokens = i64(&in);
  config->refill_interval_ns = i64(&in) * 1000;
  config->initial_tokens = u8(&in) < 200 ? -1 : i64(&in);
  config->max_debt_tokens = u8(&in) < 100 ? -1 : i64(&in);
  config->max_reservations = u8(&in) % 8;
  if (u8(&in) > 200) config->reservation_timeout_ns = i64(&in);
  config->observe = u8(&in) > 250;
  spoil(&in, &config->struct_size);
  int64_t now = 0, number;
  agr_limiter *limiter = NULL;
  agr_status status = agr_limiter_create_at(config, now, &limiter, &error);
  check_status(status, &error);
  if (status != AGR_OK) {
    HOLDS(!limiter);
    return 0;
  }
  uint64_t permits[8] = {0};
  while (in.size > 0) {
    uint8_t op = u8(&in), slot = u8(&in) % 8;
    int64_t tokens = i64(&in);
    clock_step(&in, &now);
    agr_reservation reservation;
    number = -7;
    switch (op % 8) {
      case 0: case 1:
        status = agr_limiter_try_acquire_at(limiter, tokens, now, &number, &error);
        if (status == AGR_LIMITED) HOLDS(number > 0);
        if (status == AGR_OK) HOLDS(number == 0);
        break;
      case 2:
        status = agr_limiter_reserve_at(limiter, tokens, i64(&in), now, &reservation, &number, &error);
        if (status == AGR_OK) {
          HOLDS(reservation.permit != 0 && reservation.wait_ns >= 0);
          permits[slot] = reservation.permit;
        } else {
          HOLDS(status == AGR_ERR_ARGUMENT || reservation.permit == 0);
        }
        break;
      case 3:
        status = agr_limiter_cancel_at(limiter, permits[slot], now, &error);
        if (status == AGR_OK) HOLDS(agr_limiter_cancel_at(limiter, permits[slot], now, NULL) == AGR_STALE);
        break;
      case 4:
        status = agr_limiter_settle_at(limiter, permits[slot], tokens, now, &error);
        if (status == AGR_OK) HOLDS(agr_limiter_settle_at(limiter, permits[slot], 0, now, NULL) == AGR_STALE);
        break;
      case 5: {
        agr_limiter_config next = *config;
        next.struct_size = sizeof next;
        next.capacity = i64(&in);
        next.refill_tokens = i64(&in);
        next.refill_interval_ns = i64(&in) * 1000;
        status = agr_limiter_reconfigure_at(limiter, &next, now, &error);
        break;
      }
      case 6: {
        agr_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
        status = agr_limiter_snapshot_read_at(limiter, now, &snapshot, &error);
        if (status == AGR_OK) {
          HOLDS(snapshot.available <= snapshot.capacity);
          HOLDS(snapshot.open_reservations <= config->max_reservations);
        }
        break;
      }
      default:
        /* What is taken is gone: never twice the same tokens at the same instant. */
        status = agr_limiter_available_at(limiter, now, &number, &error);
        if (status == AGR_OK && number >= 0 && !config->observe) {
          int64_t after = 0;
          HOLDS(agr_limiter_try_acquire_at(limiter, number, now, NULL, NULL) == AGR_OK);
          HOLDS(agr_limiter_available_at(limiter, now, &after, NULL) == AGR_OK && after == 0);
        }
    }
    check_status(status, &error);
  }
  agr_limiter_destroy(limiter);
  return 0;
}
