/* SPDX-License-Identifier: Apache-2.0
 * The SQLite store beside plain SQLite doing the same transactions, in turns: pairs of begin and complete, each a
 * transaction of its own, with a result of 100 bytes. Nanoseconds a transaction.
 *
 *   stores ROUNDS DIRECTORY
 *
 * "full" waits for the disk, "normal" for the kernel, and "slow" for a disk that takes 0.35 ms longer. */
#define _GNU_SOURCE
#include <autoglm_reliability/sqlite.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 7, MOST_THREADS = 8, RESULT = 100 };
static const int64_t hour = 3600000000000;
static char directory[512];
static double seconds = 0.15;
static int is_slow;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void must(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "bench_stores: %s failed\n", what);
  exit(1);
}

static const char *fresh_path(const char *name) {
  static char path[600];
  static const char *const ends[] = {"-wal", "-shm", ""};
  for (int i = 0; i < 3; ++i) {
    snprintf(path, sizeof path, "%s/%s.db%s", directory, name, ends[i]);
    unlink(path);
  }
  return path;
}

/* What SQLite calls to wait for the disk, in front of libc's. */
int fdatasync(int file) {
  if (is_slow) nanosleep(&(struct timespec){.tv_nsec = 350000}, NULL);
  return (int)syscall(SYS_fdatasync, file);
}

/* ---- plain SQLite ---- */

static sqlite3_stmt *prepare(sqlite3 *database, const char *text) {
  sqlite3_stmt *made;
  must(sqlite3_prepare_v2(database, text, -1, &made, NULL) == SQLITE_OK, text);
  return made;
}

static void run(sqlite3_stmt *statement) {
  const int code = sqlite3_step(statement);
  must(code == SQLITE_DONE || code == SQLITE_ROW, "a statement");
  sqlite3_reset(statement);
}

