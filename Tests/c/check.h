/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int checks;
static int failures;

/* Counts a check, and says where one fails. */
#define CHECK(condition)                                                         \
  do {                                                                           \
    ++checks;                                                                    \
    if (!(condition)) {                                                          \
      ++failures;                                                                \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);    \
    }                                                                            \
  } while (0)

/* The same, with a text that tells which case it was. */
#define CHECK_EQUAL(seen, wanted, place)                                             \
  do {                                                                               \
    long long seen_ = (long long)(seen), wanted_ = (long long)(wanted);              \
    ++checks;                                                                        \
    if (seen_ != wanted_) {                                                          \
      ++failures;                                                                    \
      fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, place, #seen, \
              seen_, wanted_);                                                       \
    }                                                                                \
  } while (0)

static int finish(void) {
  printf("%d checks, %d failed\n", checks, failures);
  return failures || !checks ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
