/* SPDX-License-Identifier: Apache-2.0
 * Workers that share one SQLite store are killed at random points, and others take their places. No result whose
 * completion was acknowledged is lost, no key runs after it, and no key runs twice without saying so.
 *
 *   test_store_kill FILE [KILLS [SEED]] */
#define _GNU_SOURCE
#include <autoglm_reliability.h>
#include <autoglm_reliability/sqlite.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../c/check.h"

enum { WORKERS = 4, KEYS = 100000 };

/* What the workers did, in memory that survives them. What is written here has happened in the store; what has
 * happened in the store may be missing here, when the worker was killed in between. */
struct key {
  uint64_t fence; /* of the last run that began */
  uint32_t runs, is_done;
};
struct shared {
  struct key keys[KEYS];
  long next, begun, completed, replayed, told, failures;
};
static struct shared *shared;
static const int64_t lease = 30000000, hour = 3600000000000;

static void fault(const char *what, int index) {
  fprintf(stderr, "key %d: %s\n", index, what);
  __atomic_add_fetch(&shared->failures, 1, __ATOMIC_SEQ_CST);
}

struct room {
  char bytes[64];
  size_t length;
};
static void *reserve(void *context, size_t length) {
  struct room *room = context;
  room->length = length;
  return length <= sizeof room->bytes ? room->bytes : NULL;
}

static agr_store_driver open_store(const char *path) {
  agr_store_driver driver;
  agr_sqlite_config config;
  agr_error error;
  agr_sqlite_config_init(&config, sizeof config);
  config.path = path;
  config.synchronous = AGR_SQLITE_NORMAL;
  if (agr_sqlite_open(&config, &driver, &error) != AGR_OK) {
    fprintf(stderr, "open: %s\n", error.message);
    fault("cannot be opened", -1);
    _exit(1);
  }
  return driver;
}

/* A run that began: everything that is known of earlier ones must be said. */
static void check_begin(int index, const agr_store_run_state *state) {
  struct key *key = &shared->keys[index];
  if (__atomic_load_n(&key->is_done, __ATOMIC_SEQ_CST)) fault("runs after it was done", index);
  if (key->runs && !state->outcome_unknown) fault("runs again and does not say so", index);
  if (state->fence <= key->fence) fault("has a fence that does not grow", index);
  if (state->outcome_unknown && state->lost_fence < key->fence)
    fault("names a fence that is not the last", index);
  if (state->outcome_unknown) __atomic_add_fetch(&shared->told, 1, __ATOMIC_SEQ_CST);
  key->fence = state->fence;
  __atomic_add_fetch(&key->runs, 1, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&shared->begun, 1, __ATOMIC_SEQ_CST);
}

static void visit(const agr_store_driver *driver, int index, uint64_t owner) {
  char name[24], result[24];
  agr_error error = {0};
  struct room room;
  const agr_store_sink sink = {reserve, &room};
  agr_store_run_state state = {0};
  const int length = snprintf(name, sizeof name, "key-%d", index);
  const int size = snprintf(result, sizeof result, "result of %d", index);
  const agr_store_run run = {.key = {"kill", 4, name, (size_t)length},
                             .owner = {owner, agr_random()},
                             .lease_ns = lease,
                             .ttl_ns = hour,
                             .result_bytes = 64};
  const agr_status status =
      driver->api->begin(driver->self, &run, 20 * 1000000000LL, &sink, &state, &error);
  if (status == AGR_OK) {
    check_begin(index, &state);
    const agr_status ended =
        driver->api->complete(driver->self, &run.key, state.fence, AGR_KEY_SUCCESS, result,
                              (size_t)size, hour, 20 * 1000000000LL, &error);
    if (ended == AGR_OK) {
      __atomic_store_n(&shared->keys[index].is_done, 1, __ATOMIC_SEQ_CST);
      __atomic_add_fetch(&shared->completed, 1, __ATOMIC_SEQ_CST);
    } else if (ended != AGR_STALE) {
      fault(error.message, index);
    }
  } else if (status == AGR_REPLAY) {
    __atomic_add_fetch(&shared->replayed, 1, __ATOMIC_SEQ_CST);
    if (room.length != (size_t)size || memcmp(room.bytes, result, room.length))
      fault("has another result", index);
  } else if (status != AGR_IN_PROGRESS) {
    fault(error.message, index);
  } else if (__atomic_load_n(&shared->keys[index].is_done, __ATOMIC_SEQ_CST)) {
    fault("is in progress after it was done", index);
  }
}