static double plain(int is_full) {
  sqlite3 *database;
  char key[32], result[RESULT] = {1};
  long count = 0;
  must(sqlite3_open(fresh_path("plain"), &database) == SQLITE_OK, "open");
  must(sqlite3_exec(database, "PRAGMA journal_mode=WAL", NULL, NULL, NULL) == SQLITE_OK, "WAL");
  sqlite3_exec(database, is_full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
  must(sqlite3_exec(database,
                    "CREATE TABLE runs(key BLOB PRIMARY KEY, state, fence, lost, boot, until, ends, wall, a, b, c, "
                    "d, bytes, result BLOB) WITHOUT ROWID",
                    NULL, NULL, NULL) == SQLITE_OK, "table");
  sqlite3_stmt *begin = prepare(database, "BEGIN IMMEDIATE"), *commit = prepare(database, "COMMIT");
  sqlite3_stmt *find = prepare(database, "SELECT * FROM runs WHERE key=?1");
  sqlite3_stmt *insert = prepare(database, "INSERT INTO runs VALUES(?1,10,?2,0,?3,?4,?4,?4,?3,?3,?3,?3,1024,x'')");
  sqlite3_stmt *update = prepare(database, "UPDATE runs SET state=3, ends=?2, result=?3 WHERE key=?1");
  sqlite3_stmt *touching[] = {find, insert, update};
  const int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
  while (now_ns() < end) {
    const int length = snprintf(key, sizeof key, "plain-%016lx", (unsigned long)count * 0x9e3779b97f4a7c15u);
    for (int i = 0; i < 3; ++i) sqlite3_bind_blob(touching[i], 1, key, length, SQLITE_STATIC);
    sqlite3_bind_int64(insert, 2, count);
    sqlite3_bind_int64(insert, 3, start);
    sqlite3_bind_int64(insert, 4, end);
    sqlite3_bind_int64(update, 2, end);
    sqlite3_bind_blob(update, 3, result, sizeof result, SQLITE_STATIC);
    run(begin), run(find), run(insert), run(commit);
    run(begin), run(find), run(update), run(commit);
    count += 2;
  }
  const double each = (double)(now_ns() - start) / (double)count;
  for (sqlite3_stmt *s; (s = sqlite3_next_stmt(database, NULL));) sqlite3_finalize(s);
  sqlite3_close(database);
  return each;
}

/* ---- the store ---- */

struct worker {
  pthread_t id;
  const agr_store_driver *driver;
  int number;
  int64_t end;
  long count;
};

static void *no_room(void *context, size_t length) {
  (void)context, (void)length;
  return NULL;
}

static void *work(void *argument) {
  struct worker *self = argument;
  const agr_store_api *api = self->driver->api;
  char key[48], result[RESULT] = {1};
  const agr_store_sink sink = {no_room, NULL};
  agr_error error;
  while (now_ns() < self->end) {
    const int length = snprintf(key, sizeof key, "%d-%016lx", self->number,
                                (unsigned long)self->count * 0x9e3779b97f4a7c15u);
    agr_store_run_state state = {0};
    agr_store_run one = {.key = {"bench", 5, key, (size_t)length}, .owner = {(uint64_t)self->number + 1, 1},
                         .lease_ns = hour, .ttl_ns = hour, .result_bytes = 1024};
    error.message[0] = 0;
    must(api->begin(self->driver->self, &one, hour, &sink, &state, &error) == AGR_OK, error.message);
    must(api->complete(self->driver->self, &one.key, state.fence, AGR_KEY_SUCCESS, result, RESULT, hour, hour,
                       &error) == AGR_OK, error.message);
    self->count += 2;
  }
  return NULL;
}

static double store(int is_full, int threads) {
  agr_sqlite_config config;
  agr_store_driver driver;
  agr_error error = {0};
  struct worker workers[MOST_THREADS] = {0};
  agr_sqlite_config_init(&config, sizeof config);
  config.path = fresh_path("store");
  config.synchronous = is_full ? AGR_SQLITE_FULL : AGR_SQLITE_NORMAL;
  must(agr_sqlite_open(&config, &driver, &error) == AGR_OK, error.message);
  const int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9);
  long count = 0;
  for (int i = 0; i < threads; ++i) {
    workers[i] = (struct worker){.driver = &driver, .number = i, .end = end};
    must(pthread_create(&workers[i].id, NULL, work, &workers[i]) == 0, "a thread");
  }
  for (int i = 0; i < threads; ++i) {
    pthread_join(workers[i].id, NULL);
    count += workers[i].count;
  }
  const double each = (double)(now_ns() - start) / (double)count;
  driver.api->destroy(driver.self);
  return each;
}

static double measure(int which, int kind) {
  is_slow = kind == 2;
  return which == 0 ? plain(kind > 0) : store(kind > 0, which == 1 ? 1 : MOST_THREADS);
}

int main(int count, char **arguments) {
  must(count == 3, "the arguments ROUNDS DIRECTORY");
  const int wanted = atoi(arguments[1]), rounds = wanted < MOST_ROUNDS ? wanted : MOST_ROUNDS;
  snprintf(directory, sizeof directory, "%s", arguments[2]);
  static const char *const kinds[] = {"normal", "full", "slow"};
  for (int kind = 0; kind < 3; ++kind) {
    double seen[3][MOST_ROUNDS];
    for (int round = 0; round < rounds; ++round) {
      for (int which = 0; which < 3; ++which) seen[which][round] = measure(which, kind);
    }
    for (int which = 0; which < 3; ++which) {
      printf("{\"name\": \"%s%s%s\", \"ns\": [", which == 0 ? "floor.sqlite." : "sqlite.", kinds[kind],
             which == 2 ? ".8" : "");
      for (int round = 0; round < rounds; ++round) printf("%s%.1f", round ? ", " : "", seen[which][round]);
      printf("]}\n");
    }
  }
  fresh_path("plain");
  fresh_path("store");
  return 0;
}
