/* SPDX-License-Identifier: Apache-2.0
 * A limiter on a Redis server of its own beside a bare PING through hiredis, in turns. Nanoseconds a permit or a PING;
 * and how far eight processes that share a bucket are off its rate.
 *
 *   redis ROUNDS
 *
 * The server has the first CPU and the clients the second, where there are two; in names with "free" the scheduler places
 * them. */
#define _GNU_SOURCE
#include <autoglm_reliability.h>
#include <autoglm_reliability/redis.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../../Tests/store/redis_server.h"

enum { MOST_ROUNDS = 15, THREADS = 8, PROCESSES = 8 };
static const int64_t turn_ns = 40000000, second = 1000000000;
static redis_server server;
static agr_error error;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * second + t.tv_nsec;
}

static void must(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "bench_redis: %s\n", what);
  end_server(&server);
  exit(1);
}

/* cpu  -1: any. */
static void pin(pid_t process, int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (cpu < 0 || cpu == i) CPU_SET((size_t)i, &cpus);
  }
  must(sched_setaffinity(process, sizeof cpus, &cpus) == 0, "sched_setaffinity");
}

static void place(int is_free) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return;
  pin(server.pid, is_free ? -1 : 0);
  pin(0, is_free ? -1 : 1);
}

/* ---- what is measured ---- */

static agr_store *open_store(uint32_t connections) {
  char address[32];
  agr_redis_config config;
  agr_store_driver driver;
  agr_store *store = NULL;
  agr_redis_config_init(&config, sizeof config);
  snprintf(address, sizeof address, "127.0.0.1:%d", server.port);
  config.address = address;
  config.connections = connections;
  must(agr_redis_open(&config, &driver, &error) == AGR_OK, error.message);
  must(agr_store_create(&driver, NULL, &store, &error) == AGR_OK, error.message);
  return store;
}

static agr_limiter *open_limiter(agr_store *store, const char *name, int64_t capacity, int64_t rate,
                                 int64_t lease_tokens) {
  agr_limiter_config config;
  agr_store_options options;
  agr_limiter *limiter = NULL;
  agr_limiter_config_init(&config, sizeof config);
  agr_store_options_init(&options, sizeof options);
  config.capacity = capacity;
  config.refill_tokens = rate;
  config.refill_interval_ns = second;
  options.lease_tokens = lease_tokens;
  must(agr_limiter_create_in_store(store, name, &config, &options, &limiter, &error) == AGR_OK, error.message);
  return limiter;
}

static redisContext *bare[THREADS];
static agr_store *stores[2]; /* with one connection, and with two */
static agr_limiter *plain[2], *leased;

static void ping_bare(int thread) {
  redisReply *reply = redisCommand(bare[thread], "PING");
  must(reply && reply->type == REDIS_REPLY_STATUS, "PING");
  freeReplyObject(reply);
}

/* The least that a bucket by the server's clock takes: the time, one read and one write, in one script. */
static const char least_script[] =
    "redis.call('TIME') redis.call('GET',KEYS[1]) redis.call('SET',KEYS[1],ARGV[1],'KEEPTTL')";
static char least_name[48];

static void load_least(void) {
  redisReply *reply = redisCommand(bare[0], "SCRIPT LOAD %s", least_script);
  must(reply && reply->type == REDIS_REPLY_STRING && reply->len == 40, "SCRIPT LOAD");
  memcpy(least_name, reply->str, 41);
  freeReplyObject(reply);
}

static void least_take(int thread) {
  const double state[3] = {1e9, 1e9, 1e9};
  redisReply *reply = redisCommand(bare[thread], "EVALSHA %s 1 least %b", least_name, state, sizeof state);
  must(reply && reply->type == REDIS_REPLY_NIL, "EVALSHA");
  freeReplyObject(reply);
}

static void ping_store(int thread) {
  (void)thread;
  must(agr_store_ping(stores[1], 0, &error) == AGR_OK, error.message);
}

static void take(agr_limiter *limiter) {
  agr_error own;
  own.message[0] = 0;
  must(agr_limiter_try_acquire(limiter, 1, NULL, &own) == AGR_OK, own.message);
}

static void take_by_one(int thread) { (void)thread, take(plain[0]); }
static void take_by_two(int thread) { (void)thread, take(plain[1]); }
static void take_leased(int thread) { (void)thread, take(leased); }

