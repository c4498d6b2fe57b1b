/* SPDX-License-Identifier: Apache-2.0
 * What is called for every request allocates nothing, counted over 100,000 times each. */
#include "heap.h"

#include "operations.h"

int main(void) {
  const long times = 100000;
  long made = 0;
  make_parts();
  /* The calls of a policy are made when first needed. */
  for (int i = 0; i < OPERATION_COUNT; ++i) CHECK(operate(&operations[i]));
  for (int i = 0; i < OPERATION_COUNT; ++i) {
    const struct operation *operation = &operations[i];
    long good = 0;
    heap_watch(0);
    const long live = heap_live;
    for (long n = 0; n < times; ++n) good += operate(operation);
    made += times;
    CHECK_EQUAL(good, times, operation->name);
    /* That those which say so do allocate shows that allocations are seen. */
    if (operation->allocates) {
      CHECK(heap_requests >= times);
    } else {
      CHECK_EQUAL(heap_requests, 0, operation->name);
      CHECK_EQUAL(heap_live - live, 0, operation->name);
    }
  }
  destroy_parts();
  printf("%d kinds of operation, %ld operations\n", OPERATION_COUNT, made);
  return finish();
}
