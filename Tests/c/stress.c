/* SPDX-License-Identifier: Apache-2.0
 * Many threads on one object of each kind, for ThreadSanitizer (scripts/stress) and for what must hold
 * whatever the order: nothing is admitted twice, counted twice, lost or left behind.
 *
 *   stress [THREADS [OPERATIONS]]     of each thread, on each kind of object */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>
#include <time.h>

#include "check.h"

enum { MOST_THREADS = 64, NOW = 1000000 };

static int threads = 16;
static long operations = 1000000;
static atomic_long done, taken, gone, broken;
static pthread_barrier_t barrier;

#define HOLDS(condition)                                                        \
  do {                                                                          \
    if (!(condition) && atomic_fetch_add(&broken, 1) < 10)                      \
      fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);   \
  } while (0)

static uint64_t draw(uint64_t *state) {
  uint64_t random = 0;
  (void)agr_random_next(state, &random, NULL);
  return random;
}

/* Runs a body in all threads; it is told its number. */
static void run(const char *name, void *(*body)(void *)) {
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  atomic_store(&taken, 0);
  atomic_store(&gone, 0);
  const long before = atomic_load(&done);
  pthread_t all[MOST_THREADS];
  for (long i = 0; i < threads; ++i) CHECK(pthread_create(&all[i], NULL, body, (void *)i) == 0);
  for (int i = 0; i < threads; ++i) pthread_join(all[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%-16s %10ld operations in %.1f s\n", name, atomic_load(&done) - before,
         (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
  fflush(stdout);
  CHECK(atomic_load(&broken) == 0);
}

static agr_limiter *make_limiter(int64_t capacity) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = 1;
  config.max_reservations = 256;
  agr_limiter *limiter = NULL;
  CHECK(agr_limiter_create_at(&config, NOW, &limiter, NULL) == AGR_OK);
  return limiter;
}

/* ---- limiter: at a time that stands still exactly the capacity is admitted ---- */

static agr_limiter *limiter, *second;

static void *take(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  long sum = 0;
  for (long i = 0; i < operations; ++i) {
    const int64_t tokens = 1 + (int64_t)(draw(&state) % 3);
    if (agr_limiter_try_acquire_at(limiter, tokens, NOW, NULL, NULL) == AGR_OK) sum += tokens;
  }
  done += operations;
  taken += sum;
  return NULL;
}

/* Reservations that come back, in whole or in part, or are used; one thread changes the rate. */
static void *reserve(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  long sum = 0, count = 0;
  for (; count < operations; ++count) {
    agr_reservation one;
    const int64_t tokens = 1 + (int64_t)(draw(&state) % 4);
    if (agr_limiter_reserve_at(limiter, tokens, 0, NOW, &one, NULL, NULL) != AGR_OK) continue;
    const int64_t real = (int64_t)(draw(&state) % 3) * tokens / 2;
    const int cancels = draw(&state) % 2 && real == 0;
    HOLDS((cancels ? agr_limiter_cancel_at(limiter, one.permit, NOW, NULL)
                   : agr_limiter_settle_at(limiter, one.permit, real, NOW, NULL)) == AGR_OK);
    HOLDS(agr_limiter_cancel_at(limiter, one.permit, NOW, NULL) == AGR_STALE);
    sum += real;
    if (real > 0 && sum >= 100) break; /* there is enough for all */
  }
  for (; count < operations; ++count) {
    agr_reservation one;
    if (agr_limiter_reserve_at(limiter, 1, 0, NOW, &one, NULL, NULL) == AGR_OK)
      HOLDS(agr_limiter_cancel_at(limiter, one.permit, NOW, NULL) == AGR_OK);
  }
  done += operations;
  taken += sum;
  return NULL;
}

static void *take_all(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  long sum = 0;
  for (long i = 0; i < operations; ++i) {
    const int64_t tokens = 1 + (int64_t)(draw(&state) % 2);
    const agr_limiter_demand demands[2] = {{limiter, tokens}, {second, tokens}};
    if (agr_limiter_try_acquire_all_at(demands, 2, NOW, NULL, NULL, NULL) == AGR_OK) sum += tokens;
  }
  done += operations;
  taken += sum;
  return NULL;
}

static void *change_rate(void *argument) {
  if (argument) return take(argument);
  for (long i = 0; i < operations; ++i) {
    agr_limiter_config config;
    agr_limiter_config_init(&config, sizeof config);
    config.capacity = INT64_C(1) << 40;
    config.refill_tokens = 1;
    config.max_reservations = 256;
    config.max_debt_tokens = i % 7;
    HOLDS(agr_limiter_reconfigure_at(limiter, &config, NOW, NULL) == AGR_OK);
    agr_limiter_snapshot seen = {.struct_size = sizeof seen};
    HOLDS(agr_limiter_snapshot_read_at(limiter, NOW, &seen, NULL) == AGR_OK && seen.available >= 0);
  }
  done += operations;
  return NULL;
}

static int64_t left_in(agr_limiter *one) {
  int64_t tokens = -1;
  CHECK(agr_limiter_available_at(one, NOW, &tokens, NULL) == AGR_OK);
  return tokens;
}

static void limiters(void) {
  const int64_t enough = INT64_C(1) << 40, scarce = (int64_t)threads * operations / 2;
  limiter = make_limiter(scarce);
  run("limiter", take);
  CHECK(taken <= scarce && scarce - taken == left_in(limiter) && left_in(limiter) < 3);
  agr_limiter_destroy(limiter);
  limiter = make_limiter(500);
  run("reservations", reserve);
  CHECK(left_in(limiter) == 500 - (taken < 500 ? taken : 500));
  agr_limiter_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_limiter_snapshot_read_at(limiter, NOW, &seen, NULL) == AGR_OK);
  CHECK(seen.open_reservations == 0);
  agr_limiter_destroy(limiter);
  limiter = make_limiter(scarce);
  second = make_limiter(enough);
  run("several as one", take_all);
  CHECK(scarce - taken == left_in(limiter) && enough - taken == left_in(second));
  agr_limiter_destroy(limiter);
  agr_limiter_destroy(second);
  limiter = make_limiter(enough);
  run("reconfigure", change_rate);
  CHECK(enough - taken == left_in(limiter));
  agr_limiter_destroy(limiter);
}

/* ---- keyed limiter: the same for each key, though they come at once ---- */

enum { KEYS = 512, OF_EACH = 40 };
static agr_keyed_limiter *keyed;
static atomic_int of_key[KEYS];

static void *take_keys(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  for (long i = 0; i < operations; ++i) {
    const uint32_t key = (uint32_t)(draw(&state) % KEYS);
    agr_reservation one;
    if (draw(&state) % 4) {
      if (agr_keyed_limiter_try_acquire_at(keyed, &key, sizeof key, 1, NOW, NULL, NULL) == AGR_OK)
        ++of_key[key];
    } else if (agr_keyed_limiter_reserve_at(keyed, &key, sizeof key, 2, 0, NOW, &one, NULL,
                                            NULL) == AGR_OK) {
      HOLDS(agr_keyed_limiter_settle_at(keyed, one.permit, 1, NOW, NULL) == AGR_OK);
      ++of_key[key];
    }
  }
  done += operations;
  return NULL;
}

static void keyed_limiter(void) {
  agr_keyed_limiter_config config;
  agr_keyed_limiter_config_init(&config, sizeof config);
  config.max_keys = 4 * KEYS;
  config.capacity = OF_EACH;
  config.refill_tokens = 1;
  CHECK(agr_keyed_limiter_create(&config, &keyed, NULL) == AGR_OK);
  run("keyed", take_keys);
  for (uint32_t key = 0; key < KEYS; ++key) {
    int64_t left = -1;
    CHECK(agr_keyed_limiter_available_at(keyed, &key, sizeof key, NOW, &left, NULL) == AGR_OK);
    CHECK(of_key[key] <= OF_EACH && left == OF_EACH - of_key[key]);
  }
  agr_keyed_limiter_destroy(keyed);
}

/* ---- breaker ---- */

enum { PROBES = 5 };
static agr_breaker *breaker;
static atomic_long clock_ns, stale, refused;

/* Everything at once, on a clock that all of them move on. */
static void *break_it(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument, cursor = 0;
  for (long i = 0; i < operations; ++i) {
    const int64_t now = atomic_fetch_add(&clock_ns, 3);
    uint64_t permit = 0;
    const agr_status status = agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL);
    if (status == AGR_OPEN) ++refused;
    if (status == AGR_OK) {
      const int32_t outcome = draw(&state) % 2 ? AGR_OUTCOME_SUCCESS : AGR_OUTCOME_FAILURE;
      const agr_status reported = agr_breaker_report_at(breaker, permit, outcome, 1, now, NULL);
      HOLDS(reported == AGR_OK || reported == AGR_STALE);
      HOLDS(agr_breaker_report_at(breaker, permit, outcome, 1, now, NULL) == AGR_STALE);
      stale += reported == AGR_STALE ? 2 : 1;
    }
    if (i % 64 == 0) {
      agr_breaker_snapshot seen = {.struct_size = sizeof seen};
      agr_breaker_event event = {.struct_size = sizeof event};
      HOLDS(agr_breaker_snapshot_read_at(breaker, now, &seen, NULL) == AGR_OK);
      HOLDS(seen.half_open_in_flight <= PROBES && seen.window_failures <= seen.window_total);
      const agr_status read = agr_breaker_next_event(breaker, &cursor, &event, NULL, NULL);
      HOLDS(read == AGR_EMPTY || (read == AGR_OK && event.from_state != event.to_state));
    }
  }
  done += operations;
  return NULL;
}

