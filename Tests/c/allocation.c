/* SPDX-License-Identifier: Apache-2.0
 * The n-th request for memory fails, for every n: in each function that makes something, in each
 * call that keeps something, and in a day's work from the first touch of the library on. Nothing
 * may be lost, every handle stays good, and the next try succeeds. Likewise when descriptors run
 * out. */
#include "heap.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../store/stub.h"
#include "operations.h"

static agr_error error;
static long points;

static int open_descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

/* ---- creation ---- */

struct maker {
  const char *name;
  agr_status (*make)(void **out);
  void (*destroy)(void *made);
};

static agr_status create_limiter(void **out) {
  return agr_limiter_create(&parts.limiter_config, (agr_limiter **)out, &error);
}
static agr_status create_limiter_at(void **out) {
  return agr_limiter_create_at(&parts.limiter_config, 1, (agr_limiter **)out, &error);
}
static agr_status create_keyed(void **out) {
  return agr_keyed_limiter_create(&parts.keyed_config, (agr_keyed_limiter **)out, &error);
}
static agr_status create_breaker(void **out) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  return agr_breaker_create(&config, (agr_breaker **)out, &error);
}
static agr_status create_time_breaker(void **out) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  config.window = AGR_WINDOW_TIME;
  return agr_breaker_create(&config, (agr_breaker **)out, &error);
}
static agr_status create_budget(void **out) {
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  return agr_retry_budget_create(&config, (agr_retry_budget **)out, &error);
}
static agr_status create_budget_at(void **out) {
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  return agr_retry_budget_create_at(&config, 1, (agr_retry_budget **)out, &error);
}
static agr_status create_cache(void **out) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 256;
  return agr_idempotency_create(&config, (agr_idempotency **)out, &error);
}
/* With all that it can copy: rules, an answer, a table of answers. */
static agr_status create_policy(void **out) {
  const agr_retry_rule rules[] = {{AGR_DOMAIN_HTTP, 500, 599, AGR_CLASS_TRANSIENT, 3, 0, 1000}};
  agr_retry_config retry = parts.retry;
  retry.rules = rules;
  retry.rule_count = 1;
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = parts.cache;
  config.breaker = parts.breaker;
  config.budget = parts.budget;
  config.retry = &retry;
  config.limiters[0] = parts.limiter;
  config.limiter_count = 1;
  config.cached_entries = 16;
  config.fallback = AGR_FALLBACK_CACHED_OR_DEFAULT;
  config.fallback_data = "default";
  config.fallback_length = 7;
  return agr_policy_create(&config, (agr_policy **)out, &error);
}

static agr_status create_store(void **out) {
  const agr_store_driver driver = {&stub_api, NULL};
  return agr_store_create(&driver, NULL, (agr_store **)out, &error);
}

static void destroy_limiter(void *made) { agr_limiter_destroy(made); }
static void destroy_keyed(void *made) { agr_keyed_limiter_destroy(made); }
static void destroy_breaker(void *made) { agr_breaker_destroy(made); }
static void destroy_budget(void *made) { agr_retry_budget_destroy(made); }
static void destroy_cache(void *made) { agr_idempotency_destroy(made); }
static void destroy_store(void *made) { agr_store_destroy(made); }
static void destroy_policy(void *made) { agr_policy_destroy(made); }

static const struct maker makers[] = {
    {"agr_limiter_create", create_limiter, destroy_limiter},
    {"agr_limiter_create_at", create_limiter_at, destroy_limiter},
    {"agr_keyed_limiter_create", create_keyed, destroy_keyed},
    {"agr_breaker_create", create_breaker, destroy_breaker},
    {"agr_breaker_create, time window", create_time_breaker, destroy_breaker},
    {"agr_retry_budget_create", create_budget, destroy_budget},
    {"agr_retry_budget_create_at", create_budget_at, destroy_budget},
    {"agr_idempotency_create", create_cache, destroy_cache},
    {"agr_policy_create", create_policy, destroy_policy},
    {"agr_store_create", create_store, destroy_store},
};

static int is_no_memory(agr_status status) {
  return status == AGR_ERR_NO_MEMORY && error.status == AGR_ERR_NO_MEMORY && error.message[0];
}

