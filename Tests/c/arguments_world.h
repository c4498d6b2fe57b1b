/* SPDX-License-Identifier: Apache-2.0
 * One of everything, in use: what a good call of any function needs. */
#ifndef ARGUMENTS_WORLD_H
#define ARGUMENTS_WORLD_H

#include <autoglm_reliability.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../store/stub.h"
#include "check.h"

struct world {
  int64_t now;
  agr_limiter *limiter, *other_limiter;
  agr_keyed_limiter *keyed;
  agr_breaker *breaker;
  agr_retry_budget *budget;
  agr_idempotency *cache;
  agr_store *store;
  agr_region *region;
  agr_lock *lock;
  agr_lock_hold hold;
  agr_idempotency *durable; /* a cache in the store */
  agr_policy *policy;
  agr_call *call; /* its attempt is under way */
  uint64_t reservation, keyed_reservation, permit;
  uint64_t durable_lease, lease, open_ticket, answered_ticket, pin;
};

static const char KEY[] = "120     "; /* a key, and a hint */
enum { KEY_LENGTH = 8 };

#define MUST(call) CHECK_EQUAL(call, AGR_OK, "world")

static void limiter_config(agr_limiter_config *config) {
  agr_limiter_config_init(config, sizeof *config);
  config->capacity = 1000;
  config->refill_tokens = 10;
  config->max_reservations = 8;
}

static void keyed_config(agr_keyed_limiter_config *config) {
  agr_keyed_limiter_config_init(config, sizeof *config);
  config->capacity = 1000;
  config->refill_tokens = 10;
  config->max_keys = 8;
  config->max_reservations = 8;
  config->max_key_bytes = 64;
  config->seed = 1;
}

static void breaker_config(agr_breaker_config *config) {
  agr_breaker_config_init(config, sizeof *config);
  config->window_calls = 20;
  config->max_permits = 8;
}

static void cache_config(agr_idempotency_config *config) {
  agr_idempotency_config_init(config, sizeof *config);
  config->max_entries = 16;
  config->max_bytes = 4096;
  config->max_key_bytes = 64;
  config->max_waiters = 8;
  config->max_pins = 8;
}

/* Waits of a nanosecond, for the function that sleeps. */
static void retry_config(agr_retry_config *config) {
  agr_retry_config_init(config, sizeof *config);
  config->backoff.max_attempts = 2;
  config->backoff.base_delay_ns = config->backoff.max_delay_ns = config->backoff.min_delay_ns = 1;
  config->temporary_delay_ns = config->server_delay_spread_ns = 1;
}

static void policy_config(agr_policy_config *config, const struct world *world,
                          const agr_retry_config *retry) {
  agr_policy_config_init(config, sizeof *config);
  config->max_calls = 8;
  config->idempotency = world->cache;
  config->breaker = world->breaker;
  config->budget = world->budget;
  config->retry = retry;
  config->limiters[0] = world->limiter;
  config->limiter_count = 1;
  config->event_capacity = 16;
  config->cached_entries = 4;
  config->fallback_data = KEY;
  config->fallback_length = KEY_LENGTH;
}

static void make_parts(struct world *world) {
  agr_limiter_config limiter;
  limiter_config(&limiter);
  MUST(agr_limiter_create_at(&limiter, world->now, &world->limiter, NULL));
  MUST(agr_limiter_create_at(&limiter, world->now, &world->other_limiter, NULL));
  agr_keyed_limiter_config keyed;
  keyed_config(&keyed);
  MUST(agr_keyed_limiter_create(&keyed, &world->keyed, NULL));
  agr_breaker_config breaker;
  breaker_config(&breaker);
  MUST(agr_breaker_create(&breaker, &world->breaker, NULL));
  agr_retry_budget_config budget;
  agr_retry_budget_config_init(&budget, sizeof budget);
  MUST(agr_retry_budget_create_at(&budget, world->now, &world->budget, NULL));
  agr_idempotency_config cache;
  cache_config(&cache);
  MUST(agr_idempotency_create(&cache, &world->cache, NULL));
}

static void make_store(struct world *world) {
  const agr_store_driver driver = {&stub_api, NULL};
  MUST(agr_store_create(&driver, NULL, &world->store, NULL));
  agr_idempotency_config cache;
  cache_config(&cache);
  MUST(agr_idempotency_create_in_store(world->store, "test", &cache, NULL, &world->durable, NULL));
  agr_lease lease;
  agr_result result;
  MUST(agr_idempotency_begin(world->durable, "run", 3, NULL, 0, &lease, &result, NULL));
  world->durable_lease = lease.id;
  MUST(agr_lock_create_in_store(world->store, "test", NULL, NULL, &world->lock, NULL));
  MUST(agr_lock_try_acquire(world->lock, KEY, KEY_LENGTH, &world->hold, NULL, NULL));
}

/* The name of a region of this process alone. */
static inline const char *region_name(void) {
  static char name[32];
  snprintf(name, sizeof name, "arguments-%d", (int)getpid());
  return name;
}

static void make_region(struct world *world) {
  MUST(agr_region_open(NULL, 1 << 17, NULL, &world->region, NULL));
}

