/* SPDX-License-Identifier: Apache-2.0
 * A process is killed before each instruction of each operation in turn, by single steps; the region is good
 * whichever it was.
 *
 *   test_region_steps [KILLS]
 *
 * An operation is done in a child, which the parent steps N times and then kills, for every N until the child gets to
 * its end; each time in a region of its own. With KILLS for so many of each operation's instructions, others in
 * each run. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ptrace.h>

#include "region.h"

enum { HELD = 4, PERMITS = 4, MOST_STEPS = 200000 };
#define NOW (INT64_C(1000) * SECOND)
#define TIMEOUT SECOND

/* ---- a region with one of everything ---- */

static struct {
  agr_region *region;
  agr_limiter *limiter;
  agr_keyed_limiter *keyed;
  agr_breaker *breaker;
  agr_retry_budget *budget;
  uint64_t reservation, keyed_reservation, permit;
} its;

static agr_limiter_config limits(int64_t capacity) {
  agr_limiter_config config = limiter_config(capacity, 0);
  config.max_reservations = HELD;
  config.reservation_timeout_ns = TIMEOUT;
  return config;
}

static agr_keyed_limiter_config keys(int64_t capacity) {
  agr_keyed_limiter_config config = keyed_config(capacity, 1);
  config.refill_interval_ns = INT64_C(1000000) * SECOND;
  config.max_keys = 16;
  config.max_reservations = HELD;
  config.reservation_timeout_ns = TIMEOUT;
  return config;
}

static agr_breaker_config breaking(void) {
  agr_breaker_config config = breaker_config();
  config.window = AGR_WINDOW_COUNT;
  config.consecutive_failures = 1;
  config.half_open_permits = 1;
  config.max_permits = PERMITS;
  config.permit_timeout_ns = TIMEOUT;
  config.open_ns = config.open_max_ns = SECOND;
  config.open_jitter = 0;
  return config;
}

static agr_retry_budget_config saving(void) {
  agr_retry_budget_config config = budget_config();
  config.min_per_second = 0;
  config.quota = config.initial = 10;
  return config;
}

static void world_make(void) {
  const agr_limiter_config limiter = limits(10);
  const agr_keyed_limiter_config keyed = keys(10);
  const agr_breaker_config breaker = breaking();
  const agr_retry_budget_config budget = saving();
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = 8;
  CHECK(agr_region_open(NULL, 1 << 16, &config, &its.region, &error) == AGR_OK);
  CHECK(agr_limiter_create_in_region_at(its.region, "l", &limiter, NOW, &its.limiter, &error) ==
        AGR_OK);
  CHECK(agr_keyed_limiter_create_in_region(its.region, "k", &keyed, &its.keyed, &error) == AGR_OK);
  CHECK(agr_breaker_create_in_region(its.region, "b", &breaker, &its.breaker, &error) == AGR_OK);
  CHECK(agr_retry_budget_create_in_region_at(its.region, "r", &budget, NOW, &its.budget, &error) ==
        AGR_OK);
}

static void world_destroy(void) {
  agr_limiter_destroy(its.limiter);
  agr_keyed_limiter_destroy(its.keyed);
  agr_breaker_destroy(its.breaker);
  agr_retry_budget_destroy(its.budget);
  agr_region_close(its.region);
}

/* ---- what is found afterwards ---- */

static void check_limiter(int64_t least, int64_t most) {
  int64_t left = 0;
  CHECK(agr_limiter_available_at(its.limiter, NOW, &left, NULL) == AGR_OK);
  CHECK(left >= least && left <= most);
  CHECK(agr_limiter_try_acquire_at(its.limiter, left, NOW, NULL, NULL) == AGR_OK);
  CHECK(agr_limiter_try_acquire_at(its.limiter, 1, NOW, NULL, NULL) == AGR_LIMITED);
}

