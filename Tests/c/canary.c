/* SPDX-License-Identifier: Apache-2.0
 * What a user entrusts to the library comes out only where it belongs. Keys, fingerprints, results,
 * fallback data, header values and user data are recognisable here, and nothing that the library
 * says of itself may contain a part of them: no error, event, JSON, snapshot, step, lease or name,
 * and nothing is printed. A trace id is given to be seen in events, and nowhere else. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "operations.h"

/* No six bytes of one appear in any other text here. */
static const char *const secrets[] = {
    "Bearer sk-KtWqZr81mVxP", /* a header's value, as a hint */
    "9Qz7JwLmXnB2vC4dRe",     /* a key: idempotency, limiter, cached answers */
    "Yh3GfT6uR8eW1qA5pL",     /* a fingerprint */
    "Lk0OjI9nHb7UyV2cXz",     /* a result */
    "Mn4BgVcFtX3dZsEwQ8",     /* a fallback */
    "Pq8WsEdCvFrT5gBhNy",     /* a user's own data */
    "Zx6CvBnMlKjH1gFdSa",     /* what came with a failure */
};
enum { SECRETS = sizeof secrets / sizeof *secrets, WINDOW = 6 };
#define HEADER secrets[0]
#define KEY secrets[1]
#define PRINT secrets[2]
#define RESULT secrets[3]
#define FALLBACK secrets[4]
#define USER secrets[5]
#define FAILURE secrets[6]
static const char *const trace = "Df2KlPoIuYtReWqAs7";

static long seen_bytes;

static int contains(const void *memory, size_t size, const char *text) {
  for (size_t i = 0; i + WINDOW <= strlen(text); ++i) {
    if (memmem(memory, size, text + i, WINDOW)) return 1;
  }
  return 0;
}

/* Nothing entrusted is in what the library wrote. */
static void look_at(const char *what, const void *memory, size_t size, int may_have_trace) {
  seen_bytes += (long)size;
  for (int i = 0; i < SECRETS; ++i) CHECK_EQUAL(contains(memory, size, secrets[i]), 0, what);
  if (!may_have_trace) CHECK_EQUAL(contains(memory, size, trace), 0, what);
}

static agr_error error;

/* The error of a call that was refused. */
#define REFUSED(call)                        \
  do {                                       \
    memset(&error, 0, sizeof error);         \
    CHECK((call) < 0 && error.message[0]);   \
    look_at(#call, &error, sizeof error, 0); \
  } while (0)
#define LOOK_AT(value) look_at(#value, &(value), sizeof(value), 0)

static void hints(void) {
  int64_t delay;
  for (int kind = AGR_HINT_RETRY_AFTER; kind <= AGR_HINT_DURATION; ++kind) {
    REFUSED(agr_hint_parse(kind, HEADER, strlen(HEADER), 0, &delay, &error));
  }
  REFUSED(agr_hint_parse(99, HEADER, strlen(HEADER), 0, &delay, &error));
  REFUSED(agr_hint_parse(1, HEADER, SIZE_MAX, 0, &delay, &error));
}

static void keyed(void) {
  agr_reservation reservation;
  agr_keyed_limiter_snapshot snapshot = {.struct_size = sizeof snapshot};
  int64_t wait;
  REFUSED(agr_keyed_limiter_try_acquire_at(parts.keyed, KEY, strlen(KEY), 1001, 1, &wait, &error));
  REFUSED(agr_keyed_limiter_try_acquire_at(parts.keyed, KEY, SIZE_MAX, 1, 1, &wait, &error));
  REFUSED(agr_keyed_limiter_try_acquire_at(parts.keyed, KEY, strlen(KEY), -1, 1, &wait, &error));
  CHECK(agr_keyed_limiter_reserve_at(parts.keyed, KEY, strlen(KEY), 1, 0, 1, &reservation, &wait,
                                     NULL) == AGR_OK);
  LOOK_AT(reservation);
  CHECK(agr_keyed_limiter_snapshot_read_at(parts.keyed, 1, &snapshot, NULL) == AGR_OK);
  LOOK_AT(snapshot);
}

static void cache(void) {
  agr_lease lease, other;
  agr_result result;
  uint64_t ticket;
  const int64_t now = parts.now;
  const size_t length = strlen(KEY), printed = strlen(PRINT);
  CHECK(agr_idempotency_begin_at(parts.cache, KEY, length, PRINT, printed, now, &lease, &result,
                                 NULL) == AGR_OK);
  CHECK(agr_idempotency_begin_at(parts.cache, KEY, length, USER, strlen(USER), now, &other, &result,
                                 NULL) == AGR_MISMATCH);
  LOOK_AT(lease);
  LOOK_AT(other);
  LOOK_AT(result);
  CHECK(agr_idempotency_join_at(parts.cache, KEY, length, PRINT, printed, now, &ticket, &other,
                                &result, NULL) == AGR_IN_PROGRESS);
  LOOK_AT(ticket);
  REFUSED(agr_idempotency_begin_at(parts.cache, KEY, SIZE_MAX, PRINT, printed, now, &other, &result,
                                   &error));
  REFUSED(agr_idempotency_begin_at(parts.cache, KEY, length, PRINT, SIZE_MAX, now, &other, &result,
                                   &error));
  REFUSED(agr_idempotency_begin_at(parts.cache, KEY, length, PRINT, printed, -1, &other, &result,
                                   &error));
  REFUSED(agr_idempotency_complete_at(parts.cache, lease.id, RESULT, SIZE_MAX, now, &error));
  CHECK(agr_idempotency_complete_at(parts.cache, lease.id, RESULT, strlen(RESULT), now, NULL) ==
        AGR_OK);
  CHECK(agr_idempotency_poll_at(parts.cache, ticket, now, &other, &result, NULL) == AGR_REPLAY);
  CHECK(result.length == strlen(RESULT) && !memcmp(result.data, RESULT, result.length));
  LOOK_AT(result);
  agr_idempotency_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_idempotency_snapshot_read(parts.cache, &snapshot, NULL) == AGR_OK);
  LOOK_AT(snapshot);
}

