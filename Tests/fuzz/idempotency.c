/* SPDX-License-Identifier: Apache-2.0 */
#include "bytes.h"

enum { SLOTS = 16, KEYS = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  agr_error error;
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = u8(&in) % 10;
  config.max_bytes = u8(&in) * 4;
  config.max_key_bytes = u8(&in) % 32;
  config.max_waiters = u8(&in) % 6;
  config.max_pins = u8(&in) % 6;
  config.when_full = u8(&in) % 3;
  config.on_failure = u8(&in) % 3;
  config.ttl_ns = i64(&in) * 1000000;
  config.lease_ns = i64(&in) * 1000000;
  config.seed = 1;
  agr_idempotency *cache = NULL;
  agr_status status = agr_idempotency_create(&config, &cache, &error);
  check_status(status, &error);
  if (status != AGR_OK) {
    HOLDS(!cache);
    return 0;
  }
  int64_t now = 0;
  agr_lease leases[SLOTS] = {{0}};
  uint64_t tickets[SLOTS] = {0}, pins[SLOTS] = {0}, fence = 0;
  while (in.size > 0) {
    uint8_t op = u8(&in), slot = u8(&in) % SLOTS;
    char key[32] = "key", body[64] = {0};
    key[0] = (char)('a' + u8(&in) % KEYS);
    clock_step(&in, &now);
    agr_lease lease = {0};
    agr_result result = {0};
    uint64_t ticket = 0;
    int32_t state;
    switch (op % 10) {
      case 0:
        status = agr_idempotency_begin_at(cache, key, 1 + u8(&in) % 3, key, u8(&in) % 3, now, &lease,
                                          &result, &error);
        break;
      case 1:
        status = agr_idempotency_join_at(cache, key, 1, NULL, 0, now, &ticket, &lease, &result, &error);
        if (status == AGR_IN_PROGRESS) tickets[slot] = ticket;
        break;
      case 2:
        status = agr_idempotency_poll_at(cache, tickets[slot], now, &lease, &result, &error);
        break;
      case 3:
        status = agr_idempotency_complete_at(cache, leases[slot].id, body, u8(&in) % 64, now, &error);
        if (status == AGR_OK)
          HOLDS(agr_idempotency_complete_at(cache, leases[slot].id, body, 1, now, NULL) == AGR_STALE);
        break;
      case 4: status = agr_idempotency_fail_at(cache, leases[slot].id, body, u8(&in) % 64, now, &error); break;
      case 5: status = agr_idempotency_abandon_at(cache, leases[slot].id, now, &error); break;
      case 6: status = agr_idempotency_renew_at(cache, leases[slot].id, i64(&in), now, &error); break;
      case 7: status = agr_idempotency_leave_at(cache, tickets[slot], now, &error); break;
      case 8:
        status = agr_idempotency_release(cache, pins[slot], &error);
        if (status == AGR_OK) HOLDS(agr_idempotency_release(cache, pins[slot], NULL) == AGR_STALE);
        break;
      default: status = agr_idempotency_state_at(cache, key, 1, now, &state, &error);
    }
    check_status(status, &error);
    if (op % 10 <= 2 && status == AGR_OK) {
      HOLDS(lease.id != 0 && lease.fence > fence);
      fence = lease.fence;
      leases[slot] = lease;
    }
    if (op % 10 <= 2 && status == AGR_REPLAY) {
      HOLDS(result.data && result.pin);
      volatile char last = 0;
      for (size_t i = 0; i < result.length; ++i) last = ((const char *)result.data)[i];
      (void)last;
      if (agr_idempotency_release(cache, pins[slot], NULL) < 0) abort();
      pins[slot] = result.pin;
    }
    agr_idempotency_snapshot snapshot = {.struct_size = sizeof snapshot};
    HOLDS(agr_idempotency_snapshot_read(cache, &snapshot, NULL) == AGR_OK);
    HOLDS(snapshot.entries <= config.max_entries && snapshot.bytes <= config.max_bytes);
    HOLDS(snapshot.waiters <= config.max_waiters && snapshot.pins <= config.max_pins);
  }
  agr_idempotency_destroy(cache);
  return 0;
}
