/* SPDX-License-Identifier: Apache-2.0
 * Conformance: threads that ask for the same things, through both drivers. */
#ifndef CONFORMANCE_THREADS_H
#define CONFORMANCE_THREADS_H

#include <pthread.h>

#include "conformance_tools.h"

enum { THREADS = 8, KEYS = 40 };

struct worker {
  pthread_t id;
  const agr_store_driver *driver;
  uint64_t owner;
  long ran, replayed, failed, held;
};
static char thread_names[KEYS][24];
static uint64_t thread_nonce;
static long inside[KEYS]; /* who executes a key, or holds the lock; never more than one */
static long most_inside;

static void enter(int key) {
  const long now = __atomic_add_fetch(&inside[key], 1, __ATOMIC_SEQ_CST);
  if (now > 1) __atomic_store_n(&most_inside, now, __ATOMIC_SEQ_CST);
}
static void leave(int key) { __atomic_sub_fetch(&inside[key], 1, __ATOMIC_SEQ_CST); }

static void *discard(void *context, size_t length) { return length <= 16 ? context : NULL; }

/* Executes a key, or waits until somebody has. */
static void execute(struct worker *self, int index) {
  char bytes[16];
  agr_error problem;
  const agr_store_sink out = {discard, bytes};
  const agr_store_driver *driver = self->driver;
  const agr_store_run run = {
      .key = key_in(space(), thread_names[index], strlen(thread_names[index])),
      .owner = {thread_nonce + (uint64_t)index, self->owner},
      .lease_ns = hour,
      .ttl_ns = hour,
      .result_bytes = 16};
  for (struct patience wait = be_patient(); has_patience(&wait);) {
    agr_store_run_state state = {0};
    memset(&problem, 0, sizeof problem);
    const agr_status status =
        driver->api->begin(driver->self, &run, timeout, &out, &state, &problem);
    if (status == AGR_IN_PROGRESS) continue;
    if (status == AGR_REPLAY) {
      ++self->replayed;
    } else if (status == AGR_OK) {
      enter(index);
      ++self->ran;
      leave(index);
      if (driver->api->complete(driver->self, &run.key, state.fence, AGR_KEY_SUCCESS, "x", 1, hour,
                                timeout, &problem) != AGR_OK)
        ++self->failed;
    } else {
      fprintf(stderr, "%s\n", problem.message);
      ++self->failed;
    }
    return;
  }
  ++self->failed;
}

static void hold(struct worker *self) {
  agr_error problem;
  const agr_store_driver *driver = self->driver;
  const agr_store_lease lease = {.key = key_in(space(), "lock", 4),
                                 .owner = {thread_nonce, self->owner},
                                 .limit = 1,
                                 .ttl_ns = hour};
  for (struct patience wait = be_patient(); has_patience(&wait);) {
    uint64_t fence = 0;
    int64_t retry = 0;
    memset(&problem, 0, sizeof problem);
    const agr_status status =
        driver->api->acquire(driver->self, &lease, timeout, &fence, &retry, &problem);
    if (status == AGR_LIMITED) continue;
    if (status != AGR_OK) break;
    enter(0);
    leave(0);
    if (driver->api->release(driver->self, &lease, timeout, &problem) != AGR_OK) break;
    ++self->held;
    return;
  }
  ++self->failed;
}

static void *run_worker(void *argument) {
  struct worker *self = argument;
  for (int i = 0; i < KEYS; ++i) execute(self, i);
  for (int i = 0; i < 5 && self->driver->api->acquire; ++i) hold(self);
  return NULL;
}

static void check_threads(void) {
  struct worker workers[THREADS];
  memset(workers, 0, sizeof workers);
  thread_nonce = draw() & ~UINT64_C(0xffff);
  for (int i = 0; i < KEYS; ++i) {
    snprintf(thread_names[i], sizeof *thread_names, "t%016llx", (unsigned long long)draw());
  }
  (void)space();
  for (int i = 0; i < THREADS; ++i) {
    workers[i].driver = i % 2 ? &second : &first;
    workers[i].owner = (uint64_t)i + 1;
    CHECK(pthread_create(&workers[i].id, NULL, run_worker, &workers[i]) == 0);
  }
  long ran = 0, replayed = 0, held = 0;
  for (int i = 0; i < THREADS; ++i) {
    CHECK(pthread_join(workers[i].id, NULL) == 0);
    CHECK_EQUAL(workers[i].failed, 0, "a worker");
    ran += workers[i].ran;
    replayed += workers[i].replayed;
    held += workers[i].held;
  }
  CHECK_EQUAL(ran, KEYS, "each key runs once");
  CHECK_EQUAL(replayed, (THREADS - 1) * KEYS, "and is replayed");
  CHECK_EQUAL(held, first.api->acquire ? THREADS * 5 : 0, "the lock goes round");
  CHECK_EQUAL(most_inside, 0, "never two at once");
}

#endif