/* Every place comes back: the first call that finds none begins to wait for a lost one. */
static void check_reservations(void) {
  int64_t now = NOW + TIMEOUT;
  int held = 0;
  for (int round = 0; round < 3 && held < HELD; ++round, now += TIMEOUT) {
    agr_reservation reservations[HELD];
    held = 0;
    while (held < HELD && agr_limiter_reserve_at(its.limiter, 0, 0, now, &reservations[held], NULL,
                                                 NULL) == AGR_OK)
      ++held;
    agr_reservation none;
    CHECK(held < HELD || agr_limiter_reserve_at(its.limiter, 0, 0, now, &none, NULL, NULL) ==
                             AGR_ERR_CAPACITY);
    for (int i = 0; i < held; ++i)
      CHECK(agr_limiter_cancel_at(its.limiter, reservations[i].permit, now, NULL) == AGR_OK);
  }
  CHECK_EQUAL(held, HELD, "reservations");
}

static void check_change(void) {
  const agr_limiter_config config = limits(20);
  CHECK(agr_limiter_reconfigure_at(its.limiter, &config, NOW, &error) == AGR_OK);
  agr_limiter_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_limiter_snapshot_read_at(its.limiter, NOW, &seen, NULL) == AGR_OK &&
        seen.capacity == 20);
}

static int64_t key_left(void) {
  int64_t left = -1;
  CHECK(agr_keyed_limiter_available_at(its.keyed, "k", 1, NOW, &left, NULL) == AGR_OK);
  return left;
}

static void check_keys(int64_t least, int64_t most) {
  const int64_t left = key_left();
  CHECK(left >= least && left <= most);
  int taken = 0;
  while (taken <= 20 &&
         agr_keyed_limiter_try_acquire_at(its.keyed, "k", 1, 1, NOW, NULL, NULL) == AGR_OK)
    ++taken;
  CHECK_EQUAL(taken, left, "of a key");
  const agr_keyed_limiter_config config = keys(30);
  CHECK(agr_keyed_limiter_reconfigure(its.keyed, &config, &error) == AGR_OK);
  agr_keyed_limiter *again;
  CHECK(agr_keyed_limiter_create_in_region(its.region, "k", &config, &again, &error) == AGR_OK);
  agr_keyed_limiter_destroy(again);
}

static int64_t breaker_time;

