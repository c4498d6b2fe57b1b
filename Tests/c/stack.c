/* SPDX-License-Identifier: Apache-2.0
 * How much stack the library needs: a host may call it on a small one, where too deep a call would
 * end the process. Each operation runs on a stack that was painted before. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>

#include "operations.h"

enum { STACK = 256 * 1024, PAINT = 0xa5, LIMIT = 8 * 1024 };

static unsigned char *stack;
static int (*running)(void);
static int answer;
static char *entry;

static void *run(void *unused) {
  (void)unused;
  char here;
  entry = &here;
  answer = running();
  return NULL;
}

/* The bytes between the entry of a thread's function and the deepest that was written. */
static long depth_of(const char *name, int (*function)(void)) {
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  running = function;
  memset(stack, PAINT, STACK);
  CHECK(pthread_attr_setstack(&attributes, stack, STACK) == 0);
  CHECK(pthread_create(&thread, &attributes, run, NULL) == 0 && pthread_join(thread, NULL) == 0);
  pthread_attr_destroy(&attributes);
  CHECK_EQUAL(answer, 1, name);
  long untouched = 0;
  while (untouched < STACK && stack[untouched] == PAINT) ++untouched;
  return entry - (char *)stack - untouched;
}

/* What the thread itself needs. */
static int nothing(void) { return 1; }

static int make_and_destroy(void) {
  const struct parts kept = parts;
  const int good = try_parts() == PART_COUNT && fill_cache();
  destroy_parts();
  parts = kept;
  return good;
}

int main(void) {
  stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) return EXIT_FAILURE;
  make_parts();
  const long own = depth_of("thread", nothing);
  long deepest = depth_of("creation", make_and_destroy);
  for (int i = 0; i < OPERATION_COUNT; ++i) {
    parts.now += 1000;
    const long depth = depth_of(operations[i].name, operations[i].run);
    if (depth > deepest) deepest = depth;
  }
  destroy_parts();
  printf("%ld bytes of stack, %ld of them the thread's own\n", deepest, own);
  CHECK(deepest < LIMIT);
  return finish();
}