/* Every request of a creation fails once; its parts are not held by what was never made. */
static void fail_creation(const struct maker *maker) {
  long n = 0;
  for (int failed = 1; failed;) {
    void *made = NULL;
    const long live = heap_live;
    memset(&error, 0, sizeof error);
    heap_watch(++n);
    const agr_status status = maker->make(&made);
    failed = heap_relent();
    if (failed) {
      ++points;
      CHECK(is_no_memory(status) && !made);
      CHECK_EQUAL(heap_live - live, 0, maker->name);
      CHECK_EQUAL(maker->make(&made), AGR_OK, maker->name);
    } else {
      CHECK_EQUAL(status, AGR_OK, maker->name);
    }
    maker->destroy(made);
    CHECK_EQUAL(heap_live - live, 0, maker->name);
  }
  CHECK(n > 1);
}

/* ---- calls that keep something ---- */

static agr_lease lease;
static agr_result result;
static agr_call *call;
static agr_step step;
static const char *const text = "what is kept";

static agr_status begin(void) {
  return agr_idempotency_begin_at(parts.cache, "new", 3, text, 4, parts.now, &lease, &result,
                                  &error);
}
static agr_status join_new(void) {
  uint64_t ticket;
  return agr_idempotency_join_at(parts.cache, "new", 3, text, 4, parts.now, &ticket, &lease,
                                 &result, &error);
}
static agr_status complete(void) {
  return agr_idempotency_complete_at(parts.cache, lease.id, text, 12, parts.now, &error);
}
static agr_status fail_kept(void) {
  return agr_idempotency_fail_at(parts.cache, lease.id, text, 12, parts.now, &error);
}

/* A refusal for want of memory is a step: it is taken for the status that it stands for. */
static agr_status call_with(const char *key) {
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = key;
  request.key_length = strlen(key);
  step = (agr_step){.struct_size = sizeof step};
  const agr_status status =
      agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, &error);
  if (status != AGR_OK || step.reason != AGR_REASON_NO_MEMORY) return status;
  agr_call_destroy_at(call, parts.now);
  error.status = AGR_ERR_NO_MEMORY;
  error.message[0] = '-';
  return AGR_ERR_NO_MEMORY;
}
static agr_status call_without_key(void) { return call_with(""); }
static agr_status call_with_key(void) { return call_with("new"); }

static void attempt(const agr_step *made, agr_outcome *outcome, void *data) {
  (void)made;
  (void)data;
  outcome->error_class = AGR_CLASS_SUCCESS;
}
static agr_status execute(void) {
  step = (agr_step){.struct_size = sizeof step};
  return agr_policy_execute(parts.policy, NULL, attempt, NULL, &call, &step, &error);
}

static void nothing(void) {}
static void begin_first(void) { CHECK(begin() == AGR_OK); }
static void end_call(void) { agr_call_destroy_at(call, parts.now); }
static void warm_calls(void) {
  CHECK(call_without_key() == AGR_OK);
  end_call();
}

/* Nothing stands in for what is refused. */
static void warm_calls_alone(void) {
  CHECK(agr_policy_set_fallback(parts.policy, AGR_FALLBACK_NONE, NULL) == AGR_OK);
  warm_calls();
}

static const struct keeper {
  const char *name;
  void (*before)(void);
  agr_status (*act)(void);
  void (*after)(void);
} keepers[] = {
    {"agr_idempotency_begin", nothing, begin, nothing},
    {"agr_idempotency_join", nothing, join_new, nothing},
    {"agr_idempotency_complete", begin_first, complete, nothing},
    {"agr_idempotency_fail", begin_first, fail_kept, nothing},
    {"agr_call_begin", nothing, call_without_key, end_call},
    {"agr_call_begin, key", warm_calls_alone, call_with_key, end_call},
    {"agr_policy_execute", nothing, execute, end_call},
};

/* The cache keeps failures here, so that they need memory. */
static void make_keeping_parts(void) {
  configure_parts();
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 64;
  config.on_failure = AGR_ON_FAILURE_KEEP;
  CHECK(agr_idempotency_create(&config, &parts.cache, NULL) == AGR_OK);
  CHECK(make_limiter(&parts.limiter) == AGR_OK && make_breaker(&parts.breaker) == AGR_OK);
  CHECK(make_budget(&parts.budget) == AGR_OK && make_policy(parts.cache, &parts.policy) == AGR_OK);
}

