/* SPDX-License-Identifier: Apache-2.0
 * The good call of any function, built from the table that is generated from the headers. */
#ifndef ARGUMENTS_CALL_H
#define ARGUMENTS_CALL_H

#include <sys/mman.h>

#include "arguments_world.h"

enum kind {
  KIND_I32,
  KIND_U32,
  KIND_I64,
  KIND_U64,
  KIND_SIZE,
  KIND_DOUBLE,
  KIND_HANDLE,
  KIND_BYTES,
  KIND_STRUCT,
  KIND_SCALAR,
  KIND_CALLBACK,
  KIND_STRUCT_SIZE /* not in the table: a number of that name */
};
enum result { RESULT_NONE, RESULT_STATUS, RESULT_NUMBER, RESULT_TEXT };

struct field {
  const char *path;
  enum kind kind;
  int target, count;
  size_t offset;
};
struct structure {
  const char *name;
  size_t size;
  int sized, field_count;
  const struct field *fields;
};
struct parameter {
  const char *name;
  enum kind kind;
  int target;
};
struct function {
  const char *name;
  enum result result;
  int count;
  const struct parameter *parameters;
};

#include "arguments_table.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
enum { MOST_PARAMETERS = 12, MOST_OBJECTS = 16, MOST_CHANGES = 4000, FILLER = 0x5a };

/* ---- memory that ends at a page which cannot be touched ---- */

static _Thread_local char *slot_ends[MOST_OBJECTS];

static void make_slots(void) {
  const size_t page = 4096;
  for (int i = 0; i < MOST_OBJECTS; ++i) {
    char *base = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + 2 * page, page, PROT_NONE)) abort();
    slot_ends[i] = base + 2 * page;
  }
}

static inline void free_slots(void) {
  for (int i = 0; i < MOST_OBJECTS; ++i) munmap(slot_ends[i] - 2 * 4096, 3 * 4096);
}

/* ---- a call ---- */

struct object {
  const struct structure *structure;
  char *memory;
  size_t bytes;
  int parameter, is_input;
  void **from; /* the one pointer to it */
};

struct call {
  const struct function *function;
  struct world *world;
  uint64_t values[MOST_PARAMETERS];
  struct object objects[MOST_OBJECTS];
  int object_count, slot_count;
};

static int is(const char *text, const char *other) { return !strcmp(text, other); }
static int begins(const char *text, const char *start) {
  return !strncmp(text, start, strlen(start));
}
static int contains(const char *text, const char *part) { return strstr(text, part) != NULL; }

/* At the end of a slot of its own, filled with what nobody writes. */
static char *place(struct call *call, size_t bytes) {
  char *memory = slot_ends[call->slot_count++] - bytes;
  memset(memory, FILLER, bytes);
  return memory;
}

static char *place_bytes(struct call *call, const char *text, size_t length, size_t room) {
  char *memory = place(call, room);
  memcpy(memory, text, length);
  return memory;
}

static struct object *add_object(struct call *call, int target, int elements, void **from) {
  struct object *object = &call->objects[call->object_count++];
  object->structure = &structures[target];
  object->bytes = structures[target].size * (size_t)elements;
  object->memory = place(call, object->bytes);
  object->is_input = 0;
  object->from = from;
  *from = object->memory;
  return object;
}

static int structure_index(const char *name) {
  for (int i = 0; i < COUNT(structures); ++i) {
    if (is(structures[i].name, name)) return i;
  }
  abort();
}

/* One line more than it says, for a count that is one too large. */
static void add_rules(struct call *call, agr_retry_config *retry, int parameter) {
  struct object *object =
      add_object(call, structure_index("agr_retry_rule"), 2, (void **)&retry->rules);
  object->parameter = parameter;
  object->is_input = 1;
  const agr_retry_rule rule = {AGR_DOMAIN_HTTP, 500, 599, AGR_CLASS_TRANSIENT, 3, 0, 1000};
  for (int i = 0; i < 2; ++i) memcpy(object->memory + i * (int)sizeof rule, &rule, sizeof rule);
  retry->rule_count = 1;
}

static void prepare_policy(struct call *call, agr_policy_config *config, int parameter) {
  policy_config(config, call->world, NULL);
  struct object *object =
      add_object(call, structure_index("agr_retry_config"), 1, (void **)&config->retry);
  object->parameter = parameter;
  object->is_input = 1;
  retry_config((agr_retry_config *)object->memory);
  add_rules(call, (agr_retry_config *)object->memory, parameter);
  config->fallback_data = place_bytes(call, KEY, KEY_LENGTH, 64);
  config->order_count = 6;
  for (int i = 0; i < 6; ++i) config->order[i] = AGR_COMPONENT_DEADLINE + i;
}

