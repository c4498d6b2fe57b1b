/* SPDX-License-Identifier: Apache-2.0
 * Conformance: leases. */
#ifndef CONFORMANCE_LEASES_H
#define CONFORMANCE_LEASES_H

#include "conformance_tools.h"

static agr_store_lease new_lease(agr_store_key key, uint32_t limit, int64_t ttl) {
  return (agr_store_lease){
      .key = key, .owner = {draw(), draw()}, .limit = limit, .ttl_ns = ttl};
}

static uint64_t lease_fence;
static int64_t lease_retry;

static agr_status acquire_by(const agr_store_driver *driver, const agr_store_lease *lease) {
  lease_fence = 0;
  lease_retry = 0;
  return driver->api->acquire(driver->self, lease, timeout, &lease_fence, &lease_retry,
                              fresh_error());
}
static agr_status acquire(const agr_store_lease *lease) { return acquire_by(&first, lease); }
static agr_status extend(const agr_store_lease *lease) {
  return second.api->extend(second.self, lease, timeout, fresh_error());
}
static agr_status release(const agr_store_lease *lease) {
  return second.api->release(second.self, lease, timeout, fresh_error());
}

static void a_lock_has_one_owner(void) {
  const agr_store_key key = new_key();
  const agr_store_lease mine = new_lease(key, 1, hour), other = new_lease(key, 1, hour);
  CHECK_OK(acquire(&mine));
  const uint64_t fence = lease_fence;
  CHECK(fence > 0);
  CHECK_STATUS(acquire_by(&second, &other), AGR_LIMITED);
  CHECK(lease_retry > 0 && lease_retry <= hour);
  CHECK_OK(acquire_by(&second, &mine));
  CHECK(lease_fence == fence);
  CHECK_STATUS(extend(&other), AGR_STALE);
  CHECK_STATUS(release(&other), AGR_STALE);
  CHECK_OK(extend(&mine));
  CHECK_OK(release(&mine));
  CHECK_STATUS(release(&mine), AGR_STALE);
  CHECK_STATUS(extend(&mine), AGR_STALE);
  CHECK_OK(acquire(&other));
  CHECK(lease_fence > fence);
}

static void so_many_hold_permits(void) {
  const agr_store_key key = new_key();
  agr_store_lease leases[4];
  uint64_t before = 0;
  for (int i = 0; i < 4; ++i) leases[i] = new_lease(key, 3, hour);
  for (int i = 0; i < 3; ++i) {
    CHECK_OK(acquire(&leases[i]));
    CHECK(lease_fence > before);
    before = lease_fence;
  }
  CHECK_STATUS(acquire(&leases[3]), AGR_LIMITED);
  CHECK_OK(release(&leases[1]));
  CHECK_OK(acquire(&leases[3]));
  CHECK(lease_fence > before);
  CHECK_OK(extend(&leases[0]));
  CHECK_STATUS(acquire(&leases[1]), AGR_LIMITED);
}

static void a_lease_ends_by_itself(void) {
  const agr_store_key key = new_key();
  const agr_store_lease mine = new_lease(key, 1, moment), other = new_lease(key, 1, hour);
  CHECK_OK(acquire(&mine));
  const uint64_t fence = lease_fence;
  for (struct patience wait = be_patient(); acquire(&other) == AGR_LIMITED && has_patience(&wait);) {
    CHECK(lease_retry > 0 && lease_retry <= moment);
  }
  CHECK(lease_fence > fence);
  CHECK_STATUS(extend(&mine), AGR_STALE);
  CHECK_STATUS(release(&mine), AGR_STALE);
  CHECK_OK(extend(&other));
}

static void check_leases(void) {
  a_lock_has_one_owner();
  so_many_hold_permits();
  a_lease_ends_by_itself();
}

#endif