/* In rounds: it trips once, whoever reports, and when it is half-open there are PROBES, whoever asks. */
static void *probe(void *argument) {
  const int is_first = argument == NULL;
  for (long round = 0; round < operations / 100; ++round) {
    const int64_t now = atomic_load(&clock_ns);
    uint64_t permit = 0;
    HOLDS(agr_breaker_acquire_at(breaker, now, &permit, NULL, NULL) == AGR_OK);
    pthread_barrier_wait(&barrier);
    /* Who looked before it tripped is told that it was counted. */
    if (agr_breaker_report_at(breaker, permit, AGR_OUTCOME_FAILURE, 1, now, NULL) == AGR_OK) ++taken;
    pthread_barrier_wait(&barrier);
    permit = 0;
    if (agr_breaker_acquire_at(breaker, now + 50, &permit, NULL, NULL) == AGR_OK) ++gone;
    pthread_barrier_wait(&barrier);
    if (is_first) {
      HOLDS(gone == (threads < PROBES ? threads : PROBES));
      agr_breaker_snapshot seen = {.struct_size = sizeof seen};
      HOLDS(agr_breaker_snapshot_read_at(breaker, now + 50, &seen, NULL) == AGR_OK);
      HOLDS((long)seen.trips == round + 1 && taken >= 1);
      gone = 0;
      taken = 0;
    }
    if (permit)
      HOLDS(agr_breaker_report_at(breaker, permit, AGR_OUTCOME_NEUTRAL, 1, now + 60, NULL) == AGR_OK);
    pthread_barrier_wait(&barrier);
    /* Another mode and back starts afresh. */
    if (is_first) {
      HOLDS(agr_breaker_force_at(breaker, AGR_BREAKER_DISABLED, now + 70, NULL) == AGR_OK);
      HOLDS(agr_breaker_force_at(breaker, AGR_BREAKER_AUTOMATIC, now + 70, NULL) == AGR_OK);
      atomic_store(&clock_ns, now + 100);
    }
    pthread_barrier_wait(&barrier);
  }
  done += operations / 100 * 8;
  return NULL;
}