static void prepare_request(struct call *call, agr_request *request) {
  agr_request_init(request, sizeof *request);
  request->key = place_bytes(call, KEY, KEY_LENGTH, 64);
  request->fingerprint = place_bytes(call, KEY, KEY_LENGTH, 64);
  request->cache_key = place_bytes(call, KEY, KEY_LENGTH, 64);
  request->trace_id = place_bytes(call, KEY, KEY_LENGTH, 64);
  request->key_length = request->fingerprint_length = KEY_LENGTH;
  request->cache_key_length = request->trace_id_length = KEY_LENGTH;
}

static void prepare_driver(struct call *call, agr_store_driver *driver, int parameter) {
  struct object *object =
      add_object(call, structure_index("agr_store_api"), 1, (void **)(void *)&driver->api);
  object->parameter = parameter;
  object->is_input = 1;
  agr_store_api *api = (agr_store_api *)object->memory;
  *api = stub_api;
  api->name = place_bytes(call, "test", 5, 5);
  driver->self = NULL;
}

static void prepare_outcome(struct call *call, agr_outcome *outcome) {
  agr_outcome_init(outcome, sizeof *outcome);
  outcome->error_class = AGR_CLASS_TRANSIENT;
  outcome->result = place_bytes(call, KEY, KEY_LENGTH, 64);
  outcome->result_length = KEY_LENGTH;
}

/* A good input structure of the type that the table names. */
static void prepare_input(struct call *call, struct object *object, int parameter) {
  const char *name = object->structure->name;
  void *memory = object->memory;
  object->is_input = 1;
  if (is(name, "agr_limiter_config"))
    limiter_config(memory);
  else if (is(name, "agr_keyed_limiter_config"))
    keyed_config(memory);
  else if (is(name, "agr_breaker_config"))
    breaker_config(memory);
  else if (is(name, "agr_idempotency_config"))
    cache_config(memory);
  else if (is(name, "agr_retry_budget_config"))
    agr_retry_budget_config_init(memory, sizeof(agr_retry_budget_config));
  else if (is(name, "agr_backoff_config"))
    agr_backoff_config_init(memory, sizeof(agr_backoff_config));
  else if (is(name, "agr_retry_config")) {
    retry_config(memory);
    add_rules(call, memory, parameter);
  } else if (is(name, "agr_policy_config"))
    prepare_policy(call, memory, parameter);
  else if (is(name, "agr_store_driver"))
    prepare_driver(call, memory, parameter);
  else if (is(name, "agr_store_config"))
    agr_store_config_init(memory, sizeof(agr_store_config));
  else if (is(name, "agr_region_config"))
    agr_region_config_init(memory, sizeof(agr_region_config));
  else if (is(name, "agr_lock_config"))
    agr_lock_config_init(memory, sizeof(agr_lock_config));
  else if (is(name, "agr_lock_hold"))
    memcpy(memory, &call->world->hold, sizeof(agr_lock_hold));
  else if (is(name, "agr_store_options"))
    agr_store_options_init(memory, sizeof(agr_store_options));
  else if (is(name, "agr_request"))
    prepare_request(call, memory);
  else if (is(name, "agr_outcome"))
    prepare_outcome(call, memory);
  else if (is(name, "agr_retry_rule")) {
    const agr_retry_rule rule = {AGR_DOMAIN_HTTP, 500, 599, AGR_CLASS_TRANSIENT, 3, 0, 1000};
    memcpy(memory, &rule, sizeof rule);
  } else if (is(name, "agr_limiter_demand")) {
    const agr_limiter_demand demands[] = {{call->world->limiter, 1},
                                          {call->world->other_limiter, 1}};
    memcpy(memory, demands, sizeof demands);
  } else if (is(name, "agr_event")) {
    uint64_t cursor = 0;
    agr_event event = {.struct_size = sizeof event};
    if (call->world->policy) {
      CHECK(agr_policy_next_event(call->world->policy, &cursor, &event, NULL, NULL) == AGR_OK);
    }
    memcpy(memory, &event, sizeof event);
  } else {
    abort();
  }
}

static int is_output(const struct function *function, const struct parameter *parameter) {
  return begins(parameter->name, "out_") || is(parameter->name, "error") ||
         contains(function->name, "_init") || contains(function->name, "_preset") ||
         (is(function->name, "agr_retry_rules_default") && is(parameter->name, "rules"));
}

