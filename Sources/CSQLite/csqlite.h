/* SPDX-License-Identifier: Apache-2.0
 *
 * What the SQLite store asks of SQLite and of the operating system beside platform.h. Header-only. */
#ifndef AUTOGLM_RELIABILITY_CSQLITE_H
#define AUTOGLM_RELIABILITY_CSQLITE_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Runs on during suspension, never jumps, begins anew with each boot. */
static inline int64_t csqlite_boottime_ns(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_BOOTTIME, &t) != 0) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t csqlite_realtime_ns(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_REALTIME, &t) != 0) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A number of 62 bits that tells this boot of the machine from others; 0 when the kernel does not say. */
static inline int64_t csqlite_boot(void) {
  char text[64];
  int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text);
  close(file);
  uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
  for (ssize_t i = 0; i < length; ++i) hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
  return length < 32 ? 0 : (int64_t)(hash >> 2 | 1);
}

/* Sleeps for a millisecond. */
static inline void csqlite_pause(void) {
  struct timespec t = {.tv_nsec = 1000000};
  nanosleep(&t, NULL);
}

/* Lets another thread run. */
static inline void csqlite_yield(void) { sched_yield(); }

static inline int32_t csqlite_process(void) { return (int32_t)getpid(); }

/* Makes an empty file that only its owner may use, if there is none; SQLite gives the files beside it the same
 * rights. 0, or an errno. A file that is there is not touched: to close it would end the locks that another
 * connection of this process has on it. */
static inline int32_t csqlite_make_private(const char *path) {
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return errno == EEXIST ? 0 : errno;
  close(file);
  return 0;
}

/* Notes, after each commit, how many pages are in the write-ahead log. */
static inline int csqlite_note_log(void *context, sqlite3 *database, const char *name, int pages) {
  (void)database;
  (void)name;
  *(int32_t *)context = pages;
  return SQLITE_OK;
}
static inline void csqlite_watch_log(sqlite3 *database, int32_t *pages) {
  sqlite3_wal_hook(database, csqlite_note_log, pages);
}

/* Moves what is in the log into the database, as far as nobody is in the way; with the lock of writers, so that nobody
 * begins the log anew meanwhile. */
static inline void csqlite_checkpoint(sqlite3 *database) {
  sqlite3_busy_timeout(database, 0);
  sqlite3_wal_checkpoint_v2(database, NULL, SQLITE_CHECKPOINT_FULL, NULL, NULL);
}

/* SQL cannot reach SQLite's own tables, and what a file says of itself is not trusted. */
static inline int csqlite_defend(sqlite3 *database) {
  int result = sqlite3_db_config(database, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  if (result == SQLITE_OK) {
    result = sqlite3_db_config(database, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  }
  return result;
}

/* Whether the file was moved or removed since it was opened. */
static inline int csqlite_has_moved(sqlite3 *database) {
  int moved = 0;
  int result = sqlite3_file_control(database, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  return result == SQLITE_OK && moved != 0;
}

#endif
