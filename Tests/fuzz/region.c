/* SPDX-License-Identifier: Apache-2.0
 * A region with one of everything, in which words are overwritten between the calls, and which is opened again. */
#include "bytes.h"

#include <sys/mman.h>
#include <unistd.h>

enum { BYTES = 1 << 16 };

static agr_region *region;
static uint64_t *words, image[BYTES / 8];
static agr_limiter *limiter;
static agr_keyed_limiter *keyed;
static agr_breaker *breaker;
static agr_retry_budget *budget;

static void open_objects(int64_t now, int is_time) {
  agr_limiter_config limits;
  agr_limiter_config_init(&limits, sizeof limits);
  limits.capacity = 100;
  limits.refill_tokens = 10;
  limits.max_reservations = 4;
  agr_limiter_create_in_region_at(region, "l", &limits, now, &limiter, NULL);
  agr_keyed_limiter_config keys;
  agr_keyed_limiter_config_init(&keys, sizeof keys);
  keys.capacity = 100;
  keys.refill_tokens = 10;
  keys.max_keys = 16;
  keys.max_reservations = 4;
  agr_keyed_limiter_create_in_region(region, "k", &keys, &keyed, NULL);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.max_permits = 8;
  breaking.minimum_calls = 3;
  if (is_time) breaking.window = AGR_WINDOW_TIME;
  agr_breaker_create_in_region(region, is_time ? "t" : "b", &breaking, &breaker, NULL);
  agr_retry_budget_config saving;
  agr_retry_budget_config_init(&saving, sizeof saving);
  agr_retry_budget_create_in_region_at(region, "r", &saving, now, &budget, NULL);
}

static void destroy_objects(void) {
  agr_limiter_destroy(limiter);
  agr_keyed_limiter_destroy(keyed);
  agr_breaker_destroy(breaker);
  agr_retry_budget_destroy(budget);
  limiter = NULL;
  keyed = NULL;
  breaker = NULL;
  budget = NULL;
}

static void open_first(void) {
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = 8;
  HOLDS(agr_region_open(NULL, BYTES, &config, &region, NULL) == AGR_OK);
  int32_t fd;
  HOLDS(agr_region_fd(region, &fd, NULL) == AGR_OK);
  words = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  HOLDS(words != MAP_FAILED);
  memcpy(image, words, BYTES);
}

static void use(bytes *in, int64_t *now, uint64_t permits[4]) {
  agr_error error = {0};
  const uint8_t op = u8(in), slot = u8(in) % 4;
  int64_t number;
  agr_reservation reservation = {0};
  clock_step(in, now);
  agr_status status = AGR_OK;
  switch (op % 14) {
    case 0: status = agr_limiter_try_acquire_at(limiter, u8(in), *now, &number, &error); break;
    case 1:
      status = agr_limiter_reserve_at(limiter, u8(in), i64(in), *now, &reservation, &number, &error);
      permits[slot] = reservation.permit;
      break;
    case 2: status = agr_limiter_settle_at(limiter, permits[slot], u8(in), *now, &error); break;
    case 3: {
      agr_limiter_snapshot seen = {.struct_size = sizeof seen};
      status = agr_limiter_snapshot_read_at(limiter, *now, &seen, &error);
      break;
    }
    case 4: status = agr_keyed_limiter_try_acquire_at(keyed, &op, 1, u8(in), *now, &number, &error); break;
    case 5:
      status = agr_keyed_limiter_reserve_at(keyed, &op, 1, u8(in), i64(in), *now, &reservation, &number, &error);
      permits[slot] = reservation.permit;
      break;
    case 6: status = agr_keyed_limiter_settle_at(keyed, permits[slot], u8(in), *now, &error); break;
    case 7: {
      agr_keyed_limiter_snapshot seen = {.struct_size = sizeof seen};
      status = agr_keyed_limiter_snapshot_read_at(keyed, *now, &seen, &error);
      break;
    }
    case 8: status = agr_breaker_acquire_at(breaker, *now, &permits[slot], &number, &error); break;
    case 9: status = agr_breaker_report_at(breaker, permits[slot], u8(in) % 6, i64(in), *now, &error); break;
    case 10: {
      agr_breaker_snapshot seen = {.struct_size = sizeof seen};
      status = agr_breaker_snapshot_read_at(breaker, *now, &seen, &error);
      agr_breaker_event event = {.struct_size = sizeof event};
      uint64_t cursor = take(in, 8);
      for (int i = 0; i < 70 && agr_breaker_next_event(breaker, &cursor, &event, NULL, NULL) == AGR_OK;) ++i;
      break;
    }
    case 11: status = agr_retry_budget_withdraw_at(budget, u8(in), *now, &number, &error); break;
    case 12: status = agr_retry_budget_deposit_at(budget, u8(in), *now, &error); break;
    default: {
      agr_limiter_config next;
      agr_limiter_config_init(&next, sizeof next);
      next.capacity = 1 + u8(in);
      next.refill_tokens = u8(in);
      next.max_reservations = 4;
      status = agr_limiter_reconfigure_at(limiter, &next, *now, &error);
    }
  }
  check_status(status, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes in = {data, size};
  if (!region) open_first();
  memcpy(words, image, BYTES);
  int64_t now = 0;
  uint64_t permits[4] = {0};
  const int is_time = u8(&in) & 1;
  open_objects(0, is_time);
  while (in.size > 0) {
    const uint8_t kind = u8(&in);
    if (kind < 120) {
      use(&in, &now, permits);
    } else if (kind < 230) {
      /* Near the beginning of what was laid out last, or anywhere. */
      const uint64_t at = take(&in, 2) % (BYTES / 8);
      words[at] = kind < 150 ? words[at] + u8(&in) - 128 : kind < 190 ? (uint64_t)i64(&in) : take(&in, 8);
    } else if (kind < 250) {
      destroy_objects();
      open_objects(now, is_time);
    } else {
      uint64_t cursor = take(&in, 8);
      agr_region_object object = {.struct_size = sizeof object};
      while (agr_region_next_object(region, &cursor, &object, NULL) == AGR_OK)
        HOLDS(memchr(object.name, 0, sizeof object.name));
      agr_region_snapshot seen = {.struct_size = sizeof seen};
      agr_region_snapshot_read(region, &seen, NULL);
    }
  }
  destroy_objects();
  return 0;
}
