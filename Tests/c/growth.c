/* SPDX-License-Identifier: Apache-2.0
 * The memory of a process does not grow with what it has done: after a warm-up, many operations and
 * many objects of each kind that come and go add less than 1 MiB.
 *
 *   test_growth [OPERATIONS [PAIRS]] */
#include "operations.h"

/* The resident memory of this process, in KiB. */
static long resident(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file && fscanf(file, "%*s %ld", &pages) == 1);
  if (file) fclose(file);
  return pages * 4;
}

static void operate_often(long times) {
  long good = 0;
  for (long n = 0; n < times; ++n) good += operate(&operations[n % OPERATION_COUNT]);
  CHECK_EQUAL(good, times, "operations");
}

/* One of each kind comes and goes, used once, by way of the row of all. */
static void make_often(long pairs) {
  const struct parts kept = parts;
  long good = 0;
  for (long n = 0; n < pairs; ++n) {
    make_parts();
    for (int i = 0; i < OPERATION_COUNT; ++i) good += operate(&operations[i]);
    destroy_parts();
  }
  CHECK_EQUAL(good, pairs * OPERATION_COUNT, "objects");
  parts = kept;
}

int main(int count, char **arguments) {
  const long times = count > 1 ? atol(arguments[1]) : 1000000;
  const long pairs = count > 2 ? atol(arguments[2]) : 2000;
  make_parts();
  operate_often(times / 10);
  make_often(pairs / 10);
  const long before = resident();
  operate_often(times);
  const long after_operations = resident();
  make_often(pairs);
  const long after = resident();
  destroy_parts();
  printf("%ld operations: %ld KiB more than the %ld before; %ld pairs of each kind: %ld KiB more\n",
         times, after_operations - before, before, pairs, after - after_operations);
  CHECK(after - before < 1024);
  return finish();
}
