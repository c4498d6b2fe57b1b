/* SPDX-License-Identifier: Apache-2.0
 * Calls of any function by its name, in a world of their own. */
#ifndef ARGUMENTS_INVOKE_H
#define ARGUMENTS_INVOKE_H

#include <dlfcn.h>
#include <ffi.h>

#include "arguments_values.h"

static _Thread_local long call_count;

static int is_known(int32_t status) { return status >= AGR_ERR_MISMATCH && status <= AGR_NOT_FOUND; }

static void *symbol(const char *name) { return dlsym(RTLD_DEFAULT, name); }

/* Destroys what a call made, and forgets what it destroyed. */
static void clean(struct call *call, int32_t status) {
  struct world *world = call->world;
  const struct function *function = call->function;
  for (int i = 0; i < function->count; ++i) {
    const char *name = function->parameters[i].name;
    const int makes = (contains(function->name, "_create") && begins(name, "out_")) ||
                      is(name, "out_region");
    if (status != AGR_OK || !call->values[i] || (!makes && !is(name, "out_call"))) continue;
    void *made = *(void **)(uintptr_t)call->values[i];
    if (is(name, "out_region")) {
      agr_region_close(made);
      agr_region_unlink(region_name(), NULL);
      continue;
    }
    char destroy[64] = "agr_call_destroy";
    if (makes) {
      const int length = (int)(strstr(function->name, "_create") - function->name);
      snprintf(destroy, sizeof destroy, "%.*s_destroy", length, function->name);
    }
    ((void (*)(void *))symbol(destroy))(made);
  }
  if (!contains(function->name, "_destroy") && !contains(function->name, "_close")) return;
  void *good = good_handle(world, function->name, function->parameters[0].name);
  if ((uintptr_t)good != call->values[0]) return; /* one of another kind stays */
  void **handles[] = {(void **)&world->limiter, (void **)&world->keyed, (void **)&world->breaker,
                      (void **)&world->budget,  (void **)&world->cache, (void **)&world->policy,
                      (void **)&world->call,    (void **)&world->store, (void **)&world->region,
                      (void **)&world->durable, (void **)&world->lock};
  for (int i = 0; i < COUNT(handles); ++i) {
    if (*handles[i] == good) *handles[i] = NULL;
  }
}

static ffi_type *ffi_type_of(enum kind kind) {
  return kind == KIND_I32                        ? &ffi_type_sint32
         : kind == KIND_U32                      ? &ffi_type_uint32
         : kind == KIND_I64                      ? &ffi_type_sint64
         : kind == KIND_U64 || kind == KIND_SIZE ? &ffi_type_uint64
                                                 : &ffi_type_pointer;
}

/* Makes the call; its status, or 0 for what has none. */
static int32_t invoke(struct call *call, ffi_cif *cif) {
  void *values[MOST_PARAMETERS];
  ffi_arg result = 0;
  for (int i = 0; i < call->function->count; ++i) values[i] = &call->values[i];
  ffi_call(cif, FFI_FN(symbol(call->function->name)), &result, values);
  ++call_count;
  if (call->function->result == RESULT_TEXT) CHECK(result && strlen((const char *)result) < 64);
  return call->function->result == RESULT_STATUS ? (int32_t)result : AGR_OK;
}

/* `types` must last as long as `cif`. */
static void prepare_cif(ffi_cif *cif, const struct function *function, ffi_type **types) {
  for (int i = 0; i < function->count; ++i) types[i] = ffi_type_of(function->parameters[i].kind);
  ffi_type *result = function->result == RESULT_NONE     ? &ffi_type_void
                     : function->result == RESULT_STATUS ? &ffi_type_sint32
                                                         : &ffi_type_pointer;
  const unsigned count = (unsigned)function->count;
  CHECK(ffi_prep_cif(cif, FFI_DEFAULT_ABI, count, result, types) == FFI_OK);
}

static _Thread_local struct call now;
static _Thread_local struct world world;

static inline void prepare(const struct function *function, int afresh) {
  if (afresh) {
    world_destroy(&world);
    world_make(&world);
  }
  build(&now, function, &world);
}

#endif
