/* SPDX-License-Identifier: Apache-2.0
 * Every function that the headers declare, with every bad value for every parameter and for every
 * field of what it points to; then with two bad values at once. The calls are made from a table
 * that is generated from the headers.
 *
 *   test_arguments EXPORTS [singles]
 *
 * A call must return, must not touch memory that it was not given (everything ends where a page
 * begins that cannot be touched), must name what it refuses, and must leave every handle good. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <unistd.h>

#include "arguments_watch.h"

/* ---- what is right ---- */

static const char *last_part(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot + 1 : path;
}

/* A value that is bad only beside another one: the other is named. */
static const struct {
  const char *changed, *named;
} beside[] = {
    {"max_delay_ns", "base_delay_ns"}, /* the lower bound of a range, by its upper one */
    {"max_delay_ns", "min_delay_ns"},
    {"code_max", "code_min"},
    {"quota", "initial"},
    {"window_calls", "minimum_calls"},
    {"window", "consecutive_failures"}, /* nothing is left that could trip it */
    {"failure_rate", "consecutive_failures"},
    {"struct_size", "rules"}, /* too short to have them */
    {"struct_size", "capacity"},
    {"idempotency", "order"}, /* the parts are others than the order says */
    {"breaker", "order"},
    {"budget", "order"},
    {"retry", "order"},
    {"limiter_count", "order"},
    {"fallback", "order"},
    {"order_count", "order"},
    {"limiter_count", "limiters"},
    {"retry", "budget"}, /* which needs it */
    {"open_ns", "open_max_ns"},
    {"refill_tokens", "refill_interval_ns"},
    {"max_objects", "bytes"}, /* which they need */
};

static int names(const struct call *call, const struct change *change, const char *field) {
  const char *path = change_path(call, change);
  if (is(last_part(path), last_part(field))) return 1;
  if (is(last_part(path), "struct_size") &&
      (is(field, "struct_size") || is(field, call->function->parameters[change->parameter].name)))
    return 1;
  for (int i = 0; i < COUNT(beside); ++i) {
    if (is(last_part(path), beside[i].changed) && is(last_part(field), beside[i].named)) return 1;
  }
  return 0;
}

/* Pointers that may be NULL, by the headers. */
static int may_be_null(const char *function, const char *path) {
  const char *always[] = {"error",
                          "out_retry_after_ns",
                          "out_refused_index",
                          "out_lost",
                          "user_data",
                          "self",
                          "options",
                          "idempotency",
                          "breaker",
                          "budget",
                          "retry",
                          "request",
                          "outcome"};
  for (int i = 0; i < COUNT(always); ++i) {
    if (is(path, always[i]) && !(is(path, "breaker") && !contains(function, "policy")) &&
        !(is(path, "budget") && !contains(function, "policy")))
      return 1;
  }
  return (is(function, "agr_policy_execute") && is(path, "out_call")) ||
         (is(function, "agr_store_create") && (is(path, "config") || is(path, "take") || is(path, "joins"))) ||
         (is(function, "agr_lock_create_in_store") && is(path, "config")) ||
         (is(function, "agr_region_open") && (is(path, "name") || is(path, "config"))) ||
         (is(function, "agr_region_open_fd") && is(path, "config")) ||
         (is(function, "agr_retry_classify") && is(path, "config")) ||
         (is(function, "agr_retry_decide") && is(path, "config"));
}

/* Whether a change, alone, must be refused as an argument. */
static int must_be_refused(const struct call *call, const struct change *change) {
  const char *function = call->function->name, *path = change_path(call, change);
  const char *name = last_part(path);
  const uint64_t value = bad_value(call, change);
  if (is(function, "agr_event_json") && change->field && !is(name, "struct_size")) return 0;
  /* A longer table is of a later version. */
  if (change->kind == KIND_STRUCT_SIZE && change->index == JUNK_TAIL && change->object >= 0 &&
      is(call->objects[change->object].structure->name, "agr_store_api"))
    return 0;
  if (change->element && is(name, "limiters")) return 0; /* beyond limiter_count */
  switch (change->kind) {
    case KIND_STRUCT_SIZE:
      return change->index <= LAST_REFUSED || (change->index == JUNK_TAIL && change->object >= 0 &&
                                               call->objects[change->object].is_input);
    case KIND_DOUBLE: return !(fabs(doubles[change->index]) <= 1e300);
    case KIND_HANDLE: return value != 0 || !may_be_null(function, path);
    case KIND_BYTES:
    case KIND_STRUCT:
    case KIND_SCALAR:
    case KIND_CALLBACK: return !may_be_null(function, path);
    case KIND_I64: return contains(name, "_ns") && value == TWO(63);
    case KIND_U32: return is(name, "reserved") && value != 0;
    case KIND_I32: {
      const char *open[] = {"code", "code_min", "code_max", "priority", "order", "error_class"};
      for (int i = 0; i < COUNT(open); ++i) {
        if (is(name, open[i])) return 0;
      }
      if (is(name, "fd")) return (int32_t)value < 0; /* else it may be one */
      return (int32_t)value == INT32_MIN || (int32_t)value == INT32_MAX;
    }
    default: return 0;
  }
}

