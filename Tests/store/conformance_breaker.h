/* SPDX-License-Identifier: Apache-2.0
 * Conformance: the state that breakers share. */
#ifndef CONFORMANCE_BREAKER_H
#define CONFORMANCE_BREAKER_H

#include "conformance_tools.h"

static agr_store_breaker shared;

static agr_status breaker_read(const agr_store_key *key) {
  memset(&shared, 0, sizeof shared);
  return second.api->breaker_read(second.self, key, timeout, &shared, fresh_error());
}
static agr_status breaker_set(const agr_store_key *key, uint64_t generation, int32_t state,
                              uint32_t trips, int64_t open, int64_t ttl) {
  const agr_store_breaker desired = {generation, state, trips, open};
  memset(&shared, 0, sizeof shared);
  return first.api->breaker_set(first.self, key, &desired, ttl, timeout, &shared, fresh_error());
}
static int64_t probe_retry;
static agr_status probe(const agr_store_key *key, uint64_t generation, const uint64_t *owner,
                        int64_t ttl) {
  probe_retry = 0;
  return first.api->probe(first.self, key, generation, owner, ttl, timeout, &probe_retry,
                          fresh_error());
}

static void a_state_is_set_by_one(void) {
  const agr_store_key key = new_key();
  CHECK_OK(breaker_read(&key));
  CHECK(shared.generation == 0 && shared.state == AGR_BREAKER_CLOSED && !shared.trips);
  CHECK_OK(breaker_set(&key, 0, AGR_BREAKER_OPEN, 1, hour, hour));
  CHECK(shared.generation == 1 && shared.state == AGR_BREAKER_OPEN && shared.trips == 1);
  CHECK(shared.open_ns > 0 && shared.open_ns <= hour);
  CHECK_STATUS(breaker_set(&key, 0, AGR_BREAKER_HALF_OPEN, 2, 0, hour), AGR_STALE);
  CHECK(shared.generation == 1 && shared.state == AGR_BREAKER_OPEN && shared.open_ns > 0);
  CHECK_OK(breaker_read(&key));
  CHECK(shared.generation == 1 && shared.state == AGR_BREAKER_OPEN && shared.trips == 1);
  CHECK_OK(breaker_set(&key, 1, AGR_BREAKER_CLOSED, 0, 0, hour));
  CHECK_OK(breaker_read(&key));
  CHECK(shared.generation == 2 && shared.state == AGR_BREAKER_CLOSED && !shared.open_ns);
}

static void one_owns_the_probe(void) {
  const agr_store_key key = new_key();
  const uint64_t mine[] = {draw(), draw()}, other[] = {draw(), draw()};
  CHECK_STATUS(probe(&key, 0, mine, hour), AGR_STALE);
  CHECK_OK(breaker_set(&key, 0, AGR_BREAKER_OPEN, 1, hour, hour));
  CHECK_STATUS(probe(&key, 1, mine, hour), AGR_OPEN);
  CHECK(probe_retry > 0 && probe_retry <= hour);
  CHECK_OK(breaker_set(&key, 1, AGR_BREAKER_OPEN, 1, moment, hour));
  for (struct patience wait = be_patient();
       probe(&key, 2, mine, hour) == AGR_OPEN && has_patience(&wait);) {
    CHECK(probe_retry > 0 && probe_retry <= moment);
  }
  CHECK_OK(probe(&key, 2, mine, hour));
  CHECK_STATUS(probe(&key, 2, other, hour), AGR_OPEN);
  CHECK(probe_retry > 0 && probe_retry <= hour);
  CHECK_STATUS(probe(&key, 1, other, hour), AGR_STALE);
  CHECK_OK(breaker_set(&key, 2, AGR_BREAKER_HALF_OPEN, 1, 0, hour));
  CHECK_OK(probe(&key, 3, other, moment));
  for (struct patience wait = be_patient();
       probe(&key, 3, mine, hour) == AGR_OPEN && has_patience(&wait);) {
    CHECK(probe_retry > 0 && probe_retry <= moment);
  }
  CHECK_OK(probe(&key, 3, mine, hour));
  CHECK_OK(breaker_set(&key, 3, AGR_BREAKER_CLOSED, 0, 0, hour));
  CHECK_STATUS(probe(&key, 4, mine, hour), AGR_STALE);
}

static void a_state_is_forgotten(void) {
  const agr_store_key key = new_key();
  CHECK_OK(breaker_set(&key, 0, AGR_BREAKER_OPEN, 1, hour, moment));
  struct patience wait = be_patient();
  do CHECK_OK(breaker_read(&key));
  while (shared.generation && has_patience(&wait));
  CHECK(shared.generation == 0 && shared.state == AGR_BREAKER_CLOSED && !shared.open_ns);
}

static void check_breaker(void) {
  a_state_is_set_by_one();
  one_owns_the_probe();
  a_state_is_forgotten();
}

#endif
