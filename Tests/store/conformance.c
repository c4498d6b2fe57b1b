/* SPDX-License-Identifier: Apache-2.0
 * What is expected of every driver: conformance.h. */
#define _GNU_SOURCE
#include "conformance_breaker.h"
#include "conformance_buckets.h"
#include "conformance_leases.h"
#include "conformance_runs.h"
#include "conformance_threads.h"

static void is_healthy(void) {
  CHECK_OK(first.api->ping(first.self, timeout, fresh_error()));
  CHECK_OK(second.api->ping(second.self, timeout, fresh_error()));
  CHECK(first.api->struct_size >= 8 && first.api->name && first.api->name[0]);
}

int store_conformance(const agr_store_driver *driver, const agr_store_driver *again) {
  first = *driver;
  second = again ? *again : *driver;
  const agr_store_api *api = driver->api;
  const struct {
    const char *name;
    int is_offered;
    void (*check)(void);
  } groups[] = {
      {"health", 1, is_healthy},
      {"idempotency", api->begin != NULL, check_runs},
      {"buckets", api->take != NULL, check_buckets},
      {"leases", api->acquire != NULL, check_leases},
      {"breaker state", api->breaker_read != NULL, check_breaker},
      {"threads", api->begin != NULL, check_threads},
  };
  for (unsigned i = 0; i < sizeof groups / sizeof *groups; ++i) {
    const int before = checks, failed = failures;
    if (!groups[i].is_offered) {
      printf("%s: does not offer %s\n", api->name, groups[i].name);
      continue;
    }
    groups[i].check();
    printf("%s: %s, %d checks, %d failed\n", api->name, groups[i].name, checks - before,
           failures - failed);
  }
  return finish();
}
