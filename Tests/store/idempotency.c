/* SPDX-License-Identifier: Apache-2.0
 * The idempotency cache in a store: two caches are two processes that share it. With the example store in a
 * directory, and with a stub that fails when it is told to.
 *
 *   test_store_idempotency DIRECTORY */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "../../examples/c/file_store.h"
#include "../c/check.h"
#include "stub.h"

static const int64_t second = 1000000000;
static agr_error error;
static const char *directory;

static void clear_error(void) { memset(&error, 0, sizeof error); }

#define EXPECT(call, wanted)                                                       \
  do {                                                                             \
    clear_error();                                                                 \
    const agr_status status_ = (call);                                             \
    CHECK_EQUAL(status_, wanted, #call);                                           \
    if (status_ != (wanted)) fprintf(stderr, "  %s: %s\n", error.field, error.message); \
  } while (0)

/* ---- two processes, as it were ---- */

struct process {
  agr_store *store;
  agr_idempotency *cache;
};

static agr_idempotency_config cache_config(int64_t lease_ns, int32_t on_failure) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 64;
  config.lease_ns = lease_ns;
  config.on_failure = on_failure;
  return config;
}

static void start(struct process *process, const agr_idempotency_config *config) {
  agr_store_driver driver;
  EXPECT(file_store_open(directory, &driver, &error), AGR_OK);
  EXPECT(agr_store_create(&driver, NULL, &process->store, &error), AGR_OK);
  EXPECT(agr_idempotency_create_in_store(process->store, "jobs", config, NULL, &process->cache,
                                         &error),
         AGR_OK);
}

/* The store goes when its last object has. */
static void stop(struct process *process) {
  agr_store_destroy(process->store);
  agr_idempotency_destroy(process->cache);
}

static agr_lease lease;
static agr_result result;
static uint64_t ticket;

static agr_status begin(struct process *process, const char *key) {
  return agr_idempotency_begin(process->cache, key, strlen(key), NULL, 0, &lease, &result, &error);
}
static agr_status join(struct process *process, const char *key) {
  return agr_idempotency_join(process->cache, key, strlen(key), NULL, 0, &ticket, &lease, &result,
                              &error);
}
static agr_status wait_for(struct process *process, int64_t timeout) {
  return agr_idempotency_wait(process->cache, ticket, timeout, &lease, &result, &error);
}
static agr_status complete(struct process *process, uint64_t id, const char *text) {
  return agr_idempotency_complete(process->cache, id, text, strlen(text), &error);
}
static int has_result(struct process *process, const char *text, int32_t state) {
  const int same = result.length == strlen(text) && !memcmp(result.data, text, result.length) &&
                   result.state == state;
  EXPECT(agr_idempotency_release(process->cache, result.pin, &error), AGR_OK);
  return same;
}
static uint64_t lost_fence(struct process *process, uint64_t id) {
  uint64_t fence = 1;
  EXPECT(agr_idempotency_lost_fence(process->cache, id, &fence, &error), AGR_OK);
  return fence;
}

/* A key that nobody has used, also in an earlier run of this program. */
static const char *new_key(void) {
  static char keys[16][32];
  static int next;
  char *key = keys[next++ % 16];
  snprintf(key, 32, "key-%016llx", (unsigned long long)agr_random());
  return key;
}

static void a_result_is_everybodys(void) {
  struct process a, b;
  const agr_idempotency_config config = cache_config(60 * second, AGR_ON_FAILURE_FORGET);
  const char *key = new_key();
  start(&a, &config);
  start(&b, &config);
  EXPECT(begin(&a, key), AGR_OK);
  const uint64_t id = lease.id, fence = lease.fence;
  CHECK(fence && !lease.outcome_unknown && lost_fence(&a, id) == 0);
  EXPECT(begin(&a, key), AGR_IN_PROGRESS);
  EXPECT(begin(&b, key), AGR_IN_PROGRESS);
  CHECK(lease.expires_in_ns > 0 && lease.expires_in_ns <= 60 * second && !lease.id);
  EXPECT(agr_idempotency_renew(a.cache, id, 0, &error), AGR_OK);
  int32_t state = 0;
  EXPECT(agr_idempotency_state(b.cache, key, strlen(key), &state, &error), AGR_OK);
  CHECK(state == AGR_KEY_PROCESSING);
  EXPECT(complete(&a, id, "done"), AGR_OK);
  EXPECT(complete(&a, id, "done"), AGR_STALE);
  EXPECT(agr_idempotency_state(b.cache, key, strlen(key), &state, &error), AGR_OK);
  CHECK(state == AGR_KEY_SUCCESS);
  EXPECT(begin(&b, key), AGR_REPLAY);
  CHECK(has_result(&b, "done", AGR_KEY_SUCCESS));
  EXPECT(begin(&a, key), AGR_REPLAY);
  CHECK(has_result(&a, "done", AGR_KEY_SUCCESS));
  /* A process that comes later. */
  stop(&a);
  stop(&b);
  start(&a, &config);
  EXPECT(begin(&a, key), AGR_REPLAY);
  CHECK(has_result(&a, "done", AGR_KEY_SUCCESS));
  agr_store_snapshot before = {.struct_size = sizeof before}, after = before;
  EXPECT(agr_store_snapshot_read(a.store, &before, &error), AGR_OK);
  EXPECT(begin(&a, key), AGR_REPLAY);
  CHECK(has_result(&a, "done", AGR_KEY_SUCCESS));
  EXPECT(agr_store_snapshot_read(a.store, &after, &error), AGR_OK);
  CHECK_EQUAL(after.calls, before.calls, "the second replay comes from memory");
  EXPECT(agr_idempotency_state(a.cache, "never", 5, &state, &error), AGR_NOT_FOUND);
  stop(&a);
}