static const struct subject {
  const char *name;
  void (*body)(int thread);
  int threads;
} subjects[] = {
    {"floor.%sredis.ping", ping_bare, 1},
    {"%sredis.take", take_by_two, 1},
    {"floor.%sredis.script", least_take, 1},
    {"%sredis.ping", ping_store, 1},
    {"%sredis.leased", take_leased, 1},
    {"floor.%sredis.ping.8", ping_bare, THREADS},
    {"floor.%sredis.script.8", least_take, THREADS},
    {"%sredis.take.8", take_by_two, THREADS},
    {"%sredis.take.8.one_connection", take_by_one, THREADS},
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

struct runner {
  pthread_t id;
  const struct subject *subject;
  int thread;
  int64_t end;
  long count;
};

static void *run(void *argument) {
  struct runner *self = argument;
  do {
    for (int i = 0; i < 16; ++i) self->subject->body(self->thread);
    self->count += 16;
  } while (now_ns() < self->end);
  return NULL;
}

static double measure(const struct subject *subject) {
  struct runner runners[THREADS] = {0};
  const int64_t start = now_ns();
  long count = 0;
  for (int i = 0; i < subject->threads; ++i) {
    runners[i] = (struct runner){.subject = subject, .thread = i, .end = start + turn_ns};
    if (subject->threads == 1) run(&runners[i]);
    else must(pthread_create(&runners[i].id, NULL, run, &runners[i]) == 0, "a thread");
  }
  for (int i = 0; i < subject->threads; ++i) {
    if (subject->threads > 1) pthread_join(runners[i].id, NULL);
    count += runners[i].count;
  }
  return (double)(now_ns() - start) / (double)count;
}

static void print(const char *format, const char *kind, const double *seen, int rounds) {
  char name[64];
  snprintf(name, sizeof name, format, kind);
  printf("{\"name\": \"%s\", \"ns\": [", name);
  for (int round = 0; round < rounds; ++round) printf("%s%.1f", round ? ", " : "", seen[round]);
  printf("]}\n");
}

static void times(const char *kind, int rounds) {
  static double seen[SUBJECTS][MOST_ROUNDS];
  for (int i = 0; i < SUBJECTS; ++i) measure(&subjects[i]); /* connects */
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < SUBJECTS; ++i) seen[i][round] = measure(&subjects[i]);
  }
  for (int i = 0; i < SUBJECTS; ++i) print(subjects[i].name, kind, seen[i], rounds);
}

/* ---- the error of eight processes ---- */

struct tally {
  _Atomic int running;
  struct {
    _Alignas(64) _Atomic long admitted;
  } each[PROCESSES];
};

static void spend(struct tally *tally, int number, const char *name, int64_t capacity, int64_t rate, int64_t lease) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  agr_limiter *limiter = open_limiter(open_store(2), name, capacity, rate, lease);
  while (!atomic_load(&tally->running)) sched_yield();
  while (atomic_load_explicit(&tally->running, memory_order_relaxed) == 1) {
    int64_t retry_after = 0;
    const agr_status status = agr_limiter_try_acquire(limiter, 1, &retry_after, &error);
    must(status == AGR_OK || status == AGR_LIMITED, error.message);
    if (status == AGR_OK) atomic_fetch_add_explicit(&tally->each[number].admitted, 1, memory_order_relaxed);
    else nanosleep(&(struct timespec){.tv_nsec = retry_after < 1000000 ? retry_after : 1000000}, NULL);
  }
  _exit(0);
}

/* |admitted - (capacity + rate * t)| / (rate * t), of eight processes that ask for more than there is. */
static double error_of(int round, int64_t rate, int64_t lease) {
  struct tally *tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(tally != MAP_FAILED, "mmap");
  const int64_t capacity = rate / 10;
  char name[48];
  pid_t processes[PROCESSES];
  snprintf(name, sizeof name, "error-%d-%lld", round, (long long)lease);
  for (int i = 0; i < PROCESSES; ++i) {
    processes[i] = fork();
    must(processes[i] >= 0, "fork");
    if (processes[i] == 0) spend(tally, i, name, capacity, rate, lease);
  }
  const int64_t start = now_ns();
  atomic_store(&tally->running, 1);
  nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
  atomic_store(&tally->running, 2);
  const double t = (double)(now_ns() - start) / 1e9;
  double admitted = 0;
  for (int i = 0; i < PROCESSES; ++i) {
    int status = -1;
    must(waitpid(processes[i], &status, 0) == processes[i] && status == 0, "a process");
    admitted += (double)atomic_load(&tally->each[i].admitted);
  }
  munmap(tally, sizeof *tally);
  const double off = admitted - ((double)capacity + (double)rate * t);
  return (off < 0 ? -off : off) / ((double)rate * t);
}

static void errors(const char *name, int64_t rate, int64_t lease, int rounds) {
  printf("{\"name\": \"error.redis.%s\", \"shares\": [", name);
  for (int round = 0; round < rounds; ++round) printf("%s%.5f", round ? ", " : "", error_of(round, rate, lease));
  printf("]}\n");
}

int main(int count, char **arguments) {
  must(count == 2, "the argument ROUNDS");
  const int wanted = atoi(arguments[1]), rounds = wanted < MOST_ROUNDS ? wanted : MOST_ROUNDS;
  start_server(&server);
  for (int i = 0; i < THREADS; ++i) {
    bare[i] = redisConnect("127.0.0.1", server.port);
    must(bare[i] && !bare[i]->err, "hiredis does not connect");
  }
  load_least();
  const int64_t plenty = INT64_C(1) << 40, rate = 1000000000;
  for (int i = 0; i < 2; ++i) {
    stores[i] = open_store((uint32_t)i + 1);
    plain[i] = open_limiter(stores[i], "plain", plenty, rate, 0);
  }
  leased = open_limiter(stores[1], "leased", plenty, rate, 1000);
  place(0);
  times("", rounds);
  place(1);
  times("free.", rounds);
  errors("8.leased", 100000, 1000, 2);
  errors("8", 10000, 0, 2);
  end_server(&server);
  return 0;
}