/* The breaker goes through all of its states, and has all of its places. */
static void check_breaker(void) {
  int64_t now = breaker_time + 2 * TIMEOUT;
  uint64_t permits[PERMITS], permit;
  CHECK(agr_breaker_force_at(its.breaker, AGR_BREAKER_DISABLED, now, NULL) == AGR_OK);
  int held = 0;
  for (int round = 0; round < 3 && held < PERMITS; ++round, now += TIMEOUT) {
    held = 0;
    while (held < PERMITS &&
           agr_breaker_acquire_at(its.breaker, now, &permits[held], NULL, NULL) == AGR_OK)
      ++held;
    for (int i = 0; i < held; ++i)
      CHECK(agr_breaker_report_at(its.breaker, permits[i], AGR_OUTCOME_NEUTRAL, 1, now, NULL) ==
            AGR_OK);
  }
  CHECK_EQUAL(held, PERMITS, "permits");
  CHECK(agr_breaker_force_at(its.breaker, AGR_BREAKER_AUTOMATIC, now, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(its.breaker, now, &permit, NULL, NULL) == AGR_OK);
  CHECK(agr_breaker_report_at(its.breaker, permit, AGR_OUTCOME_FAILURE, 1, now, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(its.breaker, now, &permit, NULL, NULL) == AGR_OPEN);
  agr_status status = AGR_OPEN;
  for (int round = 0; round < 4 && status == AGR_OPEN; ++round) {
    now += TIMEOUT;
    status = agr_breaker_acquire_at(its.breaker, now, &permit, NULL, NULL);
  }
  CHECK_EQUAL(status, AGR_OK, "a probe");
  uint64_t second;
  CHECK(agr_breaker_acquire_at(its.breaker, now, &second, NULL, NULL) == AGR_OPEN);
  CHECK(agr_breaker_report_at(its.breaker, permit, AGR_OUTCOME_SUCCESS, 1, now, NULL) == AGR_OK);
  CHECK(agr_breaker_acquire_at(its.breaker, now, &permit, NULL, NULL) == AGR_OK);
}

/* ---- operations ---- */

static void nothing(void) {}

static void take(void) { (void)agr_limiter_try_acquire_at(its.limiter, 3, NOW, NULL, NULL); }
static void took(void) {
  check_limiter(7, 10);
  check_change();
}

static void reserve(void) {
  agr_reservation reservation;
  (void)agr_limiter_reserve_at(its.limiter, 3, 0, NOW, &reservation, NULL, NULL);
}
static void reserved(void) {
  check_limiter(7, 10);
  check_reservations();
}

static void hold(void) {
  agr_reservation reservation;
  CHECK(agr_limiter_reserve_at(its.limiter, 3, 0, NOW, &reservation, NULL, NULL) == AGR_OK);
  its.reservation = reservation.permit;
}
static void give_back(void) { (void)agr_limiter_cancel_at(its.limiter, its.reservation, NOW, NULL); }
static void gave_back(void) {
  /* Once more, by the survivor: it comes back once. */
  (void)agr_limiter_cancel_at(its.limiter, its.reservation, NOW, NULL);
  check_limiter(7, 10);
  check_reservations();
}

static void change(void) {
  const agr_limiter_config config = limits(15);
  (void)agr_limiter_reconfigure_at(its.limiter, &config, NOW, NULL);
}
static void changed(void) {
  agr_limiter_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_limiter_snapshot_read_at(its.limiter, NOW, &seen, NULL) == AGR_OK);
  CHECK(seen.capacity == 10 || seen.capacity == 15);
  CHECK_EQUAL(seen.available, 10, "available");
  check_change();
  check_limiter(10, 10);
}

static void take_key(void) {
  (void)agr_keyed_limiter_try_acquire_at(its.keyed, "k", 1, 3, NOW, NULL, NULL);
}
static void took_key(void) { check_keys(7, 10); }

static void hold_key(void) {
  agr_reservation reservation;
  CHECK(agr_keyed_limiter_reserve_at(its.keyed, "k", 1, 3, 0, NOW, &reservation, NULL, NULL) ==
        AGR_OK);
  its.keyed_reservation = reservation.permit;
}
static void give_key_back(void) {
  (void)agr_keyed_limiter_cancel_at(its.keyed, its.keyed_reservation, NOW, NULL);
}
static void gave_key_back(void) {
  (void)agr_keyed_limiter_cancel_at(its.keyed, its.keyed_reservation, NOW, NULL);
  check_keys(7, 10);
}

static void change_keys(void) {
  const agr_keyed_limiter_config config = keys(20);
  (void)agr_keyed_limiter_reconfigure(its.keyed, &config, NULL);
}
static void changed_keys(void) {
  const int64_t left = key_left();
  CHECK(left == 10 || left == 20);
  check_keys(left, left);
}

static void set_time(void) { breaker_time = agr_now_ns(); }
static void enter(void) {
  uint64_t permit;
  (void)agr_breaker_acquire_at(its.breaker, breaker_time, &permit, NULL, NULL);
}

static void admit(void) {
  set_time();
  CHECK(agr_breaker_acquire_at(its.breaker, breaker_time, &its.permit, NULL, NULL) == AGR_OK);
}
static void fail(void) {
  (void)agr_breaker_report_at(its.breaker, its.permit, AGR_OUTCOME_FAILURE, 1, breaker_time, NULL);
}

static void trip(void) {
  admit();
  fail();
  breaker_time += SECOND;
}

static void probe_first(void) {
  trip();
  CHECK(agr_breaker_acquire_at(its.breaker, breaker_time, &its.permit, NULL, NULL) == AGR_OK);
}
static void succeed(void) {
  (void)agr_breaker_report_at(its.breaker, its.permit, AGR_OUTCOME_SUCCESS, 1, breaker_time, NULL);
}

static void withdraw(void) { (void)agr_retry_budget_withdraw_at(its.budget, 4, NOW, NULL, NULL); }
static void withdrew(void) {
  int64_t left = 0;
  CHECK(agr_retry_budget_balance_at(its.budget, NOW, &left, NULL) == AGR_OK);
  CHECK(left == 6000 || left == 10000);
}

static void create(void) {
  const agr_limiter_config config = limits(10);
  agr_limiter *limiter;
  (void)agr_limiter_create_in_region_at(its.region, "new", &config, NOW, &limiter, NULL);
}
static void check_created(uint32_t objects) {
  const agr_limiter_config config = limits(10);
  agr_limiter_destroy(its.limiter);
  CHECK(agr_limiter_create_in_region_at(its.region, "new", &config, NOW, &its.limiter, &error) ==
        AGR_OK);
  agr_region_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_region_snapshot_read(its.region, &seen, &error) == AGR_OK);
  CHECK_EQUAL(seen.objects, objects, "objects");
  check_limiter(10, 10);
  check_reservations();
}
static void created(void) { check_created(5); }