struct waiter {
  pthread_t thread;
  struct process *process;
  uint64_t ticket;
  agr_status status;
  agr_lease lease;
  agr_result result;
};

static void *run_waiter(void *argument) {
  struct waiter *self = argument;
  self->status = agr_idempotency_wait(self->process->cache, self->ticket, 20 * second, &self->lease,
                                      &self->result, NULL);
  return NULL;
}

/* Two wait in the other process; both get what this one makes. */
static void a_run_elsewhere_is_waited_for(void) {
  struct process a, b;
  struct waiter waiters[2] = {{.process = &b}, {.process = &b}};
  const agr_idempotency_config config = cache_config(60 * second, AGR_ON_FAILURE_FORGET);
  const char *key = new_key();
  start(&a, &config);
  start(&b, &config);
  EXPECT(begin(&a, key), AGR_OK);
  const uint64_t id = lease.id;
  for (int i = 0; i < 2; ++i) {
    EXPECT(join(&b, key), AGR_IN_PROGRESS);
    CHECK(ticket != 0 && lease.expires_in_ns > 0);
    waiters[i].ticket = ticket;
  }
  EXPECT(wait_for(&b, 20000000), AGR_TIMED_OUT);
  for (int i = 0; i < 2; ++i) {
    CHECK(pthread_create(&waiters[i].thread, NULL, run_waiter, &waiters[i]) == 0);
  }
  EXPECT(complete(&a, id, "from elsewhere"), AGR_OK);
  for (int i = 0; i < 2; ++i) {
    CHECK(pthread_join(waiters[i].thread, NULL) == 0);
    CHECK_EQUAL(waiters[i].status, AGR_REPLAY, "a waiter");
    result = waiters[i].result;
    CHECK(has_result(&b, "from elsewhere", AGR_KEY_SUCCESS));
  }
  agr_idempotency_snapshot seen = {.struct_size = sizeof seen};
  EXPECT(agr_idempotency_snapshot_read(b.cache, &seen, &error), AGR_OK);
  CHECK(seen.executed == 1 && seen.waiters == 0 && seen.leases_lost == 0 && seen.pins == 0);
  stop(&a);
  stop(&b);
}

/* The first who waits is given the turn that the other process gives up. */
static void a_turn_passes_to_another_process(void) {
  struct process a, b;
  const agr_idempotency_config config = cache_config(60 * second, AGR_ON_FAILURE_FORGET);
  const char *key = new_key();
  start(&a, &config);
  start(&b, &config);
  EXPECT(begin(&a, key), AGR_OK);
  const uint64_t fence = lease.fence;
  const uint64_t id = lease.id;
  EXPECT(join(&b, key), AGR_IN_PROGRESS);
  EXPECT(agr_idempotency_fail(a.cache, id, NULL, 0, &error), AGR_OK);
  EXPECT(wait_for(&b, 20 * second), AGR_OK);
  CHECK(lease.id && lease.fence > fence && !lease.outcome_unknown);
  EXPECT(wait_for(&b, 0), AGR_STALE);
  const uint64_t other = lease.id;
  EXPECT(begin(&a, key), AGR_IN_PROGRESS);
  (void)other;
  stop(&a);
  stop(&b);
}

