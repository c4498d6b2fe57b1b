/* SPDX-License-Identifier: Apache-2.0
 * The SQLite store, twice on the same file: it does what every driver does. */
#include <autoglm_reliability/sqlite.h>
#include <stdio.h>
#include <stdlib.h>

#include "conformance.h"

int main(int count, char **arguments) {
  agr_store_driver one, two;
  agr_error error = {0};
  agr_sqlite_config config;
  agr_sqlite_config_init(&config, sizeof config);
  config.path = count > 1 ? arguments[1] : "conformance.db";
  if (agr_sqlite_open(&config, &one, &error) != AGR_OK ||
      agr_sqlite_open(&config, &two, &error) != AGR_OK) {
    fprintf(stderr, "%s: %s\n", error.field, error.message);
    return EXIT_FAILURE;
  }
  const int status = store_conformance(&one, &two);
  one.api->destroy(one.self);
  two.api->destroy(two.self);
  return status;
}
