/* SPDX-License-Identifier: Apache-2.0
 * The machine is suspended while the counter is being measured. Then the system's clock is slewed by ten
 * percent, far more than the clock of the library allows for: that stands still rather than step back, and is
 * off by no more than a millisecond's share. The program has its own clock_gettime, which the library finds
 * before libc's. */
#define _GNU_SOURCE
#include <autoglm_reliability.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define SHARE (INT64_C(1000000) / 10 + INT64_C(1000000) / 50)

/* What the clock has shown at a moment, that moment, and its pace since. */
static int64_t shown, since;
static int percent = 100;

static int64_t nanoseconds(const struct timespec *t) {
  return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  int result = (int)syscall(SYS_clock_gettime, clock, out);
  if (clock != CLOCK_MONOTONIC) return result;
  int64_t time = shown + (nanoseconds(out) - since) / 100 * percent;
  out->tv_sec = time / 1000000000;
  out->tv_nsec = time % 1000000000;
  return result;
}

static int64_t monotonic(void) {
  struct timespec t;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
  return nanoseconds(&t);
}

static void change_pace(int to) {
  int64_t now = monotonic();
  struct timespec t;
  CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) == 0);
  shown = now;
  since = nanoseconds(&t);
  percent = to;
}

/* The system's clock stands still, unlike the counter, and the clock that tells of suspensions. */
static void suspend(int64_t duration) {
  change_pace(0);
  const int64_t start = since;
  struct timespec t;
  do CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) == 0);
  while (nanoseconds(&t) - start < duration);
  change_pace(100);
}

static void look(int64_t *last, int readings) {
  long back = 0, ahead = 0, behind = 0;
  for (int i = 0; i < readings; ++i) {
    int64_t before = monotonic(), now = agr_now_ns(), after = monotonic();
    back += now < *last;
    ahead += now - after > SHARE;
    behind += before - now > SHARE + AGR_CLOCK_LAG_NS;
    *last = now;
  }
  CHECK_EQUAL(back, 0, "back");
  CHECK_EQUAL(ahead, 0, "ahead");
  CHECK_EQUAL(behind, 0, "behind");
}

int main(void) {
  int64_t last = agr_now_ns(), patience = monotonic() + INT64_C(60000000000);
  if (agr_clock_select(AGR_CLOCK_COUNTER, NULL) != AGR_OK) {
    printf("skipped: the kernel does not trust the counter\n");
    look(&last, 100000);
    return finish();
  }
  last = agr_now_ns();
  suspend(50000000);
  while (agr_clock_source() != AGR_CLOCK_COUNTER && monotonic() < patience) look(&last, 1000);
  CHECK(agr_clock_source() == AGR_CLOCK_COUNTER);
  for (int pace = 90; pace <= 110; pace += 10) {
    change_pace(pace);
    look(&last, 500000);
  }
  return finish();
}