static void a_lost_run_is_told_of(void) {
  struct process a, b;
  const agr_idempotency_config brief = cache_config(50000000, AGR_ON_FAILURE_FORGET);
  const agr_idempotency_config config = cache_config(60 * second, AGR_ON_FAILURE_FORGET);
  const char *key = new_key(), *left = new_key();
  start(&a, &brief);
  start(&b, &config);
  EXPECT(begin(&a, key), AGR_OK);
  const uint64_t lost = lease.fence, id = lease.id;
  EXPECT(join(&b, key), AGR_IN_PROGRESS);
  EXPECT(wait_for(&b, 20 * second), AGR_OK);
  CHECK(lease.outcome_unknown == 1 && lease.fence > lost);
  CHECK_EQUAL(lost_fence(&b, lease.id), lost, "the fence of the lost run");
  EXPECT(complete(&a, id, "late"), AGR_STALE);
  EXPECT(complete(&b, lease.id, "known"), AGR_OK);
  EXPECT(begin(&a, key), AGR_REPLAY);
  CHECK(has_result(&a, "known", AGR_KEY_SUCCESS));
  /* One that says itself that it does not know. */
  EXPECT(begin(&b, left), AGR_OK);
  const uint64_t abandoned = lease.fence;
  EXPECT(agr_idempotency_abandon(b.cache, lease.id, &error), AGR_OK);
  EXPECT(begin(&a, left), AGR_OK);
  CHECK(lease.outcome_unknown == 1 && lost_fence(&a, lease.id) == abandoned);
  stop(&a);
  stop(&b);
}

static void another_request_is_noticed(void) {
  struct process a, b;
  const agr_idempotency_config config = cache_config(60 * second, AGR_ON_FAILURE_KEEP);
  const char *key = new_key();
  start(&a, &config);
  start(&b, &config);
  EXPECT(agr_idempotency_begin(a.cache, key, strlen(key), "one", 3, &lease, &result, &error), AGR_OK);
  const uint64_t id = lease.id;
  EXPECT(agr_idempotency_begin(b.cache, key, strlen(key), "two", 3, &lease, &result, &error),
         AGR_MISMATCH);
  EXPECT(agr_idempotency_join(b.cache, key, strlen(key), "two", 3, &ticket, &lease, &result, &error),
         AGR_MISMATCH);
  CHECK(ticket == 0);
  EXPECT(agr_idempotency_begin(b.cache, key, strlen(key), "one", 3, &lease, &result, &error),
         AGR_IN_PROGRESS);
  EXPECT(agr_idempotency_fail(a.cache, id, "why", 3, &error), AGR_OK);
  EXPECT(agr_idempotency_begin(b.cache, key, strlen(key), "one", 3, &lease, &result, &error),
         AGR_REPLAY);
  CHECK(has_result(&b, "why", AGR_KEY_FAILED));
  stop(&a);
  stop(&b);
}

/* ---- a store that fails ---- */

struct failing {
  struct stub stub;
  agr_store *store;
  agr_idempotency *cache;
};

static void make_failing(struct failing *all, int32_t on_error, uint32_t max_failures) {
  memset(&all->stub, 0, sizeof all->stub);
  const agr_store_driver driver = {&stub_api, &all->stub};
  agr_store_config config;
  agr_store_config_init(&config, sizeof config);
  config.max_failures = max_failures;
  EXPECT(agr_store_create(&driver, &config, &all->store, &error), AGR_OK);
  agr_store_options options;
  agr_store_options_init(&options, sizeof options);
  options.on_error = on_error;
  options.max_result_bytes = 8;
  const agr_idempotency_config cache = cache_config(60 * second, AGR_ON_FAILURE_FORGET);
  EXPECT(agr_idempotency_create_in_store(all->store, "jobs", &cache, &options, &all->cache, &error),
         AGR_OK);
  all->stub.message = "the disk is full";
}

static agr_status ask(struct failing *all, const char *key) {
  return agr_idempotency_begin(all->cache, key, strlen(key), NULL, 0, &lease, &result, &error);
}

static void end_failing(struct failing *all) {
  agr_idempotency_destroy(all->cache);
  agr_store_destroy(all->store);
  CHECK_EQUAL(all->stub.destroyed, 1, "the driver");
}

