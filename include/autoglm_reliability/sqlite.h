/* SPDX-License-Identifier: Apache-2.0
 * A store in a file, shared by the processes of one host and durable: SQLite.
 * In libautoglm_reliability_sqlite.so, which needs libsqlite3 and not the library itself. Conventions:
 * autoglm_reliability.h.
 *
 *   agr_sqlite_config config;
 *   agr_sqlite_config_init(&config, sizeof config);
 *   config.path = "/var/lib/service/runs.db";
 *   agr_store_driver driver;
 *   agr_store *store;
 *   if (agr_sqlite_open(&config, &driver, &error) == AGR_OK &&
 *       agr_store_create(&driver, NULL, &store, &error) == AGR_OK) ...
 *
 * It offers idempotency and leases. A result for which `complete` answered AGR_OK is there after the process
 * was killed; after a loss of power too with AGR_SQLITE_FULL. What threads ask for at a time goes into one
 * transaction. The file is in WAL mode: it must be on a disk of this host, not on a network's.
 *
 * Time.   Leases and times to live run on CLOCK_BOOTTIME. A reboot ends every lease, since no process has
 *         survived it; times to live go on by the wall clock then.
 * Fork.   The connection is closed before a fork and opened again on both sides when it is needed, so that parent
 *         and child may both go on.
 * Trust.  Who can write to the file can make it say what they like; a damaged file is an error, and never more.
 *         Do not open the same file with another copy of SQLite in the same process. */
#ifndef AUTOGLM_RELIABILITY_SQLITE_H
#define AUTOGLM_RELIABILITY_SQLITE_H

#include "store_driver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* When a transaction counts as done. */
enum {
  AGR_SQLITE_FULL = 0,  /* it is on the disk: survives a loss of power */
  AGR_SQLITE_NORMAL = 1 /* the kernel has it: survives the process; the last moments before a loss of power
                           may be gone, as a whole */
};

typedef struct agr_sqlite_config {
  uint32_t struct_size;
  int32_t synchronous;       /* AGR_SQLITE_FULL or NORMAL; default FULL */
  const char *path;          /* of the database, 1 ... 1023 bytes; made, with mode 0600, if it is not there */
  uint64_t max_result_bytes; /* 0 ... 2^29; runs that may have larger ones do not begin; default 16 MiB */
  uint64_t max_bytes;        /* that the file may grow to, 64 KiB ... 2^46; 0: as the disk allows;
                                default 0. Then, as when the disk is full, calls answer AGR_ERR_STORE. */
  uint32_t max_batch;        /* calls in one transaction, 1 ... 1024; default 64 */
  uint32_t reserved;         /* 0 */
} agr_sqlite_config;

void agr_sqlite_config_init(agr_sqlite_config *config, uint32_t struct_size);

/* Opens the database, and makes it if the file is not there or empty. out_driver is for agr_store_create, which
 * takes it over; else it is to be destroyed by its own `destroy`.
 *
 * Errors  AGR_ERR_ARGUMENT: of the configuration; AGR_ERR_NO_MEMORY; AGR_ERR_STORE, field "path": it cannot be
 *         opened or written, is damaged, is no database or one of something else, or of a later version.
 * Blocks for another process that is just making it, 10 s at the most. */
agr_status agr_sqlite_open(const agr_sqlite_config *config, agr_store_driver *out_driver,
                           agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
