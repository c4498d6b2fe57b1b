/* SPDX-License-Identifier: Apache-2.0
 * Any function after any other, on the same handles, with up to three bad values at once: what one
 * strange call leaves behind is where the next one begins. Memory runs out now and then. Every
 * other world is shared by threads.
 *
 *   test_random_calls [CALLS [SEED]] */
#include "heap.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>

#include "arguments_watch.h"

enum { THREADS = 4, CALLS_OF_A_THREAD = 500, FUNCTIONS = COUNT(functions) };

static ffi_cif cifs[FUNCTIONS];
static _Thread_local uint64_t stream;
static _Thread_local int is_shared;

static int draw(int limit) {
  uint64_t random;
  CHECK(agr_random_next(&stream, &random, NULL) == AGR_OK);
  return (int)(random % (uint64_t)limit);
}

/* A call may wait for no time: no key that somebody holds, no time-out, no wait for a permit. */
static int may_change(const struct call *call, const struct change *change) {
  if (is(call->function->name, "agr_policy_execute")) return change->parameter != 1;
  return !is(change_path(call, change), "timeout_ns");
}

/* Else most of the handles would soon be gone; those that others use stay. */
static int is_left_out(const char *function) {
  return (contains(function, "_destroy") || contains(function, "_close")) &&
         (is_shared ? !begins(function, "agr_call") : draw(50) != 0);
}

static void call_at_random(void) {
  int index = draw(FUNCTIONS);
  while (is_left_out(functions[index].name)) index = draw(FUNCTIONS);
  const struct change *tried[3];
  int count = draw(4), kept = 0;
  build(&now, &functions[index], &world);
  if (is(functions[index].name, "agr_policy_execute")) now.values[1] = 0;
  list_changes(&now);
  while (count-- > 0 && change_count > 0) {
    const struct change *change = &changes[draw(change_count)];
    if (may_change(&now, change)) tried[kept++] = change;
  }
  describe(&now, tried, kept);
  apply_all(&now, tried, kept);
  static const agr_error none;
  const int last = functions[index].count - 1;
  const int has_error = last >= 0 && is(functions[index].parameters[last].name, "error");
  const agr_error *error = &none;
  if (has_error && now.values[last]) error = (const agr_error *)(uintptr_t)now.values[last];
  if (draw(8) == 0) heap_watch(1 + draw(3));
  const int32_t status = invoke(&now, &cifs[index]);
  heap_relent();
  EXPECT(is_known(status));
  if (error != &none) EXPECT(is_error_right(error, status));
  clean(&now, status);
  EXPECT(world_is_good(&world));
}

struct thread {
  pthread_t id;
  const struct world *shared;
  uint64_t seed;
  long calls;
};

/* A thread has its own call; all else is everybody's. */
static void *run_thread(void *argument) {
  struct thread *self = argument;
  agr_step step = {.struct_size = sizeof step};
  make_slots();
  stream = self->seed;
  is_shared = 1;
  world = *self->shared;
  CHECK(agr_call_begin_at(world.policy, NULL, world.now, &world.call, &step, NULL) == AGR_OK);
  for (int i = 0; i < CALLS_OF_A_THREAD; ++i) call_at_random();
  agr_call_destroy(world.call);
  free_slots();
  self->calls = call_count;
  return NULL;
}

static void share_world(uint64_t seed) {
  struct thread threads[THREADS];
  for (int i = 0; i < THREADS; ++i) {
    threads[i] = (struct thread){.shared = &world, .seed = seed + (uint64_t)i};
    CHECK(pthread_create(&threads[i].id, NULL, run_thread, &threads[i]) == 0);
  }
  for (int i = 0; i < THREADS; ++i) {
    CHECK(pthread_join(threads[i].id, NULL) == 0);
    call_count += threads[i].calls;
  }
}

int main(int count, char **arguments) {
  static ffi_type *types[FUNCTIONS][MOST_PARAMETERS];
  const long calls = count > 1 ? atol(arguments[1]) : 300000;
  const uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 0) : agr_random();
  stream = seed;
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  watch();
  make_slots();
  mallopt(M_ARENA_MAX, 1);
  const struct rlimit limit = {.rlim_cur = 128 << 20, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
  for (int i = 0; i < FUNCTIONS; ++i) prepare_cif(&cifs[i], &functions[i], types[i]);
  for (long round = 0; call_count < calls; ++round) {
    const long live = heap_live;
    alarm(60);
    world_make(&world);
    if (round % 2) {
      share_world(seed + (uint64_t)round * THREADS);
    } else {
      for (int i = 0; i < THREADS * CALLS_OF_A_THREAD; ++i) call_at_random();
    }
    CHECK(world_is_good(&world));
    world_destroy(&world);
    /* The first world leaves what the library keeps for good; a thread leaves what libc keeps. */
    if (round % 2 == 0 && round) CHECK_EQUAL(heap_live - live, 0, present);
  }
  printf("%ld calls\n", call_count);
  return finish();
}
