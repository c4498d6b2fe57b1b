/* SPDX-License-Identifier: Apache-2.0
 * The SQLite store on a file system that is really full, or read-only: it is said, what was kept is kept, and it goes on
 * by itself when the cause is gone. The file system is a tmpfs in a mount namespace of the test's own; where that is not
 * allowed the test says so and passes over it.
 *
 *   test_store_disk DIRECTORY */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "sqlite_store.h"

static char place[600], filler[700];

/* Another program's file, as large as there is room for. */
static void fill(void) {
  static char bytes[4096];
  const int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  while (write(fd, bytes, sizeof bytes) > 0) {
  }
  CHECK(errno == ENOSPC);
  close(fd);
}

static int kept_before, kept;
static char name[16];

static agr_status keep_one(const agr_store_driver *driver) {
  static char bytes[4096];
  snprintf(name, sizeof name, "key %d", kept);
  agr_status status = begin(driver, name);
  if (status == AGR_OK) status = complete(driver, name, bytes, sizeof bytes, hour);
  kept += status == AGR_OK;
  return status;
}

static void all_are_kept(const agr_store_driver *driver) {
  for (int i = 0; i < kept; ++i) {
    snprintf(name, sizeof name, "key %d", i);
    CHECK_EQUAL(begin(driver, name), AGR_REPLAY, name);
    CHECK(found_length == 4096);
  }
}

static void a_full_disk(const agr_store_driver *driver) {
  run_once(driver, "first", hour);
  for (int i = 0; i < 20; ++i) CHECK_EQUAL(keep_one(driver), AGR_OK, error.message);
  fill();
  agr_status status = AGR_OK;
  for (int i = 0; i < 1000 && status == AGR_OK; ++i) status = keep_one(driver);
  CHECK_EQUAL(status, AGR_ERR_STORE, "full");
  CHECK(strstr(error.message, "full") || strstr(error.message, "I/O"));
  CHECK(has_result(driver, "first"));
  all_are_kept(driver);
  /* Room again: the run that could not begin, or whose result found no room, goes on. */
  kept_before = kept;
  CHECK(unlink(filler) == 0);
  snprintf(name, sizeof name, "key %d", kept);
  status = begin(driver, name);
  CHECK(status == AGR_OK || status == AGR_IN_PROGRESS);
  kept += 1000; /* further names */
  CHECK_EQUAL(keep_one(driver), AGR_OK, error.message);
  kept = kept_before;
  all_are_kept(driver);
}

static void opened_where_there_is_no_room(void) {
  fill();
  agr_sqlite_config config = config_of(fresh("late"));
  agr_store_driver driver = {NULL, NULL};
  const agr_status status = try_open(&config, &driver);
  CHECK_EQUAL(status, AGR_ERR_STORE, error.message);
  CHECK(!strcmp(error.field, "path") && error.message[0] && !driver.self);
  CHECK(unlink(filler) == 0);
  driver = open_store(config.path);
  run_once(&driver, "late", hour);
  close_store(&driver);
}

static void opened_where_nothing_can_be_written(void) {
  agr_sqlite_config config = config_of(fresh("fixed"));
  agr_store_driver driver = open_store(config.path);
  run_once(&driver, "first", hour);
  close_store(&driver);
  CHECK(mount(NULL, place, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
  CHECK_EQUAL(try_open(&config, &driver), AGR_ERR_STORE, error.message);
  CHECK(!strcmp(error.field, "path") && error.message[0]);
  CHECK(mount(NULL, place, NULL, MS_REMOUNT, NULL) == 0);
  driver = open_store(config.path);
  CHECK(has_result(&driver, "first"));
  close_store(&driver);
}

int main(int count, char **arguments) {
  snprintf(place, sizeof place, "%s", count > 1 ? arguments[1] : "disk");
  static char file[640];
  snprintf(file, sizeof file, "%s/store", place);
  snprintf(filler, sizeof filler, "%s/filler", place);
  base = file;
  mkdir(place, 0700);
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("none", place, "tmpfs", MS_NOSUID | MS_NODEV, "size=512k") != 0) {
    printf("passed over: no file system of one's own (%s)\n", strerror(errno));
    return 77; /* CTest counts it as skipped */
  }
  agr_store_driver driver = open_store(fresh("full"));
  a_full_disk(&driver);
  close_store(&driver);
  fresh("full");
  opened_where_there_is_no_room();
  opened_where_nothing_can_be_written();
  return finish();
}
