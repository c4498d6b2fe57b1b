/* SPDX-License-Identifier: Apache-2.0
 * Tokens that eight processes lease from one bucket on a Redis server: what is admitted stays within the header's bound and
 * reaches it, also while one of them is killed; the dead lose what they had leased and no more.
 *
 *   test_store_leases REDIS_CLOCK */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../c/check.h"
#include "redis_store.h"

enum { WORKERS = 8, MOST_TRIES = 60000 };
enum order { TAKE_ONE, DRAIN, FLOOD, END };
static const int64_t second = 1000000000, hour = 3600 * INT64_C(1000000000);
static redis_server server;
static volatile int64_t *clock_offset; /* of the server, microseconds */

/* What parent and workers share. */
typedef struct worker {
  _Alignas(64) _Atomic int64_t admitted;
  _Atomic int step;   /* the last it has done */
  _Atomic int is_dry; /* a flood has been refused once */
  _Atomic int failed; /* calls with another answer than admitted or limited */
  pid_t pid;
} worker;

typedef struct group {
  _Atomic int step;
  _Atomic int order;
  _Atomic int stop;
  worker workers[WORKERS];
} group;

static group *all;

/* ---- a worker ---- */

static agr_store *store;
static agr_limiter *limiter;

static uint64_t calls(void) {
  agr_error error;
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  if (agr_store_snapshot_read(store, &snapshot, &error) != AGR_OK) give_up(error.message);
  return snapshot.calls;
}

static int take(worker *self) {
  const agr_status status = agr_limiter_try_acquire(limiter, 1, NULL, NULL);
  if (status == AGR_OK) {
    atomic_fetch_add_explicit(&self->admitted, 1, memory_order_relaxed);
  } else if (status != AGR_LIMITED) {
    atomic_fetch_add(&self->failed, 1);
  }
  return status == AGR_OK;
}