static void breakers(void) {
  agr_breaker_config config;
  for (int window = AGR_WINDOW_COUNT; window <= AGR_WINDOW_TIME; ++window) {
    agr_breaker_config_init(&config, sizeof config);
    config.window = window;
    config.window_ns = 1000;
    config.minimum_calls = 10;
    config.half_open_permits = PROBES;
    config.open_ns = config.open_max_ns = 200;
    clock_ns = NOW;
    stale = 0;
    refused = 0;
    CHECK(agr_breaker_create(&config, &breaker, NULL) == AGR_OK);
    run(window == AGR_WINDOW_COUNT ? "breaker, count" : "breaker, time", break_it);
    agr_breaker_snapshot seen = {.struct_size = sizeof seen};
    CHECK(agr_breaker_snapshot_read_at(breaker, clock_ns, &seen, NULL) == AGR_OK);
    CHECK((long)seen.stale == stale && (long)seen.refused == refused && seen.trips > 0);
    agr_breaker_destroy(breaker);
  }
  agr_breaker_config_init(&config, sizeof config);
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 1;
  config.half_open_permits = PROBES;
  config.open_ns = config.open_max_ns = 50;
  config.open_jitter = 0;
  clock_ns = NOW;
  CHECK(agr_breaker_create(&config, &breaker, NULL) == AGR_OK);
  run("breaker, probes", probe);
  agr_breaker_destroy(breaker);
}

