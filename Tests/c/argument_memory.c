/* SPDX-License-Identifier: Apache-2.0
 * What each function asks of the allocator, good and bad arguments alike. Those that are not listed
 * here ask for nothing; for those that are, every request fails once: they answer, lose nothing,
 * and leave every handle good. */
#include "heap.h"

#include <signal.h>
#include <sys/resource.h>

#include "arguments_invoke.h"

/* By the headers; whatever is called _create besides. */
static const char *const allocate[] = {
    "agr_idempotency_begin", "agr_idempotency_join", "agr_idempotency_complete",
    "agr_idempotency_fail",  "agr_call_begin",       "agr_call_advance",
    "agr_policy_execute",    "agr_region_open",      "agr_region_open_fd",
};

static int may_allocate(const char *name) {
  if (contains(name, "_create")) return 1;
  for (int i = 0; i < COUNT(allocate); ++i) {
    const size_t length = strlen(allocate[i]);
    if (begins(name, allocate[i]) && (!name[length] || is(name + length, "_at"))) return 1;
  }
  return 0;
}

static long requests_failed, allocating;

/* One call in a new world, whose `n`th request fails; how many there were, or -1 when none failed.
 */
static long call_once(const struct function *function, ffi_cif *cif, const struct change *change,
                      long n) {
  const long live = heap_live;
  world_make(&world);
  build(&now, function, &world);
  if (change) apply(&now, change);
  heap_watch(n);
  const int32_t status = invoke(&now, cif);
  const long requests = heap_requests;
  const int failed = heap_relent();
  CHECK(is_known(status));
  clean(&now, status);
  CHECK(world_is_good(&world));
  world_destroy(&world);
  CHECK_EQUAL(heap_live - live, 0, function->name);
  return n && !failed ? -1 : requests;
}

static void try_function(const struct function *function) {
  ffi_cif cif;
  ffi_type *types[MOST_PARAMETERS];
  prepare_cif(&cif, function, types);
  prepare(function, 1);
  list_changes(&now);
  world_destroy(&world);
  long most = 0;
  for (int i = -1; i < change_count; ++i) {
    const struct change *change = i < 0 ? NULL : &changes[i];
    const long requests = call_once(function, &cif, change, 0);
    if (requests > most) most = requests;
    if (!may_allocate(function->name)) CHECK_EQUAL(requests, 0, function->name);
    for (long n = 1; n <= requests; ++n) {
      CHECK(call_once(function, &cif, change, n) >= n);
      ++requests_failed;
    }
  }
  allocating += most > 0;
}

int main(void) {
  /* A region of a large size is one that cannot be made. */
  const struct rlimit most = {.rlim_cur = 32 << 20, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &most);
  signal(SIGXFSZ, SIG_IGN);
  make_slots();
  /* What is made once in a process. */
  world_make(&world);
  world_destroy(&world);
  int counted = 0;
  for (int i = 0; i < COUNT(functions); ++i) {
    try_function(&functions[i]);
    counted += !may_allocate(functions[i].name);
  }
  /* All that are listed but four: in this world no failure is kept, and no call succeeds with a
   * key. */
  CHECK_EQUAL(allocating, COUNT(functions) - counted - 4, "functions that asked");
  printf("%d functions, %d of which ask for no memory; %ld calls, %ld requests failed\n",
         COUNT(functions), counted, call_count, requests_failed);
  return finish();
}
