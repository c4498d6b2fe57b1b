/* SPDX-License-Identifier: Apache-2.0
 * A store on a redis-server of the test's own. */
#ifndef REDIS_STORE_H
#define REDIS_STORE_H

#include <autoglm_reliability.h>
#include <autoglm_reliability/redis.h>

#include "redis_server.h"

/* Without a breaker: each call asks the server. */
static inline agr_store *open_store(const redis_server *server, int64_t timeout_ns) {
  char address[32];
  agr_error error;
  agr_redis_config config;
  agr_store_config limits;
  agr_store_driver driver;
  agr_store *store = NULL;
  agr_redis_config_init(&config, sizeof config);
  agr_store_config_init(&limits, sizeof limits);
  snprintf(address, sizeof address, "127.0.0.1:%d", server->port);
  config.address = address;
  limits.timeout_ns = timeout_ns;
  limits.max_failures = 0;
  if (agr_redis_open(&config, &driver, &error) != AGR_OK ||
      agr_store_create(&driver, &limits, &store, &error) != AGR_OK)
    give_up(error.message);
  return store;
}

#endif
