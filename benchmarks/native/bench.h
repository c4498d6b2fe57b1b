/* SPDX-License-Identifier: Apache-2.0
 * A small harness: every round runs all benchmarks once, so that a slow moment of the machine meets all
 * alike, and prints a line of JSON for each: its name and nanoseconds an operation, round by round. What the
 * kernel interrupted to run something else is measured again, a few times.
 *
 * C and C++. */
#ifndef BENCH_H
#define BENCH_H

#include <sched.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { BENCH_MOST = 64, BENCH_ROUNDS_MOST = 101, BENCH_THREADS_MOST = 8, BENCH_TRIES = 5 };
#define BENCH_ROUND_NS INT64_C(2000000)
/* For what touches so much memory that it must first be fetched into the caches, as it would be in use; and for
 * what needs a while to become as quick as it stays. */
#define BENCH_LARGE_ROUND_NS INT64_C(20000000)

typedef struct bench {
  const char *name;
  void (*body)(int64_t operations, int thread);
  int threads;        /* each pinned to a CPU of its own where there is one; 1: none is pinned */
  int large;          /* runs once unmeasured before each round */
  int64_t operations; /* a round; found by trial */
  double rounds[BENCH_ROUNDS_MOST];
} bench;

static bench benches[BENCH_MOST];
static int bench_count;

static inline int64_t bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* How often this thread had to yield its CPU to another. */
static inline long bench_preempted(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

/* Makes the compiler believe that a value is used. */
#define BENCH_USE(value) __asm__ volatile("" : : "r,m"(value) : "memory")

static inline uint64_t bench_random(uint64_t *state) {
  uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

static inline void bench_add(const char *name, void (*body)(int64_t, int), int threads) {
  if (bench_count == BENCH_MOST) abort();
  bench fresh = {name, body, threads, 0, 1000, {0}};
  benches[bench_count++] = fresh;
}

static inline void bench_add_large(const char *name, void (*body)(int64_t, int), int threads) {
  bench_add(name, body, threads);
  benches[bench_count - 1].large = 1;
}

typedef struct bench_worker {
  bench *what;
  int thread;
  pthread_barrier_t *start;
  int64_t from, to;
  long preempted;
} bench_worker;

static void *bench_work(void *given) {
  bench_worker *worker = (bench_worker *)given;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET((size_t)worker->thread, &cpus);
  /* With fewer CPUs than threads they share, and the figure shows it. */
  (void)pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
  pthread_barrier_wait(worker->start);
  long before = bench_preempted();
  worker->from = bench_now();
  worker->what->body(worker->what->operations, worker->thread);
  worker->to = bench_now();
  worker->preempted = bench_preempted() - before;
  return NULL;
}

/* Nanoseconds for an operation of one of the threads, and how often one of them was interrupted. */
static double bench_try(bench *what, long *preempted) {
  if (what->threads == 1) {
    long before = bench_preempted();
    int64_t from = bench_now();
    what->body(what->operations, 0);
    double ns = (double)(bench_now() - from) / (double)what->operations;
    *preempted = bench_preempted() - before;
    return ns;
  }
  *preempted = 0;
  bench_worker workers[BENCH_THREADS_MOST];
  pthread_t threads[BENCH_THREADS_MOST];
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, (unsigned)what->threads);
  for (int i = 0; i < what->threads; ++i) {
    workers[i].what = what;
    workers[i].thread = i;
    workers[i].start = &start;
    pthread_create(&threads[i], NULL, bench_work, &workers[i]);
  }
  int64_t from = INT64_MAX, to = 0;
  for (int i = 0; i < what->threads; ++i) {
    pthread_join(threads[i], NULL);
    if (workers[i].from < from) from = workers[i].from;
    if (workers[i].to > to) to = workers[i].to;
    *preempted += workers[i].preempted;
  }
  pthread_barrier_destroy(&start);
  return (double)(to - from) / (double)what->operations;
}

/* The first that was not interrupted, or else the quickest. */
static double bench_once(bench *what) {
  double best = 0;
  long preempted;
  if (what->large) (void)bench_try(what, &preempted);
  for (int i = 0; i < BENCH_TRIES; ++i) {
    double ns = bench_try(what, &preempted);
    if (i == 0 || preempted == 0 || ns < best) best = ns;
    /* More threads than there are CPUs interrupt each other. */
    if (preempted == 0 || what->threads > 2) break;
  }
  return best;
}

/* Runs those whose name begins with `only`, or all, and prints what they took. */
static inline void bench_run(int rounds, const char *only) {
  if (rounds > BENCH_ROUNDS_MOST) rounds = BENCH_ROUNDS_MOST;
  size_t length = only ? strlen(only) : 0;
  for (int i = 0; i < bench_count; ++i) {
    bench *what = &benches[i];
    if (strncmp(what->name, only ? only : "", length)) continue;
    const double enough = (double)(what->large ? BENCH_LARGE_ROUND_NS : BENCH_ROUND_NS) / 2;
    while (what->operations < INT64_C(1) << 30 &&
           bench_once(what) * (double)what->operations < enough)
      what->operations *= 2;
  }
  for (int round = 0; round < rounds; ++round)
    for (int i = 0; i < bench_count; ++i)
      if (!strncmp(benches[i].name, only ? only : "", length))
        benches[i].rounds[round] = bench_once(&benches[i]);
  for (int i = 0; i < bench_count; ++i) {
    if (strncmp(benches[i].name, only ? only : "", length)) continue;
    printf("{\"name\": \"%s\", \"threads\": %d, \"ns\": [", benches[i].name, benches[i].threads);
    for (int round = 0; round < rounds; ++round)
      printf("%s%.3f", round ? ", " : "", benches[i].rounds[round]);
    printf("]}\n");
  }
}

#endif
