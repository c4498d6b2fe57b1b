/* SPDX-License-Identifier: Apache-2.0
 * What can go wrong with a database: each is said clearly, loses nothing, and never ends the process.
 *
 *   test_store_faults FILE [DAMAGES [SEED]] */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sqlite_store.h"

/* ---- plain SQLite on the same file ---- */

static void execute(const char *path, const char *text) {
  sqlite3 *database;
  CHECK(sqlite3_open(path, &database) == SQLITE_OK);
  CHECK_EQUAL(sqlite3_exec(database, text, NULL, NULL, NULL), SQLITE_OK, text);
  sqlite3_close(database);
}
static long count_rows(const char *path) {
  sqlite3 *database;
  sqlite3_stmt *statement;
  long rows = -1;
  CHECK(sqlite3_open(path, &database) == SQLITE_OK);
  CHECK(sqlite3_prepare_v2(database, "SELECT count(*) FROM agr_store", -1, &statement, NULL) ==
        SQLITE_OK);
  if (sqlite3_step(statement) == SQLITE_ROW) rows = (long)sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  sqlite3_close(database);
  return rows;
}

/* ---- opening ---- */

static void refuse(const agr_sqlite_config *config, agr_status status, const char *field,
                   const char *words) {
  agr_store_driver driver = {NULL, NULL};
  CHECK_EQUAL(try_open(config, &driver), status, words);
  CHECK(!driver.api && !driver.self);
  if (strcmp(error.field, field) || !strstr(error.message, words))
    fprintf(stderr, "  said \"%s\" \"%s\"\n", error.field, error.message);
  CHECK(!strcmp(error.field, field) && strstr(error.message, words));
}

