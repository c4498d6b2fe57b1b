/* SPDX-License-Identifier: Apache-2.0
 * A store in a directory, one small file for each key: how a driver is written. It is shared by all processes
 * that use the directory, and durable. It is no fast one: each call takes a lock on the directory, and a
 * change waits for the disk.
 *
 * Times are kept by the wall clock, which must not be set back or forward by much while the store is in
 * use. Files that have expired are removed when the store is opened. */
#ifndef FILE_STORE_H
#define FILE_STORE_H

#include <autoglm_reliability.h>

/* Opens the store in a directory, which is made if it is not there.
 * Errors  AGR_ERR_ARGUMENT: the path is too long; AGR_ERR_NO_MEMORY; AGR_ERR_SYSTEM. */
agr_status file_store_open(const char *directory, agr_store_driver *out_driver, agr_error *error);

#endif