static agr_policy *policy;

static void build_policy(void) {
  agr_policy_config config;
  agr_policy_config_init(&config, sizeof config);
  config.idempotency = parts.turnover;
  config.breaker = parts.breaker;
  config.retry = &parts.retry;
  config.limiters[0] = parts.limiter;
  config.limiter_count = 1;
  config.cached_entries = 16;
  config.fallback = AGR_FALLBACK_CACHED_OR_DEFAULT;
  config.fallback_data = FALLBACK;
  config.fallback_length = SIZE_MAX;
  REFUSED(agr_policy_create(&config, &policy, &error));
  config.fallback_length = strlen(FALLBACK);
  config.order_count = 1;
  REFUSED(agr_policy_create(&config, &policy, &error));
  config.order_count = 0;
  CHECK(agr_policy_create(&config, &policy, NULL) == AGR_OK);
}

static void request_of(agr_request *request, const char *key) {
  agr_request_init(request, sizeof *request);
  request->key = request->cache_key = key;
  request->key_length = request->cache_key_length = strlen(key);
  request->fingerprint = PRINT;
  request->fingerprint_length = strlen(PRINT);
  request->trace_id = trace;
  request->trace_id_length = strlen(trace);
}

/* A call whose attempts end with the codes given, each with a body. */
static void run(const agr_request *request, const int *codes) {
  agr_call *call;
  agr_step step = {.struct_size = sizeof step};
  agr_outcome outcome;
  agr_outcome_init(&outcome, sizeof outcome);
  outcome.domain = AGR_DOMAIN_HTTP;
  CHECK(agr_call_begin_at(policy, request, parts.now, &call, &step, NULL) == AGR_OK);
  for (int i = 0; step.kind != AGR_STEP_DONE && i < 100; ++i) {
    LOOK_AT(step);
    parts.now += step.kind == AGR_STEP_ATTEMPT ? 1 : step.wait_ns;
    outcome.code = *codes;
    outcome.result = *codes == 200 ? RESULT : FAILURE;
    outcome.result_length = SIZE_MAX;
    if (step.kind == AGR_STEP_ATTEMPT) {
      REFUSED(agr_call_advance_at(call, &outcome, parts.now, &step, &error));
      ++codes;
    }
    outcome.result_length = strlen(outcome.result);
    const agr_outcome *given = step.kind == AGR_STEP_ATTEMPT ? &outcome : NULL;
    CHECK(agr_call_advance_at(call, given, parts.now, &step, NULL) == AGR_OK);
  }
  LOOK_AT(step);
  REFUSED(agr_call_advance_at(call, &outcome, parts.now, &step, &error));
  agr_call_destroy_at(call, parts.now);
}

