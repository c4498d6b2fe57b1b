/* SPDX-License-Identifier: Apache-2.0
 * What the tests of regions share. */
#ifndef REGION_TESTS_H
#define REGION_TESTS_H

#include <autoglm_reliability.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../c/check.h"

#define SECOND INT64_C(1000000000)

static agr_error error;

/* A name that no other run has. */
static inline const char *region_name(const char *what) {
  static char name[64];
  snprintf(name, sizeof name, "test-%s-%d", what, (int)getpid());
  return name;
}

static inline const char *region_path(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "/dev/shm/agr.%s", name);
  return path;
}

static inline agr_region *open_region(const char *name, uint64_t bytes) {
  agr_region *region = NULL;
  const agr_status status = agr_region_open(name, bytes, NULL, &region, &error);
  if (status != AGR_OK) {
    fprintf(stderr, "%s: %s: %s (%d)\n", name ? name : "-", error.field, error.message,
            error.system_errno);
    abort();
  }
  return region;
}

static inline agr_limiter_config limiter_config(int64_t capacity, int64_t refill_tokens) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = refill_tokens;
  config.max_reservations = 64;
  return config;
}

static inline agr_keyed_limiter_config keyed_config(int64_t capacity, int64_t refill_tokens) {
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = refill_tokens;
  config.max_keys = 256;
  config.max_reservations = 64;
  return config;
}

static inline agr_breaker_config breaker_config(void) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.max_permits = 64;
  return config;
}

static inline agr_retry_budget_config budget_config(void) {
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  return config;
}

/* The status and the field of the last error. */
#define CHECK_REFUSED(call, wanted, named)           \
  do {                                               \
    memset(&error, 0, sizeof error);                 \
    CHECK_EQUAL(call, wanted, named);                \
    if (strcmp(error.field, named)) {                \
      fprintf(stderr, "field \"%s\": %s\n", error.field, error.message); \
      CHECK(!"the field is another");                \
    }                                                \
  } while (0)

/* Waits for a child, which says by its status whether all was well. */
static inline void reap(pid_t pid) {
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#endif
