/* SPDX-License-Identifier: Apache-2.0
 * How time and memory grow with the number of keys, of threads on one object, and of buckets in one permit.
 * Keys are made as they are asked for, so that only the library's own memory is touched; beside it the least
 * that many keys cost: one exchange in a random place of a table of 16 bytes a key, one after the other.
 *
 *   growth [ROUNDS [MOST_KEYS]] */
#include <unistd.h>

#include "bench.h"
#include "floors.h"
#include "subjects.h"

#define SIZES(DO) DO(1000, 0) DO(10000, 1) DO(100000, 2) DO(1000000, 3) DO(10000000, 4)
enum { SIZE_COUNT = 5 };

static agr_keyed_limiter *limiters[SIZE_COUNT];
static agr_idempotency *caches[SIZE_COUNT];
static _Atomic int64_t (*slots[SIZE_COUNT])[2];

static const char *key_of(char *key, uint64_t number) {
  memcpy(key, &number, sizeof number);
  return key;
}

static uint64_t next_key(uint64_t *state, uint64_t count) {
  return (uint64_t)(((unsigned __int128)bench_random(state) * count) >> 64);
}

static void take_keyed(int size, uint64_t count, int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  char key[KEY_BYTES] = {0};
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_keyed_limiter_try_acquire_at(limiters[size], key_of(key, next_key(&state, count)),
                                           KEY_BYTES, 1, NOW, NULL, NULL);
  states[thread] = state;
}

static void take_replay(int size, uint64_t count, int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  char key[LONG_KEY_BYTES] = {0};
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(replay(caches[size], key_of(key, next_key(&state, count))));
  states[thread] = state;
}

static void take_floor(int size, uint64_t count, int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  for (int64_t i = 0; i < operations; ++i) {
    _Atomic int64_t *slot = slots[size][next_key(&state, count)];
    BENCH_USE(floor_take(&slot[0], 1, INT64_C(1) << 60, NOW));
    /* Zero; which the processor must know before it can fetch the next. */
    state += (uint64_t)atomic_load_explicit(&slot[1], memory_order_relaxed);
  }
  states[thread] = state;
}

#define BODIES(COUNT, SIZE)                                                                         \
  static void keyed_##COUNT(int64_t n, int t) { take_keyed(SIZE, COUNT, n, t); }                     \
  static void replay_##COUNT(int64_t n, int t) { take_replay(SIZE, COUNT, n, t); }                   \
  static void floor_##COUNT(int64_t n, int t) { take_floor(SIZE, COUNT, n, t); }
SIZES(BODIES)

static int64_t resident(void) {
  long long pages = 0, ignored;
  FILE *file = fopen("/proc/self/statm", "r");
  demand(file && fscanf(file, "%lld %lld", &ignored, &pages) == 2, "statm");
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

static void report_bytes(const char *name, uint64_t count, int64_t before, uint64_t without_place) {
  printf("{\"name\": \"%s.%llu\", \"bytes_per_key\": %.1f, \"without_place\": %llu}\n", name,
         (unsigned long long)count, (double)(resident() - before) / (double)count,
         (unsigned long long)without_place);
}

static void make(int size, uint32_t count) {
  slots[size] = aligned_alloc(64, (sizeof *slots[size] * count + 63) / 64 * 64);
  demand(slots[size] != NULL, "memory");
  memset((void *)slots[size], 0, sizeof *slots[size] * count);

  int64_t before = resident();
  limiters[size] = new_keyed(NULL, 0, count);
  char key[LONG_KEY_BYTES] = {0};
  uint64_t without_place = 0;
  for (uint32_t i = 0; i < count; ++i)
    without_place += agr_keyed_limiter_try_acquire_at(limiters[size], key_of(key, i), KEY_BYTES, 1,
                                                      NOW, NULL, NULL) != AGR_OK;
  report_bytes("growth.keyed", count, before, without_place);

  before = resident();
  caches[size] = new_cache(NULL, 0, count);
  for (uint32_t i = 0; i < count; ++i) fill_cache(caches[size], key_of(key, i));
  report_bytes("growth.idempotency", count, before, 0);
}

#define ADD(COUNT, SIZE)                                                    \
  if (COUNT <= most) {                                                      \
    make(SIZE, COUNT);                                                      \
    bench_add_large("growth.keyed." #COUNT, keyed_##COUNT, 1);                    \
    bench_add_large("growth.idempotency." #COUNT, replay_##COUNT, 1);             \
    bench_add_large("growth.floor." #COUNT, floor_##COUNT, 1);                    \
  }

/* ---- threads ---- */

static agr_limiter *limiter;
static agr_breaker *breaker;

static void one_limiter(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_at(limiter, 1, NOW + i, NULL, NULL);
}

static void one_breaker(int64_t operations, int thread) {
  (void)thread;
  pair_at(breaker, operations);
}

/* ---- buckets in a permit ---- */

static agr_limiter_demand demands[AGR_DIMENSIONS_MAX];
static floor_line floor_buckets[AGR_DIMENSIONS_MAX];

static void joint(uint32_t buckets, int64_t operations) {
  for (int64_t i = 0; i < operations; ++i)
    (void)agr_limiter_try_acquire_all_at(demands, buckets, NOW + i, NULL, NULL, NULL);
}

static void floor_joint(uint32_t buckets, int64_t operations) {
  for (int64_t i = 0; i < operations; ++i)
    for (uint32_t bucket = 0; bucket < buckets; ++bucket)
      BENCH_USE(floor_take(&floor_buckets[bucket].word, 1, INT64_C(1) << 60, NOW + i));
}

#define BUCKETS(DO) DO(1) DO(2) DO(3) DO(4)
#define JOINT(COUNT)                                                             \
  static void joint_##COUNT(int64_t n, int t) { (void)t; joint(COUNT, n); }       \
  static void floor_joint_##COUNT(int64_t n, int t) { (void)t; floor_joint(COUNT, n); }
BUCKETS(JOINT)
#define ADD_JOINT(COUNT)                                             \
  bench_add("growth.joint." #COUNT, joint_##COUNT, 1);               \
  bench_add("growth.floor.joint." #COUNT, floor_joint_##COUNT, 1);

#define THREADS(DO) DO(1) DO(2) DO(4) DO(8)
#define ADD_THREADS(COUNT)                                                        \
  bench_add("growth.threads.floor." #COUNT, floor_bucket_at, COUNT);              \
  bench_add("growth.threads.limiter." #COUNT, one_limiter, COUNT);                \
  bench_add("growth.threads.breaker." #COUNT, one_breaker, COUNT);                \
  if (most >= 100000) {                                                           \
    bench_add_large("growth.threads.keyed." #COUNT, keyed_100000, COUNT);               \
    bench_add_large("growth.threads.idempotency." #COUNT, replay_100000, COUNT);        \
  }

int main(int count, char **arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 15;
  const int64_t most = count > 2 ? atoll(arguments[2]) : 10000000;
  SIZES(ADD)
  limiter = new_full_limiter();
  breaker = new_breaker(AGR_WINDOW_COUNT);
  THREADS(ADD_THREADS)
  for (int i = 0; i < AGR_DIMENSIONS_MAX; ++i) {
    demands[i].limiter = new_full_limiter();
    demands[i].tokens = 1;
  }
  BUCKETS(ADD_JOINT)
  bench_run(rounds, NULL);
  return 0;
}
