/* SPDX-License-Identifier: Apache-2.0
 * A key that runs once, in a file. */
#include <autoglm_reliability.h>
#include <autoglm_reliability/sqlite.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments) {
  agr_error error = {0};
  agr_sqlite_config sqlite;
  agr_store_driver driver;
  agr_store *store = NULL;
  agr_idempotency *runs = NULL;
  agr_idempotency_config config;
  agr_lease lease;
  agr_result result;
  agr_sqlite_config_init(&sqlite, sizeof sqlite);
  agr_idempotency_config_init(&config, sizeof config);
  sqlite.path = count > 1 ? arguments[1] : "runs.db";
  if (agr_sqlite_open(&sqlite, &driver, &error) != AGR_OK ||
      agr_store_create(&driver, NULL, &store, &error) != AGR_OK ||
      agr_idempotency_create_in_store(store, "runs", &config, NULL, &runs, &error) != AGR_OK ||
      agr_idempotency_begin(runs, "key", 3, NULL, 0, &lease, &result, &error) != AGR_OK ||
      agr_idempotency_complete(runs, lease.id, "done", 4, &error) != AGR_OK ||
      agr_idempotency_begin(runs, "key", 3, NULL, 0, &lease, &result, &error) != AGR_REPLAY ||
      result.length != 4 || memcmp(result.data, "done", 4)) {
    fprintf(stderr, "%s: %s\n", error.field, error.message);
    return 1;
  }
  agr_idempotency_destroy(runs);
  agr_store_destroy(store);
  return 0;
}
