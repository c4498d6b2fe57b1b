/* SPDX-License-Identifier: Apache-2.0
 * The bad values of each kind, and how one gets into a call. */
#ifndef ARGUMENTS_VALUES_H
#define ARGUMENTS_VALUES_H

#include <math.h>

#include "arguments_call.h"

struct change {
  int parameter, object, element, index;
  enum kind kind;
  const struct field *field; /* NULL: the parameter itself */
};

#define TWO(exponent) (UINT64_C(1) << (exponent))
static const uint64_t signed_32[] = {
    (uint64_t)INT32_MIN, (uint64_t)-2, (uint64_t)-1, 0, 1, 2, 3, 99, INT32_MAX};
static const uint64_t unsigned_32[] = {0, 1, 2, 65, 0x100001, INT32_MAX, 0x80000000, UINT32_MAX};
static const uint64_t signed_64[] = {
    TWO(63), TWO(63) + 1, (uint64_t)-TWO(50), (uint64_t)-2, (uint64_t)-1,  0,        1,
    TWO(50), TWO(50) + 1, TWO(62) - 1,        TWO(62),      INT64_MAX - 1, INT64_MAX};
static const uint64_t unsigned_64[] = {
    0, 1, 2, TWO(32), TWO(53), TWO(62), TWO(63), UINT64_MAX - 1, UINT64_MAX};
/* Only lengths that are there, and lengths that must be refused before anything is read. */
static const uint64_t sizes[] = {0, 1, TWO(62), TWO(63) - 1, TWO(63), UINT64_MAX - 15, UINT64_MAX};
static const double doubles[] = {0.0,       -0.0,      1.0,    -1.0,    0.5,
                                 1.0000001, 4.9e-324,  1e-300, 1.7e308, -1.7e308,
                                 INFINITY,  -INFINITY, NAN,    -NAN};
enum { STRUCT_SIZES = 14, HANDLES = 4 };

static int value_count(enum kind kind) {
  switch (kind) {
    case KIND_I32: return COUNT(signed_32);
    case KIND_U32: return COUNT(unsigned_32);
    case KIND_I64: return COUNT(signed_64);
    case KIND_U64: return COUNT(unsigned_64);
    case KIND_SIZE: return COUNT(sizes);
    case KIND_DOUBLE: return COUNT(doubles);
    case KIND_STRUCT_SIZE: return STRUCT_SIZES;
    case KIND_HANDLE: return HANDLES;
    default: return 1; /* NULL */
  }
}

/* Sizes that are refused come first; the last of them with a tail that is not zero. */
static uint32_t struct_size(int index, size_t size) {
  const uint32_t all[STRUCT_SIZES] = {0,
                                      1,
                                      3,
                                      7,
                                      (uint32_t)size - 1,
                                      (uint32_t)size + 1,
                                      4097,
                                      4104,
                                      0x80000000,
                                      UINT32_MAX,
                                      (uint32_t)size + 8,
                                      8,
                                      (uint32_t)size + 8,
                                      4096};
  return all[index];
}
enum { LAST_REFUSED = 9, JUNK_TAIL = 10 };

static const char *change_path(const struct call *call, const struct change *change) {
  return change->field ? change->field->path : call->function->parameters[change->parameter].name;
}

static uint64_t bad_value(const struct call *call, const struct change *change) {
  const struct world *world = call->world;
  switch (change->kind) {
    case KIND_I32: return signed_32[change->index];
    case KIND_U32: return unsigned_32[change->index];
    case KIND_I64: return signed_64[change->index];
    case KIND_U64: return unsigned_64[change->index];
    case KIND_SIZE: return sizes[change->index];
    case KIND_HANDLE: {
      const int is_breaker = contains(change_path(call, change), "breaker");
      void *of_another_kind = is_breaker ? (void *)world->budget : (void *)world->breaker;
      const uint64_t all[HANDLES] = {0, (uintptr_t)of_another_kind, (uintptr_t)of_another_kind + 1,
                                     (uintptr_t)slot_ends[0] - 4096};
      return all[change->index];
    }
    case KIND_DOUBLE: {
      uint64_t bits;
      memcpy(&bits, &doubles[change->index], sizeof bits);
      return bits;
    }
    default: return 0;
  }
}

static int is_nested(const struct field *field) { return field && contains(field->path, "."); }

