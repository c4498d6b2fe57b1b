/* SPDX-License-Identifier: Apache-2.0
 * The least that each operation can be done with, in plain C, on one word or one probe, with no checks. */
#ifndef FLOORS_H
#define FLOORS_H

#include <stdatomic.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "bench.h"

#if defined(__x86_64__)
static inline uint64_t floor_counter(void) { return __rdtsc(); }
#else
static inline uint64_t floor_counter(void) {
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
}
#endif

/* A token bucket in one word (GCRA): the time at which it will be full. */
static inline int floor_take(_Atomic int64_t *word, int64_t cost, int64_t burst, int64_t now) {
  int64_t old = atomic_load_explicit(word, memory_order_relaxed);
  for (;;) {
    int64_t next = (old > now ? old : now) + cost;
    if (next > now + burst) return 0;
    if (atomic_compare_exchange_weak_explicit(word, &old, next, memory_order_relaxed,
                                              memory_order_relaxed))
      return 1;
  }
}

typedef struct floor_line {
  _Alignas(64) _Atomic int64_t word;
  _Atomic int64_t count;
} floor_line;

static floor_line floor_full, floor_empty = {INT64_MAX / 2, 0}, floor_breaker;

static void floor_bucket_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(floor_take(&floor_full.word, 1, INT64_C(1) << 60, 1000 + i));
}

static void floor_bucket_counter(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(floor_take(&floor_full.word, 1, INT64_C(1) << 60, (int64_t)floor_counter()));
}

static void floor_bucket_clock(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(floor_take(&floor_full.word, 1, INT64_C(1) << 60, bench_now()));
}

static void floor_counter_alone(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) BENCH_USE(floor_counter());
}

static void floor_clock_alone(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) BENCH_USE(bench_now());
}

static void floor_refused_at(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i)
    BENCH_USE(floor_take(&floor_empty.word, 1, 1, 1000 + i));
}

/* A breaker that is closed: its state is looked at, and the result counted. */
static void floor_breaker_pair(int64_t operations, int thread) {
  (void)thread;
  for (int64_t i = 0; i < operations; ++i) {
    BENCH_USE(atomic_load_explicit(&floor_breaker.word, memory_order_acquire));
    atomic_fetch_add_explicit(&floor_breaker.count, 1, memory_order_relaxed);
  }
}

/* The same for a call that can be ended once and no more: its place, a line of the thread's own, is taken by an
 * exchange and given back by another. */
static void floor_breaker_permit(int64_t operations, int thread) {
  static floor_line places[BENCH_THREADS_MOST];
  _Atomic int64_t *place = &places[thread].word;
  for (int64_t i = 0; i < operations; ++i) {
    BENCH_USE(atomic_load_explicit(&floor_breaker.word, memory_order_acquire));
    int64_t tag = atomic_load_explicit(place, memory_order_acquire);
    BENCH_USE(atomic_compare_exchange_strong(place, &tag, tag + 1));
    tag = atomic_load_explicit(place, memory_order_acquire);
    BENCH_USE(atomic_compare_exchange_strong(place, &tag, tag + 1));
    atomic_fetch_add_explicit(&floor_breaker.count, 1, memory_order_relaxed);
  }
}

/* One exchange on a random one of many buckets of a cache line's quarter. */
enum { FLOOR_SLOTS = 1 << 18 };
static _Atomic int64_t (*floor_slots)[2];

static void floor_miss(int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + (uint64_t)thread;
  for (int64_t i = 0; i < operations; ++i) {
    size_t slot = bench_random(&state) & (FLOOR_SLOTS - 1);
    BENCH_USE(floor_take(&floor_slots[slot][0], 1, INT64_C(1) << 60, 1000));
  }
  states[thread] = state;
}

static inline void add_floors(void) {
  floor_slots = aligned_alloc(64, sizeof(_Atomic int64_t[2]) * FLOOR_SLOTS);
  if (!floor_slots) abort();
  memset((void *)floor_slots, 0, sizeof(_Atomic int64_t[2]) * FLOOR_SLOTS);
  bench_add("floor.counter", floor_counter_alone, 1);
  bench_add("floor.clock", floor_clock_alone, 1);
  bench_add("floor.bucket.at", floor_bucket_at, 1);
  bench_add("floor.bucket.counter", floor_bucket_counter, 1);
  bench_add("floor.bucket.clock", floor_bucket_clock, 1);
  bench_add("floor.bucket.refused.at", floor_refused_at, 1);
  bench_add("floor.breaker", floor_breaker_pair, 1);
  bench_add("floor.breaker.permit", floor_breaker_permit, 1);
  bench_add_large("floor.miss", floor_miss, 1);
  bench_add("floor.bucket.at.2", floor_bucket_at, 2);
  bench_add("floor.breaker.2", floor_breaker_pair, 2);
  bench_add("floor.breaker.permit.2", floor_breaker_permit, 2);
}

#endif