/* Neither of two changes takes back what is wrong with the other, as a length of 0 does for a
 * pointer, and a size or a pointer for all the fields of the same structure. */
static int are_independent(const struct change *const *tried, int count) {
  int pointers = 0, numbers = 0;
  for (int i = 0; i < count; ++i) {
    pointers |= tried[i]->kind == KIND_BYTES || tried[i]->kind == KIND_STRUCT;
    numbers |= tried[i]->kind == KIND_SIZE || tried[i]->kind == KIND_U32;
  }
  return count < 2 || (tried[0]->parameter != tried[1]->parameter && !(pointers && numbers));
}

/* An output is zero or as it was; those that their blocks except are not looked at. */
static int is_untouched(const struct call *call, int index) {
  const struct parameter *parameter = &call->function->parameters[index];
  const char *excepted[] = {"out_step", "out_count", "out_length", "out_refused_index"};
  if (!begins(parameter->name, "out_") || !call->values[index]) return 1;
  for (int i = 0; i < COUNT(excepted); ++i) {
    if (is(parameter->name, excepted[i])) return 1;
  }
  const char *memory = (const char *)(uintptr_t)call->values[index];
  size_t from = 0, to = 8;
  for (int o = 0; o < call->object_count; ++o) {
    if (call->objects[o].memory == memory) {
      from = call->objects[o].structure->sized ? 4 : 0;
      to = call->objects[o].bytes;
    }
  }
  for (size_t i = from; i < to; ++i) {
    if (memory[i] != 0 && memory[i] != FILLER) return 0;
  }
  return 1;
}

/* Tries one set of changes; says whether the call was let through. */
static int try(struct call *call, ffi_cif *cif, const struct change *const *tried, int count) {
  static agr_error none;
  apply_all(call, tried, count);
  describe(call, tried, count);
  const int last = call->function->count - 1;
  const int has_error = last >= 0 && is(call->function->parameters[last].name, "error");
  agr_error *error =
      has_error && call->values[last] ? (agr_error *)(uintptr_t)call->values[last] : &none;
  const int32_t status = invoke(call, cif);
  EXPECT(is_known(status));
  int named = count == 0, refused = 0;
  for (int i = 0; i < count; ++i) {
    named |= status < 0 && names(call, tried[i], error->field);
    refused |= must_be_refused(call, tried[i]);
  }
  if (count == 0) EXPECT(status >= 0);
  if (refused && are_independent(tried, count) && call->function->result == RESULT_STATUS) {
    EXPECT(status < 0);
  }
  if (refused && count == 1 && call->function->result == RESULT_STATUS) {
    EXPECT(status == AGR_ERR_ARGUMENT);
  }
  if (error != &none) EXPECT(is_error_right(error, status));
  if (status == AGR_ERR_ARGUMENT && error != &none) EXPECT(named);
  if (status < 0) {
    for (int i = 0; i < call->function->count; ++i) EXPECT(is_untouched(call, i));
  }
  clean(call, status);
  EXPECT(world_is_good(call->world));
  return status >= 0;
}

static int is_pure(const char *function) {
  return contains(function, "_create") || contains(function, "_init") ||
         contains(function, "_preset") || begins(function, "agr_backoff") ||
         begins(function, "agr_retry_c") || begins(function, "agr_retry_d") ||
         contains(function, "_read") || contains(function, "_name");
}

/* One function: as it should be called, with each change, and with every `stride`th pair of them.
 */