/* ---- retry budget: what went in and what went out ---- */

static agr_retry_budget *budget;

static void *spend(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  long in = 0, out = 0;
  for (long i = 0; i < operations; ++i) {
    if (draw(&state) % 2) {
      HOLDS(agr_retry_budget_deposit_at(budget, 1, NOW, NULL) == AGR_OK);
      ++in;
    } else if (agr_retry_budget_withdraw_at(budget, 1, NOW, NULL, NULL) == AGR_OK) {
      ++out;
    }
    int64_t balance = -1;
    if (i % 64 == 0)
      HOLDS(agr_retry_budget_balance_at(budget, NOW, &balance, NULL) == AGR_OK && balance >= 0);
  }
  done += operations;
  taken += out;
  gone += in;
  return NULL;
}

static void budgets(void) {
  agr_retry_budget_config config;
  agr_retry_budget_config_init(&config, sizeof config);
  config.ratio = 0.01;
  config.quota = 1000000;
  config.initial = 1000;
  CHECK(agr_retry_budget_create_at(&config, NOW, &budget, NULL) == AGR_OK);
  run("retry budget", spend);
  int64_t balance = -1;
  CHECK(agr_retry_budget_balance_at(budget, NOW, &balance, NULL) == AGR_OK);
  CHECK(balance == 1000 * 1000 + gone * 10 - taken * 1000);
  agr_retry_budget_destroy(budget);
}

/* ---- idempotency cache ---- */

static agr_idempotency *cache;
enum { SPREAD = 4096 };
static atomic_int executing[SPREAD];

/* Everybody wants the same keys: one at a time executes each, some fail first; all get its result. */
static void *once(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  for (long i = 0; i < operations / 10; ++i) {
    char key[24];
    const size_t length = (size_t)snprintf(key, sizeof key, "once%ld", i);
    agr_lease lease;
    agr_result result;
    uint64_t ticket;
    for (int finished = 0; !finished;) {
      agr_status status =
          agr_idempotency_join(cache, key, length, NULL, 0, &ticket, &lease, &result, NULL);
      if (status == AGR_IN_PROGRESS && draw(&state) % 16 == 0) {
        HOLDS(agr_idempotency_leave(cache, ticket, NULL) == AGR_OK);
        continue;
      }
      if (status == AGR_IN_PROGRESS)
        status = agr_idempotency_wait(cache, ticket, AGR_FOREVER, &lease, &result, NULL);
      if (status == AGR_OK) {
        HOLDS(atomic_fetch_add(&executing[i % SPREAD], 1) == 0);
        const int fails = draw(&state) % 4 == 0;
        atomic_fetch_sub(&executing[i % SPREAD], 1);
        HOLDS((fails ? agr_idempotency_fail(cache, lease.id, NULL, 0, NULL)
                     : agr_idempotency_complete(cache, lease.id, key, length, NULL)) == AGR_OK);
        finished = !fails;
        taken += finished;
      } else {
        HOLDS(status == AGR_REPLAY && result.length == length && !memcmp(result.data, key, length));
        if (status == AGR_REPLAY)
          HOLDS(agr_idempotency_release(cache, result.pin, NULL) == AGR_OK);
        finished = 1;
        ++gone;
      }
    }
  }
  done += operations / 10;
  return NULL;
}

