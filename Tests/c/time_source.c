/* SPDX-License-Identifier: Apache-2.0
 * The clock: never back in any thread, never ahead of CLOCK_MONOTONIC, behind it by no more than the header
 * says, whichever source is chosen, and in the child of a fork. */
#define _POSIX_C_SOURCE 200809L
#include <autoglm_reliability.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h> /* C11, of the test only */
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { THREADS = 4, READINGS = 300000 };

static _Atomic int64_t latest;
static atomic_long back, ahead, behind;

static int64_t monotonic(void) {
  struct timespec t;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A thread that is held up between two readings makes them no worse. */
static void *look(void *unused) {
  (void)unused;
  for (int i = 0; i < READINGS; ++i) {
    int64_t known = latest, before = monotonic(), now = agr_now_ns(), after = monotonic();
    back += now < known;
    ahead += now > after;
    behind += before - now > AGR_CLOCK_LAG_NS;
    while (now > known && !atomic_compare_exchange_weak(&latest, &known, now)) {
    }
  }
  return NULL;
}

static void look_from_all_sides(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, look, NULL) == 0);
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  CHECK_EQUAL(back, 0, "back");
  CHECK_EQUAL(ahead, 0, "ahead");
  CHECK_EQUAL(behind, 0, "behind");
}

static void in_a_child(void) {
  int status = 0;
  pid_t pid = fork();
  if (pid == 0) {
    (void)look(NULL);
    _exit(back || ahead || behind ? 1 : 0);
  }
  CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
  agr_error error;
  for (int32_t source = -1; source <= 3; source += 4) {
    CHECK(agr_clock_select(source, &error) == AGR_ERR_ARGUMENT);
    CHECK(strcmp(error.field, "source") == 0);
  }
  CHECK(agr_clock_source() == AGR_CLOCK_SYSTEM);
  /* While the counter is being measured, and when it takes over. */
  look_from_all_sides();
  if (agr_clock_select(AGR_CLOCK_COUNTER, &error) == AGR_OK) {
    int64_t patience = monotonic() + INT64_C(60000000000);
    while (agr_clock_source() != AGR_CLOCK_COUNTER && monotonic() < patience) look(NULL);
    CHECK(agr_clock_source() == AGR_CLOCK_COUNTER);
    look_from_all_sides();
    in_a_child();
  } else {
    printf("skipped the counter: %s\n", error.message);
    CHECK(error.status == AGR_ERR_SYSTEM && error.system_errno == ENOTSUP);
  }

  CHECK(agr_clock_select(AGR_CLOCK_SYSTEM, NULL) == AGR_OK);
  CHECK(agr_clock_source() == AGR_CLOCK_SYSTEM);
  look_from_all_sides();
  int32_t before = agr_clock_select(AGR_CLOCK_COUNTER, NULL) == AGR_OK ? AGR_CLOCK_COUNTER
                                                                       : AGR_CLOCK_SYSTEM;
  CHECK(agr_clock_select(AGR_CLOCK_AUTO, NULL) == AGR_OK);
  latest = agr_now_ns();
  CHECK(agr_clock_source() == before);
  look_from_all_sides();
  return finish();
}