static void build_structure(struct call *call, int index) {
  const struct parameter *parameter = &call->function->parameters[index];
  const char *name = parameter->name;
  int elements = is(name, "rules")                                     ? 64
                 : is(name, "demands") || is(name, "out_reservations") ? 2
                                                                       : 1;
  struct object *object =
      add_object(call, parameter->target, elements, (void **)(void *)&call->values[index]);
  object->parameter = index;
  if (!is_output(call->function, parameter)) {
    prepare_input(call, object, index);
  } else if (object->structure->sized) {
    *(uint32_t *)(void *)object->memory = (uint32_t)object->structure->size;
  }
}

static void *good_handle(const struct world *world, const char *function, const char *name) {
  if (is(name, "limiter")) {
    return begins(function, "agr_keyed") ? (void *)world->keyed : (void *)world->limiter;
  }
  if (is(name, "breaker")) return world->breaker;
  if (is(name, "budget")) return world->budget;
  if (is(name, "cache")) return contains(function, "lost_fence") ? world->durable : world->cache;
  if (is(name, "policy")) return world->policy;
  if (is(name, "call")) return world->call;
  if (is(name, "store")) return world->store;
  if (is(name, "region")) return world->region;
  if (is(name, "lock")) return world->lock;
  abort();
}

static uint64_t good_number(const struct call *call, const char *name) {
  const char *function = call->function->name;
  const struct world *world = call->world;
  if (is(name, "permit")) {
    return begins(function, "agr_keyed")     ? world->keyed_reservation
           : begins(function, "agr_limiter") ? world->reservation
                                             : world->permit;
  }
  if (is(name, "ticket")) {
    return contains(function, "wait") ? world->answered_ticket : world->open_ticket;
  }
  if (is(name, "lease_id")) {
    return contains(function, "lost_fence") ? world->durable_lease : world->lease;
  }
  if (is(name, "pin")) return world->pin;
  if (is(name, "now_ns")) return (uint64_t)world->now;
  if (is(name, "bytes")) return 1 << 17;
  if (is(name, "fd")) {
    int32_t fd = -1;
    if (world->region) CHECK(agr_region_fd(world->region, &fd, NULL) == AGR_OK);
    return (uint64_t)fd;
  }
  if (is(name, "capacity")) return contains(function, "json") ? 1024 : 64;
  if (contains(name, "length")) return KEY_LENGTH;
  if (is(name, "count") || is(name, "preset")) return 2;
  if (is(name, "code")) return 503;
  if (is(name, "server_delay_ns")) return (uint64_t)-1;
  if (is(name, "component")) return AGR_COMPONENT_BREAKER;
  if (is(name, "struct_size")) return call->objects[0].structure->size;
  const char *zeros[] = {"timeout_ns", "max_wait_ns", "previous_ns", "current_ns",
                         "mode",       "fallback",    "status",      "reason_retries",
                         "lease_ns",   "wall_now_ns"};
  for (int i = 0; i < COUNT(zeros); ++i) {
    if (is(name, zeros[i])) return 0;
  }
  return 1;
}

static void attempt(const agr_step *step, agr_outcome *outcome, void *user_data) {
  (void)step;
  (void)user_data;
  outcome->error_class = AGR_CLASS_SUCCESS;
}

/* The good call of a function. */
static void build(struct call *call, const struct function *function, struct world *world) {
  call->function = function;
  call->world = world;
  call->object_count = call->slot_count = 0;
  for (int i = 0; i < function->count; ++i) {
    const struct parameter *parameter = &function->parameters[i];
    const char *name = parameter->name;
    uint64_t value = 0;
    switch (parameter->kind) {
      case KIND_STRUCT: build_structure(call, i); continue;
      case KIND_HANDLE: value = (uintptr_t)good_handle(world, function->name, name); break;
      case KIND_BYTES:
        if (is(name, "name")) {
          const char *text = begins(function->name, "agr_region") ? region_name() : "object";
          value = (uintptr_t)place_bytes(call, text, strlen(text) + 1, 64);
          break;
        }
        value = (uintptr_t)place_bytes(call, KEY, KEY_LENGTH, is(name, "buffer") ? 1024 : 64);
        break;
      case KIND_SCALAR:
        value = (uintptr_t)place(call, 8);
        if (is(name, "cursor") || is(name, "state")) memset((void *)(uintptr_t)value, 0, 8);
        break;
      case KIND_CALLBACK: value = (uintptr_t)attempt; break;
      default: value = good_number(call, name);
    }
    call->values[i] = value;
  }
}

#endif