static void try_function(const struct function *function, long most_pairs) {
  ffi_cif cif;
  ffi_type *types[MOST_PARAMETERS];
  prepare_cif(&cif, function, types);
  alarm(60);
  prepare(function, 1);
  list_changes(&now);
  try(&now, &cif, NULL, 0);
  for (int i = 0; i < change_count; ++i) {
    prepare(function, 1);
    try(&now, &cif, (const struct change *[]){&changes[i]}, 1);
  }
  const long pairs = (long)change_count * (change_count - 1) / 2;
  const long stride = pairs > most_pairs && most_pairs > 0 ? pairs / most_pairs | 1 : 1;
  long number = 0;
  int afresh = 1;
  for (int i = 0; i < change_count && most_pairs > 0; ++i) {
    for (int j = i + 1; j < change_count; ++j) {
      if (changes[i].field == changes[j].field && changes[i].parameter == changes[j].parameter)
        continue;
      if (number++ % stride) continue;
      prepare(function, afresh);
      afresh = try(&now, &cif, (const struct change *[]){&changes[i], &changes[j]}, 2) &&
               !is_pure(function->name);
    }
  }
  alarm(0);
}

/* ---- what a callback can get wrong ---- */

static void bad_attempt(const agr_step *step, agr_outcome *outcome, void *user_data) {
  (void)step;
  const struct change *change = user_data;
  const struct object object = {.memory = (char *)outcome, .bytes = sizeof *outcome};
  const int is_size = change->kind == KIND_STRUCT_SIZE;
  outcome->result = KEY;
  outcome->result_length = KEY_LENGTH;
  store(&object, change,
        is_size ? struct_size(change->index, sizeof *outcome) : bad_value(&now, change));
}

/* Every bad value in the outcome which the function given to agr_policy_execute fills in. */
static void try_outcomes(void) {
  const struct parameter outcome = {"outcome", KIND_STRUCT, structure_index("agr_outcome")};
  const struct function function = {"agr_policy_execute(attempt)", RESULT_STATUS, 1, &outcome};
  alarm(60);
  prepare(&function, 1);
  list_changes(&now);
  for (int i = 1; i < change_count; ++i) {
    world_destroy(&world);
    world_make(&world);
    const struct change *change = &changes[i];
    describe(&now, &change, 1);
    agr_error filled, *error = &filled;
    agr_step step = {.struct_size = sizeof step};
    const int32_t status =
        agr_policy_execute(world.policy, NULL, bad_attempt, &changes[i], NULL, &step, error);
    ++call_count;
    const int too_long = change->kind == KIND_STRUCT_SIZE && change->index == STRUCT_SIZES - 1;
    EXPECT(status == AGR_OK || (status == AGR_ERR_ARGUMENT && names(&now, change, error->field)));
    EXPECT(status < 0 || (!must_be_refused(&now, change) && !too_long));
    EXPECT(world_is_good(&world));
    agr_policy_snapshot snapshot = {.struct_size = sizeof snapshot};
    EXPECT(agr_policy_snapshot_read(world.policy, &snapshot, NULL) == AGR_OK &&
           snapshot.calls_alive == 1);
  }
  alarm(0);
}

/* The table, the reviewed list and the library have the same functions. */
static void check_table(const char *exports) {
  char line[128];
  int listed = 0;
  FILE *file = fopen(exports, "r");
  CHECK(file != NULL);
  while (file && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    int found = 0;
    for (int i = 0; i < COUNT(functions); ++i) found += is(functions[i].name, line);
    CHECK_EQUAL(found, 1, line);
    CHECK(symbol(line) != NULL);
    ++listed;
  }
  CHECK_EQUAL(COUNT(functions), listed, exports);
  if (file) fclose(file);
}

int main(int count, char **arguments) {
  const int singles = count > 2 && is(arguments[2], "singles");
  watch();
  make_slots();
  check_table(count > 1 ? arguments[1] : "abi/exports.txt");
  if (!singles) {
    /* What a large bound asks for is not there, which is one more answer to see. */
    const struct rlimit limit = {.rlim_cur = 64 << 20, .rlim_max = RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &limit);
  }
  for (int i = 0; i < COUNT(functions); ++i) try_function(&functions[i], singles ? 0 : 200000);
  try_outcomes();
  world_destroy(&world);
  printf("%d functions, %ld calls\n", COUNT(functions), call_count);
  return finish();
}