static void fail_closed(void) {
  struct failing all;
  make_failing(&all, AGR_STORE_REFUSE, 0);
  all.stub.answer = AGR_ERR_STORE;
  EXPECT(ask(&all, "k"), AGR_ERR_STORE);
  CHECK(!strcmp(error.field, "stub") && !strcmp(error.message, "the disk is full") && !lease.id);
  CHECK_EQUAL(all.stub.calls, 2, "it is asked once more");
  EXPECT(agr_idempotency_join(all.cache, "k", 1, NULL, 0, &ticket, &lease, &result, &error),
         AGR_ERR_STORE);
  CHECK(!ticket);
  int32_t state;
  EXPECT(agr_idempotency_state(all.cache, "k", 1, &state, &error), AGR_ERR_STORE);
  /* It recovers by itself. */
  all.stub.answer = AGR_OK;
  EXPECT(ask(&all, "k"), AGR_OK);
  const uint64_t id = lease.id;
  /* The result waits until it can be kept. */
  all.stub.answer = AGR_ERR_STORE;
  EXPECT(agr_idempotency_complete(all.cache, id, "result", 6, &error), AGR_ERR_STORE);
  EXPECT(agr_idempotency_renew(all.cache, id, 0, &error), AGR_ERR_STORE);
  EXPECT(ask(&all, "k"), AGR_IN_PROGRESS);
  EXPECT(agr_idempotency_complete(all.cache, id, "too long!", 9, &error), AGR_ERR_NEVER_FITS);
  all.stub.answer = AGR_OK;
  EXPECT(agr_idempotency_complete(all.cache, id, "result", 6, &error), AGR_OK);
  EXPECT(ask(&all, "k"), AGR_REPLAY);
  EXPECT(agr_idempotency_release(all.cache, result.pin, &error), AGR_OK);
  /* The store says that a lease is lost. */
  EXPECT(ask(&all, "l"), AGR_OK);
  all.stub.answer = AGR_STALE;
  EXPECT(agr_idempotency_complete(all.cache, lease.id, "late", 4, &error), AGR_STALE);
  all.stub.answer = AGR_OK;
  EXPECT(ask(&all, "l"), AGR_OK);
  CHECK(lease.outcome_unknown == 1);
  /* What is no answer. */
  all.stub.answer = AGR_OPEN;
  EXPECT(ask(&all, "m"), AGR_ERR_STORE);
  CHECK(error.message[0]);
  /* What the store says of a request is no failure of the store. */
  all.stub.answer = AGR_ERR_NEVER_FITS;
  EXPECT(ask(&all, "n"), AGR_ERR_NEVER_FITS);
  end_failing(&all);
}

/* Each way to end or to lengthen a run, when the store says that it is no longer the caller's, and after that. */
static void a_lease_that_is_lost_is_stale(void) {
  enum { COMPLETE, FAIL, ABANDON, RENEW, WAYS };
  struct failing all;
  make_failing(&all, AGR_STORE_REFUSE, 0);
  for (int way = 0; way < WAYS; ++way) {
    const char key[] = {(char)('a' + way), 0};
    all.stub.answer = AGR_OK;
    EXPECT(ask(&all, key), AGR_OK);
    const uint64_t id = lease.id;
    EXPECT(agr_idempotency_renew(all.cache, id, -1, &error), AGR_ERR_ARGUMENT);
    CHECK(!strcmp(error.field, "lease_ns"));
    all.stub.answer = AGR_STALE;
    for (int again = 0; again < 2; ++again) {
      const long calls = all.stub.calls;
      EXPECT(way == COMPLETE  ? agr_idempotency_complete(all.cache, id, "late", 4, &error)
             : way == FAIL    ? agr_idempotency_fail(all.cache, id, NULL, 0, &error)
             : way == ABANDON ? agr_idempotency_abandon(all.cache, id, &error)
                              : agr_idempotency_renew(all.cache, id, 0, &error),
             AGR_STALE);
      CHECK_EQUAL(all.stub.calls - calls, !again, "what is known to be lost is not asked for");
    }
    all.stub.answer = AGR_OK;
    EXPECT(ask(&all, key), AGR_OK);
    CHECK(lease.outcome_unknown == 1 && lease.id != id);
  }
  end_failing(&all);
}

static void fail_open(void) {
  struct failing all;
  make_failing(&all, AGR_STORE_ADMIT, 0);
  all.stub.answer = AGR_ERR_STORE;
  EXPECT(ask(&all, "k"), AGR_OK);
  CHECK(lease.id && lease.fence == 0);
  const uint64_t id = lease.id;
  /* Those of this process still meet. */
  EXPECT(agr_idempotency_join(all.cache, "k", 1, NULL, 0, &ticket, &lease, &result, &error),
         AGR_IN_PROGRESS);
  EXPECT(agr_idempotency_complete(all.cache, id, "result", 6, &error), AGR_OK);
  EXPECT(agr_idempotency_wait(all.cache, ticket, 0, &lease, &result, &error), AGR_REPLAY);
  EXPECT(agr_idempotency_release(all.cache, result.pin, &error), AGR_OK);
  /* And nothing is remembered. */
  EXPECT(ask(&all, "k"), AGR_OK);
  agr_store_snapshot seen = {.struct_size = sizeof seen};
  EXPECT(agr_store_snapshot_read(all.store, &seen, &error), AGR_OK);
  CHECK_EQUAL(seen.fallbacks, 2, "fallbacks");
  end_failing(&all);
}