/* Until the store itself refuses: an earlier refusal may stand for a while. */
static void drain(worker *self) {
  for (;;) {
    const uint64_t before = calls();
    if (take(self)) continue;
    if (calls() != before) return;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

static void flood(worker *self) {
  while (!atomic_load_explicit(&all->stop, memory_order_relaxed)) {
    if (!take(self)) atomic_store_explicit(&self->is_dry, 1, memory_order_relaxed);
  }
  drain(self);
}

static void work(worker *self, const char *name, const agr_limiter_config *config, int64_t lease_tokens) {
  agr_error error;
  agr_store_options options;
  agr_store_options_init(&options, sizeof options);
  options.lease_tokens = lease_tokens;
  store = open_store(&server, 20 * second);
  if (agr_limiter_create_in_store(store, name, config, &options, &limiter, &error) != AGR_OK)
    give_up(error.message);
  for (int step = 1;; ++step) {
    while (atomic_load(&all->step) < step) nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    switch (atomic_load(&all->order)) {
    case TAKE_ONE: take(self); break;
    case DRAIN: drain(self); break;
    case FLOOD: flood(self); break;
    default: _exit(EXIT_SUCCESS); /* without giving back what it has leased */
    }
    atomic_store(&self->step, step);
  }
}

/* ---- the parent ---- */

static void start_workers(const char *name, const agr_limiter_config *config, int64_t lease_tokens) {
  memset(all, 0, sizeof *all);
  for (int i = 0; i < WORKERS; ++i) {
    const pid_t pid = fork();
    if (pid < 0) give_up("fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      work(&all->workers[i], name, config, lease_tokens);
    }
    all->workers[i].pid = pid;
  }
}

static void give_order(enum order order) {
  atomic_store(&all->order, order);
  atomic_fetch_add(&all->step, 1);
}

static int64_t admitted(void) {
  int64_t sum = 0;
  for (int i = 0; i < WORKERS; ++i) sum += atomic_load(&all->workers[i].admitted);
  return sum;
}

static int all_done(int64_t unused) {
  (void)unused;
  for (int i = 0; i < WORKERS; ++i) {
    if (all->workers[i].pid && atomic_load(&all->workers[i].step) < atomic_load(&all->step)) return 0;
  }
  return 1;
}

static int all_dry(int64_t unused) {
  (void)unused;
  for (int i = 0; i < WORKERS; ++i) {
    if (!atomic_load(&all->workers[i].is_dry)) return 0;
  }
  return 1;
}

static int so_many(int64_t wanted) { return admitted() >= wanted; }

static void wait_until(int (*is_so)(int64_t), int64_t argument, const char *what) {
  for (int tries = 0; !is_so(argument); ++tries) {
    if (tries > MOST_TRIES) give_up(what);
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
  }
}

static void kill_worker(int number) {
  worker *victim = &all->workers[number];
  kill(victim->pid, SIGKILL);
  CHECK(waitpid(victim->pid, NULL, 0) == victim->pid);
  victim->pid = 0;
}

static void end_workers(void) {
  give_order(END);
  for (int i = 0; i < WORKERS; ++i) {
    int status = -1;
    CHECK_EQUAL(atomic_load(&all->workers[i].failed), 0, "calls that failed");
    if (!all->workers[i].pid) continue;
    CHECK(waitpid(all->workers[i].pid, &status, 0) == all->workers[i].pid && status == 0);
  }
}

static int64_t ordered(enum order order) {
  const int64_t before = admitted();
  give_order(order);
  wait_until(all_done, 0, "the workers do not come to an end");
  return admitted() - before;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * second + t.tv_nsec;
}

static agr_limiter_config bucket_of(int64_t capacity, int64_t tokens, int64_t interval_ns) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = tokens;
  config.refill_interval_ns = interval_ns;
  return config;
}

/* The worst case: all hold a full lease, and the bucket has refilled. */
static void a_window_reaches_the_bound_and_no_more(void) {
  const agr_limiter_config config = bucket_of(1000, 1, hour);
  start_workers("window", &config, 99);
  CHECK_EQUAL(ordered(TAKE_ONE), WORKERS, "one each");
  *clock_offset += 2000 * (hour / 1000);
  CHECK_EQUAL(ordered(DRAIN), 1000 + WORKERS * 99, "capacity and a lease of each process");
  *clock_offset += 2000 * (hour / 1000);
  CHECK_EQUAL(ordered(DRAIN), 1000, "where nothing is held, the capacity");
  end_workers();
}

static void the_dead_lose_their_lease_and_no_more(void) {
  const agr_limiter_config config = bucket_of(1000, 1, hour);
  start_workers("dead", &config, 99);
  CHECK_EQUAL(ordered(TAKE_ONE), WORKERS, "one each");
  kill_worker(3);
  CHECK_EQUAL(ordered(DRAIN), 1000 - WORKERS - 99, "all but the lease of the dead");
  *clock_offset += 2000 * (hour / 1000);
  CHECK_EQUAL(ordered(DRAIN), 1000, "as if it had not been");
  end_workers();
}

/* All ask as often as they can, and one is killed on the way. */
static void a_rate_is_kept(int victim) {
  enum { CAPACITY = 20000, RATE = 20000, LEASE = 500, MORE = 12000 };
  const agr_limiter_config config = bucket_of(CAPACITY, RATE, second);
  char name[16];
  snprintf(name, sizeof name, "rate-%d", victim);
  const int64_t start = now_ns();
  start_workers(name, &config, LEASE);
  give_order(FLOOD);
  /* Each was refused once: the bucket was empty then, and cannot be full again for a second. */
  wait_until(all_dry, 0, "the bucket does not run dry");
  const int64_t dry = now_ns();
  wait_until(so_many, CAPACITY + MORE / 2, "the rate is not reached");
  if (victim >= 0) kill_worker(victim);
  wait_until(so_many, CAPACITY + MORE, "the rate is not reached");
  const int64_t flowed = now_ns() - dry;
  atomic_store(&all->stop, 1);
  wait_until(all_done, 0, "the workers do not come to an end");
  const double elapsed = (double)(now_ns() - start) / 1e9;
  const double sure = flowed < second ? (double)flowed / 1e9 : 1;
  const double sum = (double)admitted();
  printf("%s: %.0f admitted, %.0f to %.0f allowed\n", name, sum,
         CAPACITY + RATE * sure - WORKERS * (LEASE + 1), CAPACITY + RATE * elapsed + WORKERS * LEASE);
  CHECK(sum <= CAPACITY + RATE * elapsed + WORKERS * LEASE);
  CHECK(sum >= CAPACITY + RATE * sure - WORKERS * (LEASE + 1));
  end_workers();
}

static void start_with_clock(const char *shim) {
  char path[120];
  server.preload = shim;
  strcpy(server.directory, "/tmp/agr-redis-XXXXXX");
  if (!mkdtemp(server.directory)) give_up("mkdtemp");
  snprintf(path, sizeof path, "%s/offset", server.directory);
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, 8) != 0) give_up(path);
  clock_offset = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (clock_offset == MAP_FAILED) give_up("mmap");
  close(file);
  setenv("REDIS_CLOCK_OFFSET", path, 1);
  start_server(&server);
}

int main(int count, char **arguments) {
  if (count != 2) give_up("the argument REDIS_CLOCK");
  all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) give_up("mmap");
  start_with_clock(arguments[1]);
  a_window_reaches_the_bound_and_no_more();
  the_dead_lose_their_lease_and_no_more();
  a_rate_is_kept(-1);
  a_rate_is_kept(5);
  end_server(&server);
  return finish();
}
