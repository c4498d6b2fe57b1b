/* SPDX-License-Identifier: Apache-2.0
 * Processes that use the objects of a region are killed at random, and others take their places; what is promised
 * holds all the while.
 *
 *   test_region_kills [KILLS [SEED]]
 *
 * A worker counts what it was admitted, beside the region. One that is killed may have been admitted once more than
 * it has counted: so the sums lie between bounds that are as far apart as the number of kills allows. */
#define _GNU_SOURCE
#include <signal.h>
#include <time.h>

#include "region.h"

enum {
  WORKERS = 3,
  OBJECTS = 512,
  NAMES = 1500,
  MOST_TOKENS = 4, /* that one operation takes */
  PROBES = 2,
  PERMITS = 64,
  HELD = 64,
};
#define TANK (INT64_C(1) << 40)
#define PERMIT_TIMEOUT (SECOND / 20)

static struct shared {
  int64_t tank, keyed, budget, flow, made[OBJECTS];
  int64_t operations, moves, probes;
} *shared;

static const char *name;
static int64_t began;

#define ADD(counter, amount) __atomic_add_fetch(&shared->counter, amount, __ATOMIC_SEQ_CST)
#define GET(counter) __atomic_load_n(&shared->counter, __ATOMIC_SEQ_CST)

/* ---- the objects ---- */

struct objects {
  agr_region *region;
  agr_limiter *tank, *flow;
  agr_keyed_limiter *keyed;
  agr_breaker *breaker;
  agr_retry_budget *budget;
};

/* What it holds is given out once. Its debt changes all the time, and its tokens do not. */
static agr_limiter_config tank_config(int64_t debt) {
  agr_limiter_config config = limiter_config(TANK, 0);
  config.max_reservations = HELD;
  config.reservation_timeout_ns = PERMIT_TIMEOUT;
  config.max_debt_tokens = debt;
  return config;
}

static agr_limiter_config flow_config(void) {
  agr_limiter_config config = limiter_config(1000, 1000000);
  config.max_reservations = 0;
  return config;
}

static agr_keyed_limiter_config keys_config(void) {
  agr_keyed_limiter_config config = keyed_config(1000000, 1);
  config.refill_interval_ns = INT64_C(300) * SECOND;
  config.max_reservations = HELD;
  config.reservation_timeout_ns = PERMIT_TIMEOUT;
  return config;
}

static agr_breaker_config breaking(void) {
  agr_breaker_config config = breaker_config();
  config.window_calls = 20;
  config.minimum_calls = 5;
  config.half_open_permits = PROBES;
  config.max_permits = PERMITS;
  config.open_ns = config.open_max_ns = SECOND / 2000;
  config.permit_timeout_ns = PERMIT_TIMEOUT;
  return config;
}

static agr_retry_budget_config saving(void) {
  agr_retry_budget_config config = budget_config();
  config.min_per_second = 0;
  config.quota = config.initial = 1000000;
  return config;
}

/* Whatever the debt is at present: one of two. */
static agr_status create_tank(struct objects *its) {
  agr_status status = AGR_ERR_MISMATCH;
  for (int i = 0; i < 100 && status == AGR_ERR_MISMATCH; ++i) {
    const agr_limiter_config config = tank_config(i % 2 ? 100 : 200);
    status = agr_limiter_create_in_region(its->region, "tank", &config, &its->tank, &error);
  }
  return status;
}

static int open_all(struct objects *its) {
  const agr_limiter_config flow = flow_config();
  const agr_keyed_limiter_config keyed = keys_config();
  const agr_breaker_config breaker = breaking();
  const agr_retry_budget_config budget = saving();
  return agr_region_open(name, 0, NULL, &its->region, &error) == AGR_OK &&
         create_tank(its) == AGR_OK &&
         agr_limiter_create_in_region(its->region, "flow", &flow, &its->flow, &error) == AGR_OK &&
         agr_keyed_limiter_create_in_region(its->region, "keyed", &keyed, &its->keyed, &error) ==
             AGR_OK &&
         agr_breaker_create_in_region(its->region, "breaker", &breaker, &its->breaker, &error) ==
             AGR_OK &&
         agr_retry_budget_create_in_region(its->region, "budget", &budget, &its->budget, &error) ==
             AGR_OK;
}

/* ---- what a worker does ---- */

static uint64_t draw(uint64_t limit) { return agr_random() % limit; }