static void take_name(void) { (void)agr_region_remove(its.region, "l", NULL); }
static void took_name(void) {
  (void)agr_region_remove(its.region, "l", NULL);
  CHECK(agr_region_remove(its.region, "l", NULL) == AGR_NOT_FOUND);
  check_created(4);
}

static const struct operation {
  const char *name;
  void (*before)(void), (*operation)(void), (*after)(void);
} operations[] = {
    {"take", nothing, take, took},
    {"reserve", nothing, reserve, reserved},
    {"cancel", hold, give_back, gave_back},
    {"reconfigure", nothing, change, changed},
    {"take of a key", nothing, take_key, took_key},
    {"cancel of a key", hold_key, give_key_back, gave_key_back},
    {"reconfigure keys", nothing, change_keys, changed_keys},
    {"admission", set_time, enter, check_breaker},
    {"trip", admit, fail, check_breaker},
    {"probe", trip, enter, check_breaker},
    {"success of a probe", probe_first, succeed, check_breaker},
    {"failure of a probe", probe_first, fail, check_breaker},
    {"withdrawal", nothing, withdraw, withdrew},
    {"creation", nothing, create, created},
    {"removal", nothing, take_name, took_name},
};

/* Does the operation in a child that is killed after so many instructions; -1, or how many there are if that is
 * fewer. */
static long do_steps(const struct operation *operation, long steps) {
  int status = 0;
  const pid_t pid = fork();
  if (pid == 0) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(3);
    raise(SIGSTOP);
    operation->operation();
    raise(SIGSTOP);
    _exit(0);
  }
  CHECK(waitpid(pid, &status, 0) == pid);
  if (!WIFSTOPPED(status)) {
    fprintf(stderr, "no process may be traced here\n");
    exit(1);
  }
  int ended = 0;
  long done = 0;
  for (; done < steps && !ended; ++done) {
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) abort();
    ended = WSTOPSIG(status) == SIGSTOP;
    if (!ended && WSTOPSIG(status) != SIGTRAP) abort();
  }
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, &status, 0) == pid);
  return ended ? done : -1;
}

/* What a child that was killed after so many instructions leaves behind. */
static long try_steps(const struct operation *operation, long steps) {
  const int before = failures;
  world_make();
  operation->before();
  const long done = do_steps(operation, steps);
  operation->after();
  world_destroy();
  if (failures > before) {
    fprintf(stderr, "%s: after %ld instructions\n", operation->name, steps);
    exit(finish());
  }
  return done;
}

int main(int count, char **arguments) {
  const long most = count > 1 ? atol(arguments[1]) : MOST_STEPS;
  for (size_t i = 0; i < sizeof operations / sizeof *operations; ++i) {
    const long all = try_steps(&operations[i], MOST_STEPS);
    CHECK(all > 0);
    const long stride = all / most + 1;
    long kills = 0;
    for (long steps = (long)(agr_random() % (uint64_t)stride); steps < all; steps += stride, ++kills)
      try_steps(&operations[i], steps);
    printf("%-20s killed at %ld of %ld instructions\n", operations[i].name, kills, all);
    fflush(stdout);
  }
  return finish();
}