static void go_on_locally(void) {
  struct failing all;
  make_failing(&all, AGR_STORE_LOCAL, 0);
  all.stub.answer = AGR_ERR_STORE;
  EXPECT(ask(&all, "k"), AGR_OK);
  CHECK(lease.fence == 0);
  EXPECT(agr_idempotency_renew(all.cache, lease.id, 0, &error), AGR_OK);
  EXPECT(agr_idempotency_complete(all.cache, lease.id, "result", 6, &error), AGR_OK);
  EXPECT(ask(&all, "k"), AGR_REPLAY);
  CHECK(result.length == 6);
  EXPECT(agr_idempotency_release(all.cache, result.pin, &error), AGR_OK);
  EXPECT(ask(&all, "l"), AGR_OK);
  EXPECT(agr_idempotency_fail(all.cache, lease.id, NULL, 0, &error), AGR_OK);
  EXPECT(ask(&all, "l"), AGR_OK);
  EXPECT(agr_idempotency_abandon(all.cache, lease.id, &error), AGR_OK);
  EXPECT(ask(&all, "l"), AGR_OK);
  CHECK(lease.outcome_unknown == 1);
  end_failing(&all);
}

/* A store that has failed several times is left alone for a while, and a ping that it answers ends that. */
static void a_store_that_is_down_costs_nothing(void) {
  struct failing all;
  make_failing(&all, AGR_STORE_REFUSE, 4);
  all.stub.answer = AGR_ERR_STORE;
  for (int i = 0; i < 2; ++i) EXPECT(ask(&all, "k"), AGR_ERR_STORE);
  CHECK_EQUAL(all.stub.calls, 4, "calls");
  agr_store_snapshot seen = {.struct_size = sizeof seen};
  EXPECT(agr_store_snapshot_read(all.store, &seen, &error), AGR_OK);
  CHECK(seen.state == AGR_BREAKER_OPEN && seen.failures == 4 && seen.retry_after_ns > 0);
  const long calls = all.stub.calls;
  EXPECT(ask(&all, "k"), AGR_ERR_STORE);
  CHECK(!strcmp(error.field, "stub") && error.message[0]);
  EXPECT(agr_store_snapshot_read(all.store, &seen, &error), AGR_OK);
  CHECK(seen.refused > 0 || all.stub.calls > calls);
  EXPECT(agr_store_ping(all.store, 0, &error), AGR_ERR_STORE);
  all.stub.answer = AGR_OK;
  EXPECT(agr_store_ping(all.store, 0, &error), AGR_OK);
  EXPECT(ask(&all, "k"), AGR_OK);
  end_failing(&all);
}

/* ---- what cannot be created ---- */

static void creation_is_checked(void) {
  struct stub stub = {.answer = AGR_OK};
  agr_store_api api = stub_api;
  agr_store *store = NULL;
  agr_idempotency *cache = NULL;
  const agr_idempotency_config config = cache_config(second, AGR_ON_FAILURE_FORGET);
  api.begin = NULL, api.read = NULL, api.renew = NULL, api.complete = NULL, api.give_back = NULL;
  const agr_store_driver driver = {&api, &stub};
  EXPECT(agr_store_create(&driver, NULL, &store, &error), AGR_OK);
  EXPECT(agr_idempotency_create_in_store(store, "a", &config, NULL, &cache, &error),
         AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "store") && !cache);
  EXPECT(agr_idempotency_create_in_store(store, "a b", &config, NULL, &cache, &error),
         AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "name"));
  agr_store_destroy(store);
  CHECK(stub.destroyed == 1);
}

int main(int count, char **arguments) {
  directory = count > 1 ? arguments[1] : "idempotency_store";
  a_result_is_everybodys();
  a_run_elsewhere_is_waited_for();
  a_turn_passes_to_another_process();
  a_lost_run_is_told_of();
  another_request_is_noticed();
  fail_closed();
  a_lease_that_is_lost_is_stale();
  fail_open();
  go_on_locally();
  a_store_that_is_down_costs_nothing();
  creation_is_checked();
  return finish();
}