static void bad_attempt(const agr_step *step, agr_outcome *outcome, void *user_data) {
  (void)step;
  outcome->result = user_data;
  outcome->result_length = SIZE_MAX;
}

static void guarded(void) {
  agr_request request;
  build_policy();
  request_of(&request, KEY);
  run(&request, (const int[]){429, 200}); /* retried */
  run(&request, (const int[]){0});        /* replayed */
  request.fingerprint = USER;
  run(&request, (const int[]){0}); /* a mismatch */
  request_of(&request, USER);
  run(&request, (const int[]){400}); /* failed, and the fallback */
  run(&request, (const int[]){502, 502, 502, 502});
  request.costs[0] = 100000;
  run(&request, (const int[]){0}); /* never fits */
  request.costs[0] = 1;
  CHECK(agr_breaker_force_at(parts.breaker, AGR_BREAKER_FORCED_OPEN, parts.now, NULL) == AGR_OK);
  run(&request, (const int[]){0}); /* refused */
  CHECK(agr_breaker_force_at(parts.breaker, AGR_BREAKER_AUTOMATIC, parts.now, NULL) == AGR_OK);
  agr_call *call;
  agr_step step = {.struct_size = sizeof step};
  request.key_length = request.cache_key_length = SIZE_MAX;
  REFUSED(agr_call_begin_at(policy, &request, parts.now, &call, &step, &error));
  request_of(&request, USER);
  request.trace_id_length = SIZE_MAX;
  REFUSED(agr_call_begin_at(policy, &request, parts.now, &call, &step, &error));
  char *data = strdup(USER);
  REFUSED(agr_policy_execute(policy, NULL, bad_attempt, data, NULL, &step, &error));
  free(data);
}

/* The trace id, and zeros behind it: nothing that lay there before. */
static void events(void) {
  uint64_t cursor = 0, lost;
  int count = 0, traced = 0;
  agr_event event = {.struct_size = sizeof event};
  while (agr_policy_next_event(policy, &cursor, &event, &lost, NULL) == AGR_OK) {
    char line[1024];
    size_t length;
    ++count;
    traced += !strcmp(event.trace_id, trace);
    for (size_t i = strlen(event.trace_id); i < sizeof event.trace_id; ++i) {
      CHECK(event.trace_id[i] == 0);
    }
    look_at("event", &event, sizeof event, 1);
    REFUSED(agr_event_json(&event, line, 8, &length, &error));
    CHECK(agr_event_json(&event, line, sizeof line, &length, NULL) == AGR_OK);
    look_at("JSON", line, length, 1);
  }
  CHECK(count > 12 && traced > 10);
  agr_policy_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_policy_snapshot_read(policy, &snapshot, NULL) == AGR_OK);
  LOOK_AT(snapshot);
  agr_breaker_snapshot breaker = {.struct_size = sizeof breaker};
  agr_breaker_event change = {.struct_size = sizeof change};
  CHECK(agr_breaker_snapshot_read_at(parts.breaker, parts.now, &breaker, NULL) == AGR_OK);
  LOOK_AT(breaker);
  for (cursor = 0;
       agr_breaker_next_event(parts.breaker, &cursor, &change, &lost, NULL) == AGR_OK;) {
    LOOK_AT(change);
  }
}

int main(void) {
  /* All that is printed goes into a file meanwhile; checks that fail are told after it. */
  FILE *printed = tmpfile();
  const int out = dup(1), err = dup(2);
  char planted[64] = "........";
  memcpy(planted + 9, KEY + 3, WINDOW);
  CHECK(printed && contains(planted, sizeof planted, KEY));
  fflush(NULL);
  dup2(fileno(printed), 1);
  dup2(fileno(printed), 2);
  make_parts();
  hints();
  keyed();
  cache();
  guarded();
  events();
  agr_policy_destroy(policy);
  destroy_parts();
  fflush(NULL);
  struct stat status;
  const int is_silent = fstat(1, &status) == 0 && status.st_size == 0;
  dup2(out, 1);
  dup2(err, 2);
  if (!is_silent) {
    char line[512];
    for (rewind(printed); fgets(line, sizeof line, printed);) fputs(line, stderr);
  }
  CHECK(is_silent);
  printf("%ld bytes looked at\n", seen_bytes);
  return finish();
}