static void use_tank(struct objects *its) {
  const int64_t tokens = 1 + (int64_t)draw(MOST_TOKENS);
  agr_reservation reservation;
  switch (draw(4)) {
    case 0:
      if (agr_limiter_try_acquire(its->tank, tokens, NULL, NULL) == AGR_OK) ADD(tank, tokens);
      break;
    case 1:
    case 2:
      if (agr_limiter_reserve(its->tank, tokens, 0, &reservation, NULL, NULL) != AGR_OK) break;
      ADD(tank, tokens);
      const int64_t actual = (int64_t)draw((uint64_t)tokens + 1);
      if (agr_limiter_settle(its->tank, reservation.permit, actual, NULL) == AGR_OK)
        ADD(tank, actual - tokens);
      break;
    default: {
      const agr_limiter_config config = tank_config(draw(2) ? 100 : 200);
      if (agr_limiter_reconfigure(its->tank, &config, NULL) == AGR_OK) ADD(moves, 1);
    }
  }
}

static void use_keys(struct objects *its) {
  const char key = (char)('a' + draw(8));
  if (agr_keyed_limiter_try_acquire(its->keyed, &key, 1, 1, NULL, NULL) == AGR_OK) ADD(keyed, 1);
  agr_reservation reservation;
  if (agr_keyed_limiter_reserve(its->keyed, &key, 1, 1, 0, &reservation, NULL, NULL) == AGR_OK) {
    ADD(keyed, 1);
    if (agr_keyed_limiter_cancel(its->keyed, reservation.permit, NULL) == AGR_OK) ADD(keyed, -1);
  }
  if (draw(20) == 0) {
    agr_keyed_limiter_config config = keys_config();
    config.max_debt_tokens = -1;
    (void)agr_keyed_limiter_reconfigure(its->keyed, &config, NULL);
  }
}

static void use_breaker(struct objects *its) {
  uint64_t permit;
  if (agr_breaker_acquire(its->breaker, &permit, NULL, NULL) != AGR_OK) return;
  if (permit >> 63) ADD(probes, 1);
  const int32_t outcome = draw(3) ? AGR_OUTCOME_SUCCESS : AGR_OUTCOME_FAILURE;
  agr_breaker_report(its->breaker, permit, outcome, 1, NULL);
}

/* Objects come into being while their makers die. */
static void make_objects(struct objects *its) {
  const int number = (int)draw(OBJECTS);
  char made[16];
  snprintf(made, sizeof made, "made.%d", number);
  agr_limiter_config config = limiter_config(1000, 0);
  config.max_reservations = 0;
  agr_limiter *limiter;
  if (agr_limiter_create_in_region(its->region, made, &config, &limiter, NULL) != AGR_OK) return;
  if (agr_limiter_try_acquire(limiter, 1, NULL, NULL) == AGR_OK) ADD(made[number], 1);
  agr_limiter_destroy(limiter);
}

static void work(void) {
  struct objects its;
  if (!open_all(&its)) {
    fprintf(stderr, "worker: %s: %s\n", error.field, error.message);
    _exit(2);
  }
  for (;;) {
    use_tank(&its);
    use_keys(&its);
    use_breaker(&its);
    if (agr_limiter_try_acquire(its.flow, 1, NULL, NULL) == AGR_OK) ADD(flow, 1);
    if (agr_retry_budget_withdraw(its.budget, 1, NULL, NULL) == AGR_OK) ADD(budget, 1);
    if (draw(4) == 0) make_objects(&its);
    ADD(operations, 1);
  }
}

/* ---- what holds ---- */

static int64_t tokens_in(agr_limiter *limiter) {
  int64_t left = 0;
  CHECK(agr_limiter_available(limiter, &left, NULL) == AGR_OK);
  return left;
}

/* While the others work. What is counted first is not more than what was admitted when it is compared. */
static void check_meanwhile(struct objects *its) {
  const int64_t taken = GET(tank);
  const int64_t left = tokens_in(its->tank);
  CHECK(left <= TANK && taken - (WORKERS * 2 * MOST_TOKENS) <= TANK);
  const int64_t flowed = GET(flow);
  CHECK(flowed <= 1000 + (agr_now_ns() - began) / 1000 + 1);
  agr_breaker_snapshot seen = {.struct_size = sizeof seen};
  CHECK(agr_breaker_snapshot_read(its->breaker, &seen, NULL) == AGR_OK);
  CHECK(seen.half_open_in_flight <= PROBES);
  agr_region_snapshot region = {.struct_size = sizeof region};
  CHECK(agr_region_snapshot_read(its->region, &region, NULL) == AGR_OK);
}