/* Permits, a lease, tickets with and without an answer, a pin. */
static void use_parts(struct world *world) {
  agr_reservation reservation;
  MUST(agr_limiter_reserve_at(world->limiter, 1, 0, world->now, &reservation, NULL, NULL));
  world->reservation = reservation.permit;
  MUST(agr_keyed_limiter_reserve_at(world->keyed, KEY, KEY_LENGTH, 1, 0, world->now, &reservation,
                                    NULL, NULL));
  world->keyed_reservation = reservation.permit;
  MUST(agr_breaker_acquire_at(world->breaker, world->now, &world->permit, NULL, NULL));

  agr_lease lease;
  agr_result result;
  uint64_t none;
  MUST(
      agr_idempotency_begin_at(world->cache, "run", 3, NULL, 0, world->now, &lease, &result, NULL));
  world->lease = lease.id;
  agr_idempotency_join_at(world->cache, "run", 3, NULL, 0, world->now, &world->open_ticket, &lease,
                          &result, NULL);
  MUST(agr_idempotency_join_at(world->cache, "ran", 3, NULL, 0, world->now, &none, &lease, &result,
                               NULL));
  const uint64_t ran = lease.id;
  agr_idempotency_join_at(world->cache, "ran", 3, NULL, 0, world->now, &world->answered_ticket,
                          &lease, &result, NULL);
  MUST(agr_idempotency_complete_at(world->cache, ran, KEY, KEY_LENGTH, world->now, NULL));
  agr_idempotency_begin_at(world->cache, "ran", 3, NULL, 0, world->now, &lease, &result, NULL);
  world->pin = result.pin;
  CHECK(world->permit && world->lease && world->open_ticket && world->answered_ticket &&
        world->pin);
}

static void world_make(struct world *world) {
  memset(world, 0, sizeof *world);
  world->now = agr_now_ns();
  make_parts(world);
  make_store(world);
  make_region(world);
  use_parts(world);
  agr_retry_config retry;
  agr_policy_config policy;
  retry_config(&retry);
  policy_config(&policy, world, &retry);
  MUST(agr_policy_create(&policy, &world->policy, NULL));
  /* One call that failed, for its events, and one that is under way. */
  agr_step step = {.struct_size = sizeof step};
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.domain = AGR_DOMAIN_HTTP;
  outcome.code = 400;
  agr_call *failed;
  MUST(agr_call_begin_at(world->policy, NULL, world->now, &failed, &step, NULL));
  MUST(agr_call_advance_at(failed, &outcome, world->now, &step, NULL));
  agr_call_destroy_at(failed, world->now);
  MUST(agr_call_begin_at(world->policy, NULL, world->now, &world->call, &step, NULL));
  CHECK_EQUAL(step.kind, AGR_STEP_ATTEMPT, "world");
}

/* Leaves nothing that could be destroyed once more. */
static void world_destroy(struct world *world) {
  agr_call_destroy(world->call);
  agr_policy_destroy(world->policy);
  agr_idempotency_destroy(world->cache);
  agr_retry_budget_destroy(world->budget);
  agr_breaker_destroy(world->breaker);
  agr_keyed_limiter_destroy(world->keyed);
  agr_idempotency_destroy(world->durable);
  agr_lock_destroy(world->lock);
  agr_store_destroy(world->store);
  agr_region_close(world->region);
  agr_limiter_destroy(world->other_limiter);
  agr_limiter_destroy(world->limiter);
  memset(world, 0, sizeof *world);
}

/* Every handle still answers; NULL for one that the call under test has destroyed. */
static int world_is_good(const struct world *world) {
  int64_t number;
  int32_t state;
  agr_policy_snapshot policy = {.struct_size = sizeof policy};
  agr_idempotency_snapshot cache = {.struct_size = sizeof cache};
  agr_store_snapshot store = {.struct_size = sizeof store};
  agr_region_snapshot region = {.struct_size = sizeof region};
  const agr_limiter *limiters[] = {world->limiter, world->other_limiter};
  for (int i = 0; i < 2; ++i) {
    if (limiters[i] && agr_limiter_available(limiters[i], &number, NULL) != AGR_OK) return 0;
  }
  return (!world->keyed ||
          agr_keyed_limiter_available(world->keyed, "", 0, &number, NULL) == AGR_OK) &&
         (!world->breaker || agr_breaker_state(world->breaker, &state, NULL) == AGR_OK) &&
         (!world->budget || agr_retry_budget_balance(world->budget, &number, NULL) == AGR_OK) &&
         (!world->cache || agr_idempotency_snapshot_read(world->cache, &cache, NULL) == AGR_OK) &&
         (!world->durable || agr_idempotency_snapshot_read(world->durable, &cache, NULL) == AGR_OK) &&
         (!world->store || agr_store_snapshot_read(world->store, &store, NULL) == AGR_OK) &&
         (!world->region || agr_region_snapshot_read(world->region, &region, NULL) == AGR_OK) &&
         (!world->policy || agr_policy_snapshot_read(world->policy, &policy, NULL) == AGR_OK);
}

#endif