static void fail_keeping(const struct keeper *keeper) {
  long n = 0;
  for (int failed = 1; failed;) {
    const long before = heap_live;
    make_keeping_parts();
    keeper->before();
    const long live = heap_live;
    memset(&error, 0, sizeof error);
    heap_watch(++n);
    const agr_status status = keeper->act();
    failed = heap_relent();
    if (failed) {
      ++points;
      CHECK_EQUAL(status, AGR_ERR_NO_MEMORY, keeper->name);
      CHECK(is_no_memory(status));
      CHECK_EQUAL(heap_live - live, 0, keeper->name);
      agr_idempotency_snapshot snapshot = {.struct_size = sizeof snapshot};
      CHECK(agr_idempotency_snapshot_read(parts.cache, &snapshot, NULL) == AGR_OK);
      CHECK_EQUAL(keeper->act(), AGR_OK, keeper->name);
    } else {
      CHECK_EQUAL(status, AGR_OK, keeper->name);
    }
    keeper->after();
    destroy_parts();
    CHECK_EQUAL(heap_live - before, 0, keeper->name);
  }
  CHECK(n > 1);
}

/* ---- what a policy does without the memory for a result ---- */

/* A success stays one; a result that cannot be kept leaves the outcome of its key unknown, and an
 * answer that cannot be kept is not found later. */
static void fail_results(void) {
  make_keeping_parts();
  warm_calls();
  int lost_results = 0, lost_answers = 0;
  const char keys[][2] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  int failed = 1, n = 0;
  while (failed && n < 8) {
    const char *key = keys[n];
    agr_request request;
    agr_request_init(&request, sizeof request);
    request.key = request.cache_key = key;
    request.key_length = request.cache_key_length = 1;
    step = (agr_step){.struct_size = sizeof step};
    CHECK(agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, NULL) == AGR_OK);
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.result = text;
    outcome.result_length = 12;
    heap_watch(++n);
    CHECK(agr_call_advance_at(call, &outcome, parts.now, &step, NULL) == AGR_OK);
    failed = heap_relent();
    points += failed;
    CHECK_EQUAL(step.reason, AGR_REASON_SUCCEEDED, key);
    end_call();
    const agr_status status =
        agr_idempotency_begin_at(parts.cache, key, 1, NULL, 0, parts.now, &lease, &result, NULL);
    CHECK(status == AGR_REPLAY || (status == AGR_OK && lease.outcome_unknown == 1));
    CHECK(failed || status == AGR_REPLAY);
    lost_results += status == AGR_OK;
    /* The cached answer, for a call that is refused. */
    CHECK(agr_breaker_force_at(parts.breaker, AGR_BREAKER_FORCED_OPEN, parts.now, NULL) == AGR_OK);
    request.key_length = 0;
    CHECK(agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, NULL) == AGR_OK);
    CHECK(step.reason == AGR_REASON_FALLBACK_CACHED || step.reason == AGR_REASON_FALLBACK_DEFAULT);
    lost_answers += step.reason == AGR_REASON_FALLBACK_DEFAULT;
    end_call();
    CHECK(agr_breaker_force_at(parts.breaker, AGR_BREAKER_AUTOMATIC, parts.now, NULL) == AGR_OK);
  }
  CHECK(!failed && lost_results == 1 && lost_answers == 1);
  /* The copy of a cached answer fails: the default stands in. */
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.cache_key = keys[n - 1];
  request.cache_key_length = 1;
  CHECK(agr_breaker_force_at(parts.breaker, AGR_BREAKER_FORCED_OPEN, parts.now, NULL) == AGR_OK);
  heap_watch(1);
  CHECK(agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, NULL) == AGR_OK);
  CHECK(heap_relent());
  ++points;
  CHECK_EQUAL(step.reason, AGR_REASON_FALLBACK_DEFAULT, "copy of an answer");
  CHECK(step.result && !memcmp(step.result, "default", 7));
  end_call();
  destroy_parts();
}

/* ---- descriptors ---- */

