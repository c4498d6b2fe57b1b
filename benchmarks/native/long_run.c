/* SPDX-License-Identifier: Apache-2.0
 * The idempotency cache for long: each thread begins and completes one new key after the other, while the old
 * ones expire at the same pace, in virtual time. Is it as fast at the end, and does any call take long?
 *
 *   long_run [CALLS [THREADS]]     pairs of begin and complete, in all; default 10^8, by 1 thread
 *
 * A caller is also held up by the scheduler, for which the cache can do nothing. So each chunk of calls is
 * timed by the thread's CPU clock too: `longest_cpu_ns` is the most CPU time of a chunk in which a call took
 * more than a tenth of a millisecond, and no call of it can have taken more. Interrupts, and a CPU that a
 * hypervisor takes away, are in that too; so the same is measured of calls that only count, a quarter as many
 * (`control`). */
#include <unistd.h>

#include "bench.h"
#include "subjects.h"

enum { LIVE = 100000, CHUNK = 16, PARTS = 20, SLICES = 50, SLOW_NS = 100000 };

typedef struct worker {
  agr_idempotency *cache;
  int64_t pairs;
  uint64_t first_key;
  int64_t part_ns[PARTS];  /* CPU time */
  int64_t quick_ns[PARTS]; /* SLICES times the quickest slice */
  int64_t longest_ns, longest_cpu_ns, slow, slow_by_itself;
} worker;

static _Atomic int64_t now_ns = 1000000000;

static int64_t cpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t longest(int64_t known, int64_t from, int64_t to) {
  return to - from > known ? to - from : known;
}

/* As long as a pair, and nothing but arithmetic: what it shows is the machine's doing. */
static int64_t nothing(uint64_t number) {
  const int64_t start = bench_now();
  for (int i = 0; i < 300; ++i) BENCH_USE(bench_random(&number));
  return bench_now() - start;
}

static int64_t pair(agr_idempotency *cache, uint64_t number) {
  if (!cache) return nothing(number);
  char key[LONG_KEY_BYTES] = {0};
  memcpy(key, &number, sizeof number);
  agr_lease lease;
  agr_result result;
  /* A microsecond a pair, so that the time to live makes LIVE results. */
  const int64_t now = now_ns += 1000;
  const int64_t start = bench_now();
  demand(agr_idempotency_begin_at(cache, key, sizeof key, NULL, 0, now, &lease, &result, NULL) ==
             AGR_OK, "begin");
  const int64_t begun = bench_now();
  demand(agr_idempotency_complete_at(cache, lease.id, key, 16, now, NULL) == AGR_OK, "complete");
  return longest(longest(0, start, begun), begun, bench_now());
}

static void *work(void *given) {
  worker *mine = given;
  for (int part = 0; part < PARTS; ++part) {
    const int64_t part_start = cpu_now();
    const int64_t chunks = mine->pairs / PARTS / CHUNK, slice = chunks / SLICES;
    int64_t slice_start = part_start;
    mine->quick_ns[part] = INT64_MAX;
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t start = cpu_now();
      if (slice && i % slice == 0 && i) {
        const int64_t took = (start - slice_start) * SLICES;
        if (took < mine->quick_ns[part]) mine->quick_ns[part] = took;
        slice_start = start;
      }
      int64_t wall = 0;
      for (int j = 0; j < CHUNK; ++j) {
        const int64_t ns = pair(mine->cache, mine->first_key++);
        if (ns > wall) wall = ns;
      }
      if (wall > mine->longest_ns) mine->longest_ns = wall;
      if (wall <= SLOW_NS) continue;
      const int64_t cpu = cpu_now() - start;
      ++mine->slow;
      mine->slow_by_itself += cpu > SLOW_NS;
      if (cpu > mine->longest_cpu_ns) mine->longest_cpu_ns = cpu;
    }
    mine->part_ns[part] = cpu_now() - part_start;
  }
  return NULL;
}

static int64_t resident_kib(void) {
  long long pages = 0, ignored;
  FILE *file = fopen("/proc/self/statm", "r");
  demand(file && fscanf(file, "%lld %lld", &ignored, &pages) == 2, "statm");
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE) / 1024;
}

static void show(const char *whose, const worker *one) {
  printf("\"%slongest_ns\": %lld, \"%slongest_cpu_ns\": %lld, \"%sslow\": %lld, ", whose,
         (long long)one->longest_ns, whose, (long long)one->longest_cpu_ns, whose, (long long)one->slow);
  printf("\"%sslow_by_itself\": %lld, ", whose, (long long)one->slow_by_itself);
}

static worker run(worker *workers, agr_idempotency *cache, int64_t pairs, int threads) {
  pthread_t ids[BENCH_THREADS_MOST];
  for (int i = 0; i < threads; ++i) {
    workers[i] = (worker){.cache = cache, .pairs = pairs / threads, .first_key = (uint64_t)i << 56};
    demand(pthread_create(&ids[i], NULL, work, &workers[i]) == 0, "thread");
  }
  worker all = {0};
  for (int i = 0; i < threads; ++i) {
    pthread_join(ids[i], NULL);
    const worker *one = &workers[i];
    for (int part = 0; part < PARTS; ++part) {
      all.part_ns[part] += one->part_ns[part];
      all.quick_ns[part] += one->quick_ns[part];
    }
    if (one->longest_ns > all.longest_ns) all.longest_ns = one->longest_ns;
    if (one->longest_cpu_ns > all.longest_cpu_ns) all.longest_cpu_ns = one->longest_cpu_ns;
    all.slow += one->slow;
    all.slow_by_itself += one->slow_by_itself;
  }
  return all;
}

int main(int count, char **arguments) {
  const int64_t pairs = count > 1 ? atoll(arguments[1]) : 100000000;
  const int threads = count > 2 ? atoi(arguments[2]) : 1;
  demand(pairs > 0 && threads > 0 && threads <= BENCH_THREADS_MOST, "arguments");
  agr_idempotency *cache = NULL;
  agr_idempotency_config config;
  agr_idempotency_config_init(&config, sizeof config);
  config.max_entries = 2 * LIVE;
  config.ttl_ns = (int64_t)LIVE * 1000;
  demand(agr_idempotency_create(&config, &cache, NULL) == AGR_OK, "cache");

  /* Until the first results expire, which are the process's first pages too. */
  static worker workers[BENCH_THREADS_MOST];
  workers[0] = (worker){.cache = cache, .pairs = 5 * LIVE, .first_key = UINT64_C(1) << 60};
  work(&workers[0]);
  const int64_t before_kib = resident_kib();

  const worker all = run(workers, cache, pairs, threads);
  const int64_t after_kib = resident_kib();
  const worker control = run(workers, NULL, pairs / 4, threads);
  const double each = (double)(pairs / threads / PARTS / CHUNK * CHUNK * threads);
  printf("{\"name\": \"long_run\", \"pairs\": %lld, \"threads\": %d, \"pair_ns\": [", (long long)pairs,
         threads);
  for (int part = 0; part < PARTS; ++part)
    printf("%s%.1f", part ? ", " : "", (double)all.part_ns[part] / each);
  printf("], \"quick_ns\": [");
  for (int part = 0; part < PARTS; ++part)
    printf("%s%.1f", part ? ", " : "", (double)all.quick_ns[part] / each);
  printf("], ");
  show("", &all);
  show("control_", &control);
  printf("\"resident_kib\": [%lld, %lld]}\n", (long long)before_kib, (long long)after_kib);
  return 0;
}
