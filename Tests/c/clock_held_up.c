/* SPDX-License-Identifier: Apache-2.0
 * Two threads change over to the counter, and the first is held up when it has read both clocks: meanwhile the system's
 * clock is chosen, tells a time, and is left again. What the first goes on with must not be behind that time. The
 * program has its own clock_gettime, which the library finds before libc's: there one thread plays both. */
#define _GNU_SOURCE
#include <autoglm_reliability.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

/* Whose reading of the system's clock comes next. */
static enum { NOBODY, FIRST, SECOND, HELD_UP } turn;
static int readings;
static ucontext_t first, second;
static char stack[1 << 18];
static int64_t told;

static int64_t monotonic(void) {
  struct timespec t;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void meanwhile(void) {
  turn = NOBODY;
  CHECK(agr_clock_select(AGR_CLOCK_SYSTEM, NULL) == AGR_OK);
  told = agr_now_ns();
  CHECK(agr_clock_select(AGR_CLOCK_COUNTER, NULL) == AGR_OK);
  turn = SECOND;
  swapcontext(&first, &second);
  turn = HELD_UP;
}

/* Its readings are slow, so that it takes one after the other, of which the library counts the closest: the last. */
static void hold_up(void) {
  enum { TRIES = 16 };
  const int64_t end = monotonic() + 100000;
  if (++readings == TRIES) {
    meanwhile();
    return;
  }
  while (monotonic() < end) continue;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  const int result = (int)syscall(SYS_clock_gettime, clock, out);
  if (clock != CLOCK_MONOTONIC) return result;
  if (turn == FIRST) {
    hold_up();
  } else if (turn == SECOND) {
    turn = NOBODY;
    swapcontext(&second, &first);
  }
  return result;
}

static void change_over(void) { CHECK(agr_now_ns() > 0); }

int main(void) {
  const int64_t patience = monotonic() + INT64_C(60000000000);
  if (agr_clock_select(AGR_CLOCK_COUNTER, NULL) != AGR_OK) {
    printf("skipped: the kernel does not trust the counter\n");
    change_over();
    return finish();
  }
  while (agr_clock_source() != AGR_CLOCK_COUNTER && monotonic() < patience) agr_now_ns();
  CHECK(agr_clock_source() == AGR_CLOCK_COUNTER);
  CHECK(getcontext(&second) == 0);
  second.uc_stack.ss_sp = stack;
  second.uc_stack.ss_size = sizeof stack;
  second.uc_link = &first;
  makecontext(&second, change_over, 0);
  CHECK(agr_clock_select(AGR_CLOCK_SYSTEM, NULL) == AGR_OK);
  CHECK(agr_clock_select(AGR_CLOCK_COUNTER, NULL) == AGR_OK);
  turn = FIRST;
  change_over();
  CHECK(turn == HELD_UP);
  CHECK(agr_now_ns() >= told);
  swapcontext(&first, &second);
  CHECK(agr_now_ns() >= told);
  return finish();
}