static void fail_descriptors(void) {
  make_keeping_parts();
  warm_calls();
  begin_first();
  agr_lease other;
  uint64_t ticket;
  int32_t fd = 0;
  CHECK(agr_idempotency_join_at(parts.cache, "new", 3, text, 4, parts.now, &ticket, &other, &result,
                                NULL) == AGR_IN_PROGRESS);
  struct rlimit limit, none = {0};
  getrlimit(RLIMIT_NOFILE, &limit);
  none.rlim_max = limit.rlim_max;
  const int open_before = open_descriptors();
  setrlimit(RLIMIT_NOFILE, &none);
  CHECK_EQUAL(agr_idempotency_ticket_fd(parts.cache, ticket, &fd, &error), AGR_ERR_SYSTEM, "fd");
  CHECK(error.status == AGR_ERR_SYSTEM && error.system_errno == EMFILE && error.field[0] &&
        fd == -1);
  /* A call that joins says that it has no descriptor; its time ends the wait. */
  agr_request request;
  agr_request_init(&request, sizeof request);
  request.key = "new";
  request.key_length = 3;
  request.fingerprint = text;
  request.fingerprint_length = 4;
  step = (agr_step){.struct_size = sizeof step};
  CHECK(agr_call_begin_at(parts.policy, &request, parts.now, &call, &step, NULL) == AGR_OK);
  CHECK(step.kind == AGR_STEP_JOIN && step.fd == -1 && step.wait_ns > 0);
  setrlimit(RLIMIT_NOFILE, &limit);
  CHECK_EQUAL(agr_idempotency_ticket_fd(parts.cache, ticket, &fd, &error), AGR_OK, "fd again");
  CHECK(fd >= 0);
  CHECK(complete() == AGR_OK);
  CHECK(agr_call_advance_at(call, NULL, parts.now, &step, NULL) == AGR_OK);
  CHECK_EQUAL(step.reason, AGR_REASON_REPLAYED, "joined without a descriptor");
  CHECK(agr_idempotency_poll_at(parts.cache, ticket, parts.now, &other, &result, NULL) ==
        AGR_REPLAY);
  end_call();
  destroy_parts();
  CHECK_EQUAL(open_descriptors(), open_before, "descriptors");
}

/* ---- a day's work ---- */

/* Makes all parts, uses them in every way, destroys them; what could not be made is refused as
 * NULL. How many operations went well. */
static int work(void) {
  int good = try_parts();
  good += fill_cache();
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < OPERATION_COUNT; ++i) good += operate(&operations[i]);
  }
  destroy_parts();
  return good;
}

enum { WORK = PART_COUNT + 1 + 2 * OPERATION_COUNT };

/* What the process keeps for good: the page of the random stream, the list of locks. */
enum { KEPT = 2 };

/* In a process where the library was not touched before. Its exit status tells how it went. */
static int work_in_child(long n) {
  const pid_t child = fork();
  if (child == 0) {
    const long live = heap_live;
    heap_watch(n);
    const int impaired = work();
    const int failed = heap_relent();
    const int kept = heap_live - live >= 0 && heap_live - live <= KEPT;
    const int again = work();
    const int leaks = heap_live - live > KEPT;
    _exit(!failed ? 1 : kept && impaired <= WORK && again == WORK && !leaks ? 0 : 2);
  }
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static void fail_first_touch(void) {
  long n = 1;
  int status;
  while ((status = work_in_child(n)) == 0) ++n;
  CHECK_EQUAL(status, 1, "first touch");
  CHECK(n > 50);
  points += n - 1;
}

static void fail_work(void) {
  CHECK_EQUAL(work(), WORK, "work");
  long n = 0;
  for (int failed = 1; failed;) {
    const long live = heap_live;
    heap_watch(++n);
    const int good = work();
    failed = heap_relent();
    CHECK(failed ? good <= WORK : good == WORK);
    CHECK_EQUAL(heap_live - live, 0, "work");
  }
  points += n - 1;
  CHECK_EQUAL(work(), WORK, "work again");
}

int main(void) {
  fail_first_touch();
  make_parts();
  for (size_t i = 0; i < sizeof makers / sizeof *makers; ++i) fail_creation(&makers[i]);
  destroy_parts();
  for (size_t i = 0; i < sizeof keepers / sizeof *keepers; ++i) fail_keeping(&keepers[i]);
  fail_results();
  fail_descriptors();
  fail_work();
  printf("%ld requests for memory failed\n", points);
  return finish();
}
