/* SPDX-License-Identifier: Apache-2.0
 * The Redis store does what every driver does, alone and on a cluster. */
#define _GNU_SOURCE
#include <autoglm_reliability/redis.h>

#include "conformance.h"
#include "redis_server.h"

static agr_store_driver open_driver(const char *address) {
  agr_redis_config config;
  agr_store_driver driver;
  agr_error error;
  agr_redis_config_init(&config, sizeof config);
  config.address = address;
  if (agr_redis_open(&config, &driver, &error) != AGR_OK) {
    fprintf(stderr, "%s: %s\n", error.field, error.message);
    exit(EXIT_FAILURE);
  }
  return driver;
}

int main(void) {
  char address[32];
  redis_server server = {0};
  start_server(&server);
  snprintf(address, sizeof address, "127.0.0.1:%d", server.port);
  const agr_store_driver one = open_driver(address), two = open_driver(address);
  const int status = store_conformance(&one, &two);
  one.api->destroy(one.self);
  two.api->destroy(two.self);
  end_server(&server);
  return status;
}