/* At the end, when nobody is left: `killed` operations at the most were not counted. */
static void check_sums(struct objects *its, int64_t killed) {
  const int64_t tank = TANK - tokens_in(its->tank);
  CHECK(GET(tank) <= tank + killed * MOST_TOKENS && tank <= GET(tank) + killed * MOST_TOKENS);
  int64_t keyed = 0;
  for (char key = 'a'; key < 'i'; ++key) {
    int64_t left = 0;
    CHECK(agr_keyed_limiter_available(its->keyed, &key, 1, &left, NULL) == AGR_OK);
    keyed += 1000000 - left;
  }
  /* 8 keys, whose buckets refill by a token in 5 minutes. */
  CHECK(GET(keyed) <= keyed + killed + 8 * 2 && keyed <= GET(keyed) + killed + 8 * 2);
  int64_t thousandths = 0;
  CHECK(agr_retry_budget_balance(its->budget, &thousandths, NULL) == AGR_OK);
  const int64_t budget = 1000000 - thousandths / 1000;
  CHECK(GET(budget) <= budget && budget <= GET(budget) + killed);

  /* Each name is there once, and its object complete. */
  int64_t counted = 0, taken = 0;
  for (int i = 0; i < OBJECTS; ++i) {
    char made[16];
    snprintf(made, sizeof made, "made.%d", i);
    agr_limiter_config config = limiter_config(1000, 0);
    config.max_reservations = 0;
    agr_limiter *limiter;
    CHECK(agr_limiter_create_in_region(its->region, made, &config, &limiter, &error) == AGR_OK);
    const int64_t used = 1000 - tokens_in(limiter);
    CHECK(GET(made[i]) <= used);
    counted += GET(made[i]);
    taken += used;
    agr_limiter_destroy(limiter);
  }
  CHECK(taken <= counted + killed);
  static char names[NAMES][64];
  int count = 0;
  uint64_t cursor = 0;
  agr_region_object object = {.struct_size = sizeof object};
  while (count < NAMES &&
         agr_region_next_object(its->region, &cursor, &object, &error) == AGR_OK) {
    for (int i = 0; i < count; ++i) CHECK(strcmp(names[i], object.name));
    strcpy(names[count++], object.name);
  }
  CHECK_EQUAL(count, OBJECTS + 5, "objects");
}

/* All that the dead held comes back: in virtual time, one time-out later. */
static void check_capacity(struct objects *its) {
  int64_t now = agr_now_ns() + PERMIT_TIMEOUT + SECOND;
  uint64_t permits[PERMITS];
  agr_reservation reservations[HELD];
  /* A permit that was being taken is known to be lost a time-out after somebody has missed it, one at a time. */
  for (int round = 0; round < 2 * PERMITS; ++round) {
    int held = 0;
    CHECK(agr_breaker_force_at(its->breaker, AGR_BREAKER_FORCED_CLOSED, now, NULL) == AGR_OK);
    while (held < PERMITS &&
           agr_breaker_acquire_at(its->breaker, now, &permits[held], NULL, NULL) == AGR_OK)
      ++held;
    int kept = 0;
    while (kept < HELD && agr_limiter_reserve_at(its->tank, 1, 0, now, &reservations[kept], NULL,
                                                 NULL) == AGR_OK)
      ++kept;
    for (int i = 0; i < held; ++i)
      CHECK(agr_breaker_report_at(its->breaker, permits[i], AGR_OUTCOME_NEUTRAL, 1, now, NULL) ==
            AGR_OK);
    for (int i = 0; i < kept; ++i)
      CHECK(agr_limiter_cancel_at(its->tank, reservations[i].permit, now, NULL) == AGR_OK);
    if (held == PERMITS && kept == HELD) {
      printf("all places came back after %d rounds\n", round);
      break;
    }
    CHECK(round + 1 < 2 * PERMITS);
    now += PERMIT_TIMEOUT;
  }
  /* It can be changed still, and probes are admitted as permitted. */
  const agr_limiter_config config = tank_config(300);
  CHECK(agr_limiter_reconfigure_at(its->tank, &config, now, &error) == AGR_OK);
  CHECK(agr_breaker_force_at(its->breaker, AGR_BREAKER_AUTOMATIC, now, NULL) == AGR_OK);
  uint64_t permit;
  for (int i = 0; i < 20; ++i) {
    if (agr_breaker_acquire_at(its->breaker, now, &permit, NULL, NULL) != AGR_OK) break;
    CHECK(agr_breaker_report_at(its->breaker, permit, AGR_OUTCOME_FAILURE, 1, now, NULL) == AGR_OK);
  }
  int admitted = 0;
  for (int round = 0; round < 8 && admitted < PROBES; ++round) {
    now += PERMIT_TIMEOUT + SECOND;
    admitted = 0;
    while (admitted <= PROBES &&
           agr_breaker_acquire_at(its->breaker, now, &permit, NULL, NULL) == AGR_OK)
      ++admitted;
  }
  CHECK_EQUAL(admitted, PROBES, "probes");
}

