/* SPDX-License-Identifier: Apache-2.0
 * Requests of several threads that share a transaction: each has its own time and its own answer.
 *
 *   test_store_batch FILE */
#define _GNU_SOURCE
#include <pthread.h>
#include <sqlite3.h>

#include "sqlite_store.h"

enum { MOST = 8, ROUNDS = 50 };
static const uint64_t unlucky = 13;

struct caller {
  pthread_t thread;
  const agr_store_driver *driver;
  char key[16];
  uint64_t owner;
  int64_t timeout;
  agr_status status;
  agr_error error;
};
static void *call(void *argument) {
  struct caller *self = argument;
  const agr_store_run run = {.key = key_of(self->key),
                             .owner = {self->owner, 1},
                             .lease_ns = hour,
                             .ttl_ns = hour};
  agr_store_run_state own = {0};
  self->status =
      self->driver->api->begin(self->driver->self, &run, self->timeout, &sink, &own, &self->error);
  return NULL;
}

static struct caller callers[MOST];
static void start(int place, const agr_store_driver *driver, const char *key, uint64_t owner,
                  int64_t timeout) {
  callers[place] = (struct caller){.driver = driver, .owner = owner, .timeout = timeout};
  snprintf(callers[place].key, sizeof callers[place].key, "%s", key);
  CHECK(pthread_create(&callers[place].thread, NULL, call, &callers[place]) == 0);
}
static agr_status end(int place) {
  CHECK(pthread_join(callers[place].thread, NULL) == 0);
  return callers[place].status;
}

/* Another program's connection, which keeps all others from writing. */
static sqlite3 *hold(const char *path) {
  sqlite3 *other;
  CHECK(sqlite3_open(path, &other) == SQLITE_OK);
  CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
  return other;
}
static void let_go(sqlite3 *other) {
  CHECK(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
  sqlite3_close(other);
}

static int is_unknown(const agr_store_driver *driver, const char *name) {
  const agr_store_key key = key_of(name);
  memset(&error, 0, sizeof error);
  return driver->api->read(driver->self, &key, second, &sink, &state, &error) == AGR_NOT_FOUND;
}

/* Who waits behind a call that waits for the database keeps to his own time, and takes his request back. */
static void a_call_behind_another_keeps_its_time(void) {
  const char *path = fresh("queue");
  agr_store_driver driver = open_store(path);
  sqlite3 *other = hold(path);
  start(0, &driver, "patient", 1, 60 * second);
  for (int i = 0; i < 20; ++i) {
    CHECK_EQUAL(begin_for(&driver, "hasty", 5000000, hour), AGR_ERR_STORE, "hasty");
    CHECK(strstr(error.message, "timed out"));
  }
  let_go(other);
  CHECK_EQUAL(end(0), AGR_OK, "patient");
  CHECK(is_unknown(&driver, "hasty")); /* what was taken back did not begin */
  close_store(&driver);
}

/* The first leads until its time is over; then one with much time leads one with little. */
static void the_hasty_do_not_wait_for_the_patient(void) {
  const char *path = fresh("batch");
  agr_store_driver driver = open_store(path);
  sqlite3 *other = hold(path);
  start(0, &driver, "first", 1, 50000000);
  start(1, &driver, "patient", 1, 60 * second);
  start(2, &driver, "hasty", 1, 100000000);
  CHECK_EQUAL(end(0), AGR_ERR_STORE, "the first");
  CHECK_EQUAL(end(2), AGR_ERR_STORE, "the hasty one");
  CHECK(strstr(callers[2].error.message, "timed out"));
  let_go(other);
  CHECK_EQUAL(end(1), AGR_OK, "the patient one");
  CHECK(is_unknown(&driver, "first") && is_unknown(&driver, "hasty"));
  close_store(&driver);
}

/* A request that cannot be carried out takes nobody's with it. */
static void one_that_fails_spoils_no_other(void) {
  const char *path = fresh("spoiled");
  agr_store_driver driver = open_store(path);
  sqlite3 *other = hold(path);
  CHECK(sqlite3_exec(other,
                     "CREATE TRIGGER unlucky BEFORE INSERT ON agr_store WHEN NEW.owner_a = 13 "
                     "BEGIN SELECT RAISE(ABORT, 'an unlucky number'); END",
                     NULL, NULL, NULL) == SQLITE_OK);
  for (int round = 0; round < ROUNDS; ++round) {
    /* They queue up while nobody can write. */
    for (int i = 0; i < MOST; ++i) {
      char key[16];
      snprintf(key, sizeof key, "%d.%d", round, i);
      start(i, &driver, key, i == MOST / 2 ? unlucky : 1, 60 * second);
    }
    let_go(other);
    for (int i = 0; i < MOST; ++i) {
      CHECK_EQUAL(end(i), i == MOST / 2 ? AGR_ERR_STORE : AGR_OK, callers[i].error.message);
    }
    CHECK(strstr(callers[MOST / 2].error.message, "constraint"));
    CHECK(is_unknown(&driver, callers[MOST / 2].key));
    CHECK(!is_unknown(&driver, callers[0].key) && !is_unknown(&driver, callers[MOST - 1].key));
    other = hold(path);
  }
  let_go(other);
  close_store(&driver);
}

int main(int count, char **arguments) {
  base = count > 1 ? arguments[1] : "batch.db";
  a_call_behind_another_keeps_its_time();
  the_hasty_do_not_wait_for_the_patient();
  one_that_fails_spoils_no_other();
  return finish();
}
