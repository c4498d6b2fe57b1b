/* SPDX-License-Identifier: Apache-2.0
 * The SQLite store by its driver, in a file of the test's own: what its tests have in common. */
#ifndef SQLITE_STORE_H
#define SQLITE_STORE_H

#include <autoglm_reliability.h>
#include <autoglm_reliability/sqlite.h>
#include <string.h>
#include <unistd.h>

#include "../c/check.h"

static const int64_t second = 1000000000, hour = 3600000000000;
static const char *base;
static agr_error error;

static inline const char *path_of(const char *name) {
  static char paths[8][600];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s.%s", base, name);
  return path;
}

static inline const char *fresh(const char *name) {
  const char *path = path_of(name), *ends[] = {"-wal", "-shm", ""};
  char beside[620];
  for (int i = 0; i < 3; ++i) {
    snprintf(beside, sizeof beside, "%s%s", path, ends[i]);
    unlink(beside);
  }
  return path;
}

static inline agr_sqlite_config config_of(const char *path) {
  agr_sqlite_config config;
  agr_sqlite_config_init(&config, sizeof config);
  config.path = path;
  config.synchronous = AGR_SQLITE_NORMAL;
  return config;
}

static inline agr_status try_open(const agr_sqlite_config *config, agr_store_driver *driver) {
  memset(&error, 0, sizeof error);
  return agr_sqlite_open(config, driver, &error);
}

static inline agr_store_driver open_store(const char *path) {
  const agr_sqlite_config config = config_of(path);
  agr_store_driver driver = {NULL, NULL};
  const agr_status status = try_open(&config, &driver);
  CHECK_EQUAL(status, AGR_OK, error.message);
  if (status != AGR_OK) exit(EXIT_FAILURE);
  return driver;
}
static inline void close_store(const agr_store_driver *driver) { driver->api->destroy(driver->self); }

/* ---- calls ---- */

static char found[4096];
static size_t found_length;
static inline void *reserve(void *context, size_t length) {
  (void)context;
  found_length = length;
  return length <= sizeof found ? found : NULL;
}
static const agr_store_sink sink = {reserve, NULL};
static agr_store_run_state state;

static inline agr_store_key key_of(const char *name) {
  return (agr_store_key){"faults", 6, name, strlen(name)};
}

static inline agr_status begin_for(const agr_store_driver *driver, const char *name, int64_t timeout,
                            int64_t lease) {
  const agr_store_run run = {.key = key_of(name),
                             .owner = {agr_random(), agr_random()},
                             .lease_ns = lease,
                             .ttl_ns = hour,
                             .result_bytes = 4096};
  memset(&state, 0, sizeof state);
  memset(&error, 0, sizeof error);
  return driver->api->begin(driver->self, &run, timeout, &sink, &state, &error);
}
static inline agr_status begin(const agr_store_driver *driver, const char *name) {
  return begin_for(driver, name, 10 * second, hour);
}
static inline agr_status complete(const agr_store_driver *driver, const char *name, const void *data,
                           size_t length, int64_t ttl) {
  const agr_store_key key = key_of(name);
  memset(&error, 0, sizeof error);
  return driver->api->complete(driver->self, &key, state.fence, AGR_KEY_SUCCESS, data, length, ttl,
                               10 * second, &error);
}
static inline void run_once(const agr_store_driver *driver, const char *name, int64_t ttl) {
  CHECK_EQUAL(begin(driver, name), AGR_OK, name);
  CHECK_EQUAL(complete(driver, name, "result", 6, ttl), AGR_OK, name);
}
static inline int has_result(const agr_store_driver *driver, const char *name) {
  return begin(driver, name) == AGR_REPLAY && found_length == 6 && !memcmp(found, "result", 6);
}

#endif