/* Leases that run out while others ask, on a clock that all of them move on: one completion a key. */
static atomic_int completed[SPREAD];
static _Atomic uint64_t fences[SPREAD];

static void *lose(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument;
  for (long i = 0; i < operations; ++i) {
    const uint32_t number = (uint32_t)((uint64_t)i * SPREAD / (uint64_t)operations);
    const int64_t now = atomic_fetch_add(&clock_ns, 5);
    agr_lease lease;
    agr_result result;
    uint64_t ticket;
    agr_status status = agr_idempotency_join_at(cache, &number, sizeof number, NULL, 0, now,
                                                &ticket, &lease, &result, NULL);
    if (status == AGR_IN_PROGRESS) {
      status = agr_idempotency_poll_at(cache, ticket, now + 5, &lease, &result, NULL);
      if (status == AGR_IN_PROGRESS)
        HOLDS(agr_idempotency_leave_at(cache, ticket, now + 10, NULL) == AGR_OK);
    }
    if (status == AGR_OK) {
      /* Of two leases of a key the later has the higher fence; only the last can be completed. */
      uint64_t last = atomic_load(&fences[number]);
      while (last < lease.fence && !atomic_compare_exchange_weak(&fences[number], &last, lease.fence)) {
      }
      const long takes = draw(&state) % 4 ? 20 : 1000;
      const int64_t late = atomic_fetch_add(&clock_ns, takes) + takes;
      const agr_status ended = agr_idempotency_complete_at(cache, lease.id, &lease.fence,
                                                           sizeof lease.fence, late, NULL);
      HOLDS(ended == AGR_OK || ended == AGR_STALE);
      if (ended == AGR_OK) HOLDS(atomic_fetch_add(&completed[number], 1) == 0);
    } else if (status == AGR_REPLAY) {
      uint64_t fence;
      memcpy(&fence, result.data, sizeof fence);
      HOLDS(result.length == sizeof fence && fence <= atomic_load(&fences[number]));
      HOLDS(agr_idempotency_release(cache, result.pin, NULL) == AGR_OK);
    } else {
      HOLDS(status == AGR_IN_PROGRESS);
    }
  }
  done += operations;
  return NULL;
}

static void idempotency(void) {
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 1 << 20;
  CHECK(agr_idempotency_create(&config, &cache, NULL) == AGR_OK);
  run("idempotency", once);
  CHECK(taken == operations / 10 && gone == (threads - 1) * (operations / 10));
  agr_idempotency_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_idempotency_snapshot_read(cache, &seen, NULL) == AGR_OK);
  CHECK(seen.waiters == 0 && seen.pins == 0 && (long)seen.entries == operations / 10);
  agr_idempotency_destroy(cache);
  config.lease_ns = 300;
  config.ttl_ns = AGR_TIME_MAX_NS;
  clock_ns = NOW;
  CHECK(agr_idempotency_create(&config, &cache, NULL) == AGR_OK);
  run("lost leases", lose);
  CHECK(agr_idempotency_snapshot_read(cache, &seen, NULL) == AGR_OK);
  CHECK(seen.waiters == 0 && seen.pins == 0 && seen.leases_lost > 0);
  agr_idempotency_destroy(cache);
}

/* ---- policy: each attempt's tokens are charged once, and no permit stays behind ---- */

static agr_policy *policy;

