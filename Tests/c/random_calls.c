/* SPDX-License-Identifier: Apache-2.0
 * Any function after any other, on the same handles, with up to three bad values at once: what one
 * strange call leaves behind is where the next one begins.
 *
 *   test_random_calls [CALLS [SEED]] */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "arguments_watch.h"

enum { CALLS_IN_A_WORLD = 1000, FUNCTIONS = COUNT(functions) };

static uint64_t stream;

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

static void call_at_random(ffi_cif *cifs) {
  int index = draw(FUNCTIONS);
  /* Else most of the handles would soon be gone. */
  while (contains(functions[index].name, "_destroy") && draw(50)) index = draw(FUNCTIONS);
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
  static agr_error none;
  const int last = functions[index].count - 1;
  const int has_error = last >= 0 && is(functions[index].parameters[last].name, "error");
  const agr_error *error = &none;
  if (has_error && now.values[last]) error = (const agr_error *)(uintptr_t)now.values[last];
  const int32_t status = invoke(&now, &cifs[index]);
  EXPECT(is_known(status));
  if (status < 0 && error != &none) {
    EXPECT(error->status == status && error->message[0]);
    EXPECT(error->field[0] || status == AGR_ERR_NO_MEMORY);
  }
  clean(&now, status);
  EXPECT(world_is_good(&world));
}

int main(int count, char **arguments) {
  static ffi_cif cifs[FUNCTIONS];
  static ffi_type *types[FUNCTIONS][MOST_PARAMETERS];
  const long calls = count > 1 ? atol(arguments[1]) : 300000;
  uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 0) : agr_random();
  stream = seed;
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  watch();
  make_slots();
  const struct rlimit limit = {.rlim_cur = 64 << 20, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
  for (int i = 0; i < FUNCTIONS; ++i) prepare_cif(&cifs[i], &functions[i], types[i]);
  for (long n = 0; n < calls; ++n) {
    if (n % CALLS_IN_A_WORLD == 0) {
      alarm(60);
      world_destroy(&world);
      world_make(&world);
    }
    call_at_random(cifs);
  }
  world_destroy(&world);
  printf("%ld calls\n", call_count);
  return finish();
}