/* New keys, and those that others have left behind or done. */
static void work(const char *path) {
  const agr_store_driver driver = open_store(path);
  const uint64_t owner = agr_random();
  for (;;) {
    const long index = __atomic_fetch_add(&shared->next, 1, __ATOMIC_SEQ_CST) % KEYS;
    visit(&driver, (int)index, owner);
    visit(&driver, (int)((index + KEYS - agr_random() % 200) % KEYS), owner);
  }
}

static pid_t start(const char *path) {
  const pid_t child = fork();
  if (child == 0) {
    work(path);
    _exit(0);
  }
  return child;
}

/* Every result that was acknowledged is there, and every run that was lost is told of. */
static void settle(const char *path) {
  const agr_store_driver driver = open_store(path);
  long done = 0, lost = 0;
  for (int i = 0; i < KEYS; ++i) {
    struct key *key = &shared->keys[i];
    if (!key->runs) continue;
    if (key->is_done) {
      ++done;
      const long replayed = shared->replayed;
      visit(&driver, i, 1);
      if (shared->replayed != replayed + 1) fault("has lost its result", i);
      continue;
    }
    /* Its result may be there, when the worker was killed before it could say so; or its lease ends. */
    ++lost;
    const long before = shared->replayed;
    while (!key->is_done && shared->replayed == before && !shared->failures) visit(&driver, i, 1);
  }
  CHECK(done > 0);
  printf("%ld keys were under way when their workers ended\n", lost);
  driver.api->destroy(driver.self);
}

static int is_whole(const char *path) {
  sqlite3 *database;
  sqlite3_stmt *check;
  int whole = 0;
  if (sqlite3_open(path, &database) == SQLITE_OK &&
      sqlite3_prepare_v2(database, "PRAGMA integrity_check", -1, &check, NULL) == SQLITE_OK &&
      sqlite3_step(check) == SQLITE_ROW) {
    whole = !strcmp((const char *)sqlite3_column_text(check, 0), "ok");
    sqlite3_finalize(check);
  }
  sqlite3_close(database);
  return whole;
}

int main(int count, char **arguments) {
  const char *path = count > 1 ? arguments[1] : "kill.db";
  const long kills = count > 2 ? atol(arguments[2]) : 1000;
  uint64_t stream = count > 3 ? strtoull(arguments[3], NULL, 0) : agr_random();
  printf("seed %llu\n", (unsigned long long)stream);
  fflush(stdout);
  char beside[600];
  const char *ends[] = {"", "-wal", "-shm"};
  for (int i = 0; i < 3; ++i) {
    snprintf(beside, sizeof beside, "%s%s", path, ends[i]);
    unlink(beside);
  }
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  pid_t workers[WORKERS];
  for (int i = 0; i < WORKERS; ++i) workers[i] = start(path);
  for (long i = 0; i < kills; ++i) {
    uint64_t random;
    agr_random_next(&stream, &random, NULL);
    const int victim = (int)(random % WORKERS);
    /* How long a worker lives is chance. */
    nanosleep(&(struct timespec){.tv_nsec = (long)(random >> 8) % 6000000}, NULL);
    int status;
    CHECK(kill(workers[victim], SIGKILL) == 0);
    CHECK(waitpid(workers[victim], &status, 0) == workers[victim]);
    CHECK(WIFSIGNALED(status));
    workers[victim] = start(path);
  }
  for (int i = 0; i < WORKERS; ++i) {
    kill(workers[i], SIGKILL);
    waitpid(workers[i], NULL, 0);
  }
  settle(path);
  CHECK(is_whole(path));
  CHECK_EQUAL(shared->failures, 0, "what must not happen");
  CHECK(shared->told > 0);
  printf("%ld kills; %ld runs begun, %ld completed, %ld results replayed, %ld runs told of a lost one\n",
         kills, shared->begun, shared->completed, shared->replayed, shared->told);
  return finish();
}