static void *call(void *argument) {
  uint64_t state = (uint64_t)(intptr_t)argument, cursor = 0;
  long spent = 0, ended = 0;
  for (long i = 0; i < operations / 4; ++i) {
    agr_call *one = NULL;
    agr_step step = {.struct_size = sizeof step};
    agr_request request;
    agr_request_init(&request, sizeof request);
    const uint32_t key = (uint32_t)(draw(&state) % 1000);
    request.key = request.cache_key = &key;
    request.key_length = draw(&state) % 2 ? sizeof key : 0;
    request.cache_key_length = sizeof key;
    request.costs[0] = 3;
    const agr_status status = agr_call_begin_at(policy, &request, NOW, &one, &step, NULL);
    HOLDS(status == AGR_OK);
    if (status != AGR_OK) continue;
    while (step.kind == AGR_STEP_ATTEMPT && draw(&state) % 8) {
      agr_outcome outcome;
      agr_outcome_init(&outcome, sizeof outcome);
      const uint64_t luck = draw(&state) % 8;
      if (luck < 2) outcome.error_class = luck ? AGR_CLASS_PERMANENT : AGR_CLASS_TRANSIENT;
      outcome.costs[0] = (int64_t)(draw(&state) % 6);
      outcome.result = &key;
      outcome.result_length = sizeof key;
      spent += outcome.costs[0];
      HOLDS(agr_call_advance_at(one, &outcome, NOW, &step, NULL) == AGR_OK);
    }
    if (step.kind == AGR_STEP_DONE) ++ended;
    if (step.kind == AGR_STEP_DONE && step.result)
      HOLDS(step.result_length == sizeof key && !memcmp(step.result, &key, sizeof key));
    agr_call_destroy_at(one, NOW);
    agr_event event = {.struct_size = sizeof event};
    (void)agr_policy_next_event(policy, &cursor, &event, NULL, NULL);
  }
  done += operations / 4;
  taken += spent;
  gone += ended;
  return NULL;
}

static void policies(void) {
  const int64_t enough = INT64_C(1) << 40;
  limiter = make_limiter(enough);
  agr_breaker_config breaking;
  agr_breaker_config_init(&breaking, sizeof breaking);
  breaking.max_permits = 512;
  breaking.mode = AGR_BREAKER_FORCED_CLOSED;
  CHECK(agr_breaker_create(&breaking, &breaker, NULL) == AGR_OK);
  agr_idempotency_config caching;
  agr_idempotency_config_init(&caching, sizeof caching);
  CHECK(agr_idempotency_create(&caching, &cache, NULL) == AGR_OK);
  agr_retry_config retrying;
  agr_retry_config_init(&retrying, sizeof retrying);
  retrying.backoff.base_delay_ns = 0;
  retrying.backoff.max_attempts = 5;
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.limiters[0] = limiter;
  config.limiter_count = 1;
  config.breaker = breaker;
  config.idempotency = cache;
  config.retry = &retrying;
  config.cached_entries = 64;
  config.fallback = AGR_FALLBACK_CACHED;
  config.seed = 1;
  CHECK(agr_policy_create(&config, &policy, NULL) == AGR_OK);
  run("policy", call);
  CHECK(enough - left_in(limiter) == taken);
  agr_policy_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_policy_snapshot_read(policy, &seen, NULL) == AGR_OK);
  CHECK(seen.calls_alive == 0 && (long)seen.calls == threads * (operations / 4));
  CHECK((long)(seen.calls - seen.abandoned) == gone);
  agr_idempotency_snapshot keys = {.struct_size = sizeof keys};
  CHECK(agr_idempotency_snapshot_read(cache, &keys, NULL) == AGR_OK);
  CHECK(keys.waiters == 0 && keys.pins == 0);
  for (uint32_t i = 0; i < breaking.max_permits; ++i) {
    uint64_t permit;
    CHECK(agr_breaker_acquire_at(breaker, NOW, &permit, NULL, NULL) == AGR_OK);
  }
  agr_policy_destroy(policy);
  agr_idempotency_destroy(cache);
  agr_breaker_destroy(breaker);
  agr_limiter_destroy(limiter);
}

int main(int count, char **arguments) {
  if (count > 1) threads = atoi(arguments[1]);
  if (count > 2) operations = atol(arguments[2]);
  if (threads < 1 || threads > MOST_THREADS || operations < 1000) {
    fprintf(stderr, "usage: stress [1 ... %d threads [at least 1000 operations]]\n", MOST_THREADS);
    return 2;
  }
  CHECK(pthread_barrier_init(&barrier, NULL, (unsigned)threads) == 0);
  limiters();
  keyed_limiter();
  breakers();
  budgets();
  idempotency();
  policies();
  pthread_barrier_destroy(&barrier);
  printf("%ld operations on %d threads\n", atomic_load(&done), threads);
  return finish();
}