static void a_configuration_is_checked(void) {
  agr_store_driver driver;
  agr_sqlite_config config = config_of(fresh("config"));
  CHECK(agr_sqlite_open(&config, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "out_driver"));
  CHECK(agr_sqlite_open(NULL, &driver, NULL) == AGR_ERR_ARGUMENT);
  static char long_path[2000];
  memset(long_path, 'a', sizeof long_path - 1);
  const char *paths[] = {NULL, "", ":memory:", "file:somewhere", long_path};
  for (int i = 0; i < 5; ++i) {
    config.path = paths[i];
    refuse(&config, AGR_ERR_ARGUMENT, "path", "must");
  }
#define BAD(name, value)                                     \
  do {                                                       \
    agr_sqlite_config bad = config_of(path_of("config"));    \
    bad.name = (value);                                      \
    refuse(&bad, AGR_ERR_ARGUMENT, #name, "must");           \
  } while (0)
  BAD(synchronous, 2);
  BAD(synchronous, -1);
  BAD(max_result_bytes, (1 << 29) + 1);
  BAD(max_result_bytes, UINT64_MAX);
  BAD(max_bytes, 65535);
  BAD(max_bytes, UINT64_MAX);
  BAD(max_batch, 0);
  BAD(max_batch, 1025);
  BAD(reserved, 1);
  BAD(struct_size, 0);
  BAD(struct_size, 9);
  BAD(struct_size, 8192);
  struct { agr_sqlite_config config; uint64_t tail; } later = {config_of(fresh("config")), 0};
  later.config.struct_size = sizeof later;
  CHECK(try_open(&later.config, &driver) == AGR_OK);
  close_store(&driver);
  later.tail = 1;
  refuse(&later.config, AGR_ERR_ARGUMENT, "struct_size", "must");
}

static void what_is_no_store_is_refused(void) {
  agr_sqlite_config config = config_of(fresh("foreign"));
  execute(config.path, "CREATE TABLE theirs(a); INSERT INTO theirs VALUES (1)");
  refuse(&config, AGR_ERR_STORE, "path", "something else");
  config.path = fresh("marked");
  execute(config.path, "PRAGMA application_id=77");
  refuse(&config, AGR_ERR_STORE, "path", "something else");
  config.path = fresh("text");
  FILE *file = fopen(config.path, "w");
  for (int i = 0; i < 5000; ++i) fputs("This is no database. ", file);
  fclose(file);
  refuse(&config, AGR_ERR_STORE, "path", "not a database");
  config.path = fresh("later");
  agr_store_driver driver = open_store(config.path);
  close_store(&driver);
  execute(config.path, "PRAGMA user_version=2");
  refuse(&config, AGR_ERR_STORE, "path", "another version");
  execute(config.path, "PRAGMA user_version=1; CREATE TRIGGER t AFTER DELETE ON agr_store BEGIN "
                       "DELETE FROM agr_store; END");
  refuse(&config, AGR_ERR_STORE, "path", "not laid out");
  config.path = "/";
  refuse(&config, AGR_ERR_STORE, "path", "cannot be opened");
  config.path = "/nowhere/at/all.db";
  refuse(&config, AGR_ERR_STORE, "path", "cannot be opened");
}

/* Others may not read what is kept. */
static void a_new_file_is_private(void) {
  struct stat seen;
  const char *path = fresh("private");
  umask(0);
  agr_store_driver driver = open_store(path);
  run_once(&driver, "k", hour);
  CHECK(stat(path, &seen) == 0 && (seen.st_mode & 0777) == 0600);
  char beside[620];
  snprintf(beside, sizeof beside, "%s-wal", path);
  CHECK(stat(beside, &seen) == 0 && (seen.st_mode & 0777) == 0600);
  umask(022);
  close_store(&driver);
}

static void a_file_that_cannot_be_written_is_said(void) {
  const char *path = fresh("readonly");
  agr_store_driver driver = open_store(path);
  run_once(&driver, "k", hour);
  close_store(&driver);
  CHECK(chmod(path, 0444) == 0);
  const pid_t child = fork();
  if (child == 0) {
    /* The superuser may write anything. */
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    const agr_sqlite_config config = config_of(path);
    const int before = failures;
    refuse(&config, AGR_ERR_STORE, "path", "cannot be");
    _exit(failures == before ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK_EQUAL(status, 0, "read-only");
}

/* ---- while it is open ---- */

/* The file may not grow: what is there stays, and when rows have ended there is room again. */
static void a_full_disk_is_said(void) {
  static char bytes[4096];
  agr_sqlite_config config = config_of(fresh("full"));
  config.max_bytes = 256 << 10;
  agr_store_driver driver;
  CHECK_EQUAL(try_open(&config, &driver), AGR_OK, error.message);
  char name[16];
  int kept = 0;
  agr_status status = AGR_OK;
  run_once(&driver, "first", hour);
  for (int i = 0; i < 1000 && status == AGR_OK; ++i) {
    snprintf(name, sizeof name, "key %d", i);
    status = begin(&driver, name);
    if (status == AGR_OK) status = complete(&driver, name, bytes, sizeof bytes, 300000000);
    kept += status == AGR_OK;
  }
  CHECK_EQUAL(status, AGR_ERR_STORE, "full");
  CHECK(kept > 20 && strstr(error.message, "full"));
  CHECK(has_result(&driver, "first"));
  /* Each caller has chosen what happens then. */
  static const int32_t choices[] = {AGR_STORE_REFUSE, AGR_STORE_ADMIT, AGR_STORE_LOCAL};
  static const agr_status answers[] = {AGR_ERR_STORE, AGR_OK, AGR_OK};
  agr_store *store;
  agr_store_config store_config;
  agr_store_config_init(&store_config, sizeof store_config);
  store_config.max_failures = 0;
  CHECK(agr_store_create(&driver, &store_config, &store, &error) == AGR_OK);
  for (int i = 0; i < 3; ++i) {
    agr_store_options options;
    agr_idempotency_config cache_config;
    agr_idempotency *cache;
    agr_lease lease;
    agr_result result;
    agr_store_options_init(&options, sizeof options);
    agr_idempotency_config_init(&cache_config, sizeof cache_config);
    options.on_error = choices[i];
    cache_config.max_entries = 16;
    CHECK(agr_idempotency_create_in_store(store, "choice", &cache_config, &options, &cache,
                                          &error) == AGR_OK);
    /* So large a key that it needs room of its own. */
    static char large[200];
    memset(large, 'a' + i, sizeof large);
    agr_status seen = AGR_OK;
    for (int k = 0; k < 400 && seen == AGR_OK; ++k) {
      snprintf(large + 150, 32, "%d", k);
      seen = agr_idempotency_begin(cache, large, sizeof large, NULL, 0, &lease, &result, &error);
      if (lease.fence == 0) break;
    }
    CHECK_EQUAL(seen, answers[i], "on_error");
    CHECK((seen == AGR_OK) == (lease.id != 0) && lease.fence == 0);
    agr_idempotency_destroy(cache);
  }
  /* Room again, as soon as old rows have ended. */
  for (int i = 0; i < 2000; ++i) {
    snprintf(name, sizeof name, "new %d", i);
    status = begin_for(&driver, name, second, 1000000);
    if (status == AGR_OK) break;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  CHECK(has_result(&driver, "first"));
  agr_store_destroy(store);
}

/* Another program holds the write lock. */
static void a_busy_database_is_waited_for(void) {
  const char *path = fresh("busy");
  agr_store_driver driver = open_store(path);
  sqlite3 *other;
  CHECK(sqlite3_open(path, &other) == SQLITE_OK);
  CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
  CHECK_EQUAL(begin_for(&driver, "k", 30000000, hour), AGR_ERR_STORE, "busy");
  CHECK(strstr(error.message, "timed out"));
  CHECK_EQUAL(begin_for(&driver, "k", 1, hour), AGR_ERR_STORE, "busy, no time");
  CHECK(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
  sqlite3_close(other);
  CHECK_EQUAL(begin(&driver, "k"), AGR_OK, "free again");
  close_store(&driver);
}

static void a_file_that_is_gone_is_said(void) {
  const char *path = fresh("gone");
  agr_store_driver driver = open_store(path);
  run_once(&driver, "k", hour);
  char away[620];
  snprintf(away, sizeof away, "%s.away", path);
  CHECK(rename(path, away) == 0);
  CHECK_EQUAL(begin(&driver, "k"), AGR_ERR_STORE, "gone");
  CHECK(strstr(error.message, "moved or removed"));
  /* It does not begin anew, with nothing known. */
  CHECK_EQUAL(begin(&driver, "k"), AGR_ERR_STORE, "still gone");
  CHECK(access(path, F_OK) != 0);
  CHECK(rename(away, path) == 0);
  CHECK(has_result(&driver, "k"));
  close_store(&driver);
}

static void a_result_that_cannot_be_kept_does_not_begin(void) {
  agr_sqlite_config config = config_of(fresh("sizes"));
  agr_store_driver driver;
  config.max_result_bytes = 4095;
  CHECK_EQUAL(try_open(&config, &driver), AGR_OK, error.message);
  CHECK_EQUAL(begin(&driver, "k"), AGR_ERR_NEVER_FITS, "too large");
  CHECK(!strcmp(error.field, "result_bytes"));
  const agr_store_key key = key_of("k");
  CHECK_EQUAL(driver.api->read(driver.self, &key, second, &sink, &state, &error), AGR_NOT_FOUND,
              "nothing began");
  close_store(&driver);
}

/* ---- time ---- */

/* No process has survived a reboot, so its leases end with it; results stay. */
static void a_reboot_ends_leases(void) {
  const char *path = fresh("reboot");
  agr_store_driver driver = open_store(path);
  run_once(&driver, "done", hour);
  CHECK_EQUAL(begin(&driver, "running"), AGR_OK, "running");
  const uint64_t lost = state.fence;
  execute(path, "UPDATE agr_store SET boot=boot+2");
  CHECK(has_result(&driver, "done"));
  CHECK_EQUAL(begin(&driver, "running"), AGR_OK, "lost with the reboot");
  CHECK(state.outcome_unknown == 1 && state.lost_fence == lost && state.fence > lost);
  close_store(&driver);
}

static void rows_that_have_ended_go(void) {
  const char *path = fresh("sweep");
  agr_store_driver driver = open_store(path);
  char name[16];
  uint64_t highest = 0;
  run_once(&driver, "kept", hour);
  CHECK_EQUAL(begin(&driver, "again"), AGR_OK, "again");
  highest = state.fence;
  CHECK_EQUAL(complete(&driver, "again", "x", 1, 1), AGR_OK, "again");
  for (int i = 0; i < 3000; ++i) {
    snprintf(name, sizeof name, "%d", i * 7919 % 3000);
    run_once(&driver, name, 1);
  }
  const long rows = count_rows(path);
  CHECK(rows > 0 && rows < 200);
  CHECK(has_result(&driver, "kept"));
  CHECK_EQUAL(begin(&driver, "again"), AGR_OK, "again");
  CHECK(state.fence > highest && !state.outcome_unknown);
  close_store(&driver);
}

/* ---- fork ---- */

static int stop;
static void *keep_busy(void *argument) {
  const agr_store_driver *driver = argument;
  agr_error own;
  const agr_store_key key = key_of("busy");
  agr_store_run_state ignored;
  long calls = 0;
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    memset(&own, 0, sizeof own);
    memset(&ignored, 0, sizeof ignored);
    const agr_status status = driver->api->read(driver->self, &key, 10 * second, &sink, &ignored, &own);
    if (status != AGR_NOT_FOUND) {
      fprintf(stderr, "a reader: %d %s\n", status, own.message);
      return (void *)1;
    }
    ++calls;
  }
  return calls > 0 ? NULL : (void *)1;
}

/* Descriptors that this process has of a file whose path ends so. */
static int descriptors_of(const char *name) {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) {
    char link[64], target[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) continue;
    target[length] = 0;
    count += strstr(target, name) != NULL;
  }
  return count;
}

/* While threads use the store, children are made which use it too. */
static void both_sides_of_a_fork_go_on(void) {
  const char *path = fresh("fork");
  agr_store_driver driver = open_store(path);
  pthread_t threads[2];
  char name[16];
  run_once(&driver, "before", hour);
  for (int i = 0; i < 2; ++i) CHECK(pthread_create(&threads[i], NULL, keep_busy, &driver) == 0);
  for (int i = 0; i < 20; ++i) {
    snprintf(name, sizeof name, "child %d", i);
    const pid_t child = fork();
    if (child == 0) {
      const int before = failures;
      CHECK_EQUAL(descriptors_of("fork"), 0, "files of the parent's connection");
      CHECK(has_result(&driver, "before"));
      CHECK(descriptors_of("fork") > 0);
      run_once(&driver, name, hour);
      close_store(&driver);
      _exit(failures == before ? 0 : 1);
    }
    int status = -1;
    snprintf(name, sizeof name, "parent %d", i);
    run_once(&driver, name, hour);
    waitpid(child, &status, 0);
    CHECK_EQUAL(status, 0, "a child");
    snprintf(name, sizeof name, "child %d", i);
    CHECK(has_result(&driver, name));
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 2; ++i) {
    void *failed = NULL;
    pthread_join(threads[i], &failed);
    CHECK(!failed);
  }
  close_store(&driver);
}

/* ---- damage ---- */

/* Everything that can be asked, of a database of which anything may be wrong. */
static void ask_everything(const char *path) {
  const agr_sqlite_config config = config_of(path);
  agr_store_driver driver;
  alarm(20);
  if (try_open(&config, &driver) != AGR_OK) {
    if (error.status >= 0 || !error.message[0]) _exit(3);
    _exit(0);
  }
  char name[16];
  for (int i = 0; i < 40; ++i) {
    snprintf(name, sizeof name, "%d", i);
    const agr_status begun = begin(&driver, name);
    const agr_store_key key = key_of(name);
    const agr_store_lease lease = {.key = key, .owner = {1, 2}, .limit = 3, .ttl_ns = hour};
    uint64_t fence;
    int64_t retry;
    if (begun == AGR_OK) complete(&driver, name, "result", 6, hour);
    driver.api->renew(driver.self, &key, state.fence, hour, hour, second, &error);
    driver.api->read(driver.self, &key, second, &sink, &state, &error);
    driver.api->give_back(driver.self, &key, state.fence, 1, hour, second, &error);
    driver.api->acquire(driver.self, &lease, second, &fence, &retry, &error);
    driver.api->extend(driver.self, &lease, second, &error);
    driver.api->release(driver.self, &lease, second, &error);
    if (begun < 0 && begun != AGR_ERR_STORE && begun != AGR_ERR_NO_MEMORY) _exit(4);
  }
  close_store(&driver);
  _exit(0);
}

static void damage(const char *from, const char *to, uint64_t *stream) {
  static unsigned char image[1 << 20];
  const int in = open(from, O_RDONLY);
  const ssize_t size = read(in, image, sizeof image);
  close(in);
  CHECK(size > 8192);
  uint64_t random;
  agr_random_next(stream, &random, NULL);
  ssize_t kept = size;
  const int edits = 1 + (int)(random % 40);
  if (random >> 60 == 0) kept = (ssize_t)(random >> 8) % size;
  for (int i = 0; i < edits; ++i) {
    agr_random_next(stream, &random, NULL);
    /* The head of a page decides most. */
    const size_t page = (random >> 32) % ((size_t)size / 4096) * 4096;
    const size_t at = random & 1 ? page + (random >> 8) % 120 : (random >> 8) % (size_t)size;
    image[at] = (unsigned char)(random >> 48);
  }
  const int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  CHECK(write(out, image, (size_t)kept) == kept);
  close(out);
}

static void a_damaged_file_is_an_error(long damages, uint64_t stream) {
  char whole[600];
  snprintf(whole, sizeof whole, "%s", fresh("whole"));
  agr_store_driver driver = open_store(whole);
  char name[16];
  for (int i = 0; i < 200; ++i) {
    snprintf(name, sizeof name, "%d", i);
    run_once(&driver, name, hour);
  }
  for (int i = 0; i < 20; ++i) {
    const agr_store_lease lease = {
        .key = key_of("lease"), .owner = {(uint64_t)i, 2}, .limit = 30, .ttl_ns = hour};
    uint64_t fence;
    int64_t retry;
    CHECK(driver.api->acquire(driver.self, &lease, second, &fence, &retry, &error) == AGR_OK);
  }
  close_store(&driver);
  for (long i = 0; i < damages; ++i) {
    const char *path = fresh("damaged");
    damage(whole, path, &stream);
    const pid_t child = fork();
    if (child == 0) ask_everything(path);
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) fprintf(stderr, "damage %ld: status %d\n", i, status);
    CHECK_EQUAL(status, 0, "a damaged file");
  }
}

int main(int count, char **arguments) {
  base = count > 1 ? arguments[1] : "faults.db";
  const uint64_t seed = count > 3 ? strtoull(arguments[3], NULL, 0) : agr_random();
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  a_configuration_is_checked();
  what_is_no_store_is_refused();
  a_new_file_is_private();
  a_file_that_cannot_be_written_is_said();
  a_full_disk_is_said();
  a_busy_database_is_waited_for();
  a_file_that_is_gone_is_said();
  a_result_that_cannot_be_kept_does_not_begin();
  a_reboot_ends_leases();
  rows_that_have_ended_go();
  both_sides_of_a_fork_go_on();
  a_damaged_file_is_an_error(count > 2 ? atol(arguments[2]) : 300, seed);
  return finish();
}