/* ---- regions themselves ---- */

/* Processes that create one region at once, most of which are killed meanwhile. */
static void kill_creators(int rounds) {
  char fresh[64];
  snprintf(fresh, sizeof fresh, "%s.fresh", name);
  for (int i = 0; i < rounds; ++i) {
    pid_t pids[3];
    for (int j = 0; j < 3; ++j) {
      pids[j] = fork();
      if (pids[j]) continue;
      agr_region *region;
      agr_limiter *limiter;
      const agr_limiter_config config = limiter_config(10, 0);
      if (agr_region_open(fresh, 1 << 17, NULL, &region, NULL) == AGR_OK)
        agr_limiter_create_in_region_at(region, "l", &config, 0, &limiter, NULL);
      _exit(0);
    }
    const struct timespec time = {.tv_nsec = (long)draw(600000)};
    nanosleep(&time, NULL);
    for (int j = 0; j < 3; ++j) {
      kill(pids[j], SIGKILL);
      CHECK(waitpid(pids[j], NULL, 0) == pids[j]);
    }
    agr_region *region = open_region(fresh, 1 << 17);
    const agr_limiter_config config = limiter_config(10, 0);
    agr_limiter *limiter;
    CHECK(agr_limiter_create_in_region_at(region, "l", &config, 0, &limiter, &error) == AGR_OK);
    CHECK(agr_limiter_try_acquire_at(limiter, 10, 0, NULL, NULL) == AGR_OK);
    CHECK(agr_limiter_try_acquire_at(limiter, 1, 0, NULL, NULL) == AGR_LIMITED);
    agr_limiter_destroy(limiter);
    agr_region_close(region);
    CHECK(agr_region_unlink(fresh, &error) == AGR_OK);
  }
}

int main(int count, char **arguments) {
  const int kills = count > 1 ? atoi(arguments[1]) : 2000;
  name = region_name("kills");
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  agr_region_config config;
  agr_region_config_init(&config, sizeof config);
  config.max_objects = NAMES;
  agr_region *region;
  CHECK(agr_region_open(name, 8 << 20, &config, &region, &error) == AGR_OK);
  struct objects its;
  began = agr_now_ns();
  CHECK(open_all(&its));
  pid_t workers[WORKERS] = {0};
  for (int killed = 0; killed < kills + WORKERS; ++killed) {
    const int i = killed % WORKERS;
    if (workers[i]) {
      /* Any instruction may be the last. */
      const struct timespec time = {.tv_nsec = (long)draw(1500000)};
      nanosleep(&time, NULL);
      int status = 0;
      kill(workers[i], SIGKILL);
      CHECK(waitpid(workers[i], &status, 0) == workers[i]);
      CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      workers[i] = 0;
    }
    if (killed < kills) {
      workers[i] = fork();
      if (workers[i] == 0) work();
    }
    check_meanwhile(&its);
  }
  for (int i = 0; i < WORKERS; ++i) CHECK(workers[i] == 0);
  printf("%d workers were killed, after %lld rounds, %lld changes of rate and %lld probes in all\n",
         kills, (long long)GET(operations), (long long)GET(moves), (long long)GET(probes));
  CHECK(GET(operations) > kills && GET(moves) > 0 && GET(probes) > 0);
  check_sums(&its, kills);
  check_capacity(&its);
  kill_creators(kills / 10);
  agr_region_close(region);
  CHECK(agr_region_unlink(name, &error) == AGR_OK);
  return finish();
}