/* Gives a structure the size that it claims, with a tail that is zero or junk. */
static void resize(struct call *call, struct object *object, uint32_t claimed, int junk) {
  size_t bytes = claimed > 4096 ? object->bytes : claimed < 8 ? 8 : (claimed + 7) & ~7u;
  size_t kept = bytes < object->bytes ? bytes : object->bytes;
  char *memory = object->memory + object->bytes - bytes;
  memmove(memory, object->memory, kept);
  memset(memory + kept, 0, bytes - kept);
  /* Junk only beyond what the structure has: within it there are pointers. */
  const size_t own = object->structure->size > kept ? object->structure->size : kept;
  if (junk && bytes > own) memset(memory + own, FILLER, bytes - own);
  for (int i = 0; i < call->object_count; ++i) {
    /* Where the pointer to another object lies in this one. */
    static void *gone;
    const ptrdiff_t at = (char *)call->objects[i].from - object->memory;
    if (at < 0 || at >= (ptrdiff_t)object->bytes) continue;
    call->objects[i].from = at < (ptrdiff_t)kept ? (void **)(void *)(memory + at) : &gone;
  }
  object->memory = memory;
  object->bytes = bytes;
  *object->from = memory;
}

/* Sets a field, if the structure has it still. */
static void store(const struct object *object, const struct change *change, uint64_t value) {
  const enum kind kind = change->kind;
  const size_t width = kind == KIND_I32 || kind == KIND_U32 || kind == KIND_STRUCT_SIZE ? 4 : 8;
  const size_t at = change->field->offset + (size_t)change->element * width;
  if (at + width <= object->bytes) memcpy(object->memory + at, &value, width);
}

static void apply(struct call *call, const struct change *change) {
  uint64_t value = bad_value(call, change);
  struct object *object = change->object >= 0 ? &call->objects[change->object] : NULL;
  if (change->kind == KIND_STRUCT_SIZE && !is_nested(change->field)) {
    value = struct_size(change->index, object->structure->size);
    resize(call, object, (uint32_t)value, change->index <= JUNK_TAIL);
  } else if (change->kind == KIND_STRUCT_SIZE) {
    value = struct_size(change->index, sizeof(agr_backoff_config));
  }
  if (!change->field) {
    call->values[change->parameter] = value;
    return;
  }
  store(object, change, value);
}

static inline void apply_all(struct call *call, const struct change *const *tried, int count) {
  /* What moves a structure comes first, and the pointers to structures last. */
  for (int stage = 0; stage < 3; ++stage) {
    for (int i = 0; i < count; ++i) {
      const int is_size = tried[i]->kind == KIND_STRUCT_SIZE;
      if (stage == (is_size ? 0 : tried[i]->field ? 1 : 2)) apply(call, tried[i]);
    }
  }
}

static _Thread_local struct change changes[MOST_CHANGES];
static _Thread_local int change_count;

static void add_changes(struct change change) {
  for (change.index = 0; change.index < value_count(change.kind); ++change.index) {
    if (change_count == MOST_CHANGES) abort();
    changes[change_count++] = change;
  }
}

/* Every bad value for every parameter, and for every field of what comes in. */
static void list_changes(const struct call *call) {
  change_count = 0;
  for (int i = 0; i < call->function->count; ++i) {
    const struct parameter *parameter = &call->function->parameters[i];
    const int is_size = is(parameter->name, "struct_size");
    add_changes((struct change){.parameter = i,
                                .object = is_size ? 0 : -1,
                                .kind = is_size ? KIND_STRUCT_SIZE : parameter->kind});
  }
  for (int o = 0; o < call->object_count; ++o) {
    const struct object *object = &call->objects[o];
    if (contains(call->function->name, "_init")) continue;
    for (int f = 0; f < object->structure->field_count; ++f) {
      const struct field *field = &object->structure->fields[f];
      const int is_size = contains(field->path, "struct_size");
      if (!object->is_input && (!is_size || is_nested(field))) continue;
      for (int element = 0; element < field->count;
           element += field->count > 1 ? field->count - 1 : 1) {
        add_changes((struct change){.parameter = object->parameter,
                                    .object = o,
                                    .element = element,
                                    .kind = is_size ? KIND_STRUCT_SIZE : field->kind,
                                    .field = field});
      }
    }
  }
}

#endif
