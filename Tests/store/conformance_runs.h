/* SPDX-License-Identifier: Apache-2.0
 * Conformance: idempotency. */
#ifndef CONFORMANCE_RUNS_H
#define CONFORMANCE_RUNS_H

#include "conformance_tools.h"

/* What came out of a sink. */
struct found {
  char bytes[MOST_BYTES];
  size_t length;
  int asked, refuses;
};
static struct found found;

static void *reserve(void *context, size_t length) {
  struct found *out = context;
  ++out->asked;
  out->length = length;
  return out->refuses || length > sizeof out->bytes ? NULL : out->bytes;
}
static const agr_store_sink sink = {reserve, &found};

static agr_store_run new_run(agr_store_key key) {
  return (agr_store_run){.key = key,
                         .owner = {draw(), draw()},
                         .lease_ns = hour,
                         .ttl_ns = hour,
                         .result_bytes = 1024};
}

static agr_store_run_state answer;

static agr_status begin_by(const agr_store_driver *driver, const agr_store_run *run) {
  memset(&found, 0, sizeof found);
  memset(&answer, 0, sizeof answer);
  return driver->api->begin(driver->self, run, timeout, &sink, &answer, fresh_error());
}
static agr_status begin(const agr_store_run *run) { return begin_by(&first, run); }
static agr_status read_key(const agr_store_key *key) {
  memset(&found, 0, sizeof found);
  memset(&answer, 0, sizeof answer);
  return second.api->read(second.self, key, timeout, &sink, &answer, fresh_error());
}
static agr_status complete(const agr_store_key *key, uint64_t fence, const char *text, int64_t ttl) {
  return first.api->complete(first.self, key, fence, AGR_KEY_SUCCESS, text, strlen(text), ttl,
                             timeout, fresh_error());
}
static agr_status give_back(const agr_store_key *key, uint64_t fence, uint32_t unknown) {
  return first.api->give_back(first.self, key, fence, unknown, hour, timeout, fresh_error());
}
static agr_status renew(const agr_store_key *key, uint64_t fence, int64_t lease) {
  return first.api->renew(first.self, key, fence, lease, hour, timeout, fresh_error());
}
static int found_text(const char *text) {
  return found.asked == 1 && found.length == strlen(text) &&
         !memcmp(found.bytes, text, found.length);
}

static void a_result_is_replayed(void) {
  agr_store_run run = new_run(new_key());
  CHECK_STATUS(read_key(&run.key), AGR_NOT_FOUND);
  CHECK(!answer.outcome_unknown && !answer.lost_fence);
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK(fence && !answer.outcome_unknown && !answer.lost_fence && !found.asked);
  CHECK(answer.remaining_ns > hour - 60000000000 && answer.remaining_ns <= hour);
  CHECK_STATUS(read_key(&run.key), AGR_IN_PROGRESS);
  CHECK(answer.fence == fence && answer.remaining_ns > 0 && answer.remaining_ns <= hour);
  agr_store_run other = new_run(run.key);
  CHECK_STATUS(begin_by(&second, &other), AGR_IN_PROGRESS);
  CHECK(answer.fence == fence && answer.remaining_ns > 0 && answer.retry_after_ns >= 0);
  CHECK_OK(complete(&run.key, fence, "done", hour));
  CHECK_STATUS(begin_by(&second, &other), AGR_REPLAY);
  CHECK(answer.state == AGR_KEY_SUCCESS && answer.fence == fence && found_text("done"));
  CHECK(answer.remaining_ns > 0 && answer.remaining_ns <= hour);
  CHECK_STATUS(read_key(&run.key), AGR_REPLAY);
  CHECK(answer.state == AGR_KEY_SUCCESS && found_text("done"));
  /* What comes afterwards is stale, and the same once more is not. */
  CHECK_OK(complete(&run.key, fence, "again", hour));
  CHECK_STATUS(complete(&run.key, fence + 1, "later", hour), AGR_STALE);
  CHECK_STATUS(renew(&run.key, fence, hour), AGR_STALE);
  give_back(&run.key, fence, 1);
  CHECK_STATUS(begin(&other), AGR_REPLAY);
  CHECK(found_text("done"));
}

static void a_failure_may_be_the_result(void) {
  agr_store_run run = new_run(new_key());
  CHECK_OK(begin(&run));
  CHECK_OK(first.api->complete(first.self, &run.key, answer.fence, AGR_KEY_FAILED, NULL, 0, hour,
                               timeout, fresh_error()));
  CHECK_STATUS(begin(&run), AGR_REPLAY);
  CHECK(answer.state == AGR_KEY_FAILED && found.asked == 1 && found.length == 0);
}

/* The reply to the first may have been lost. */
static void beginning_bears_repetition(void) {
  agr_store_run run = new_run(new_key());
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK_OK(begin_by(&second, &run));
  CHECK(answer.fence == fence && !answer.outcome_unknown);
  CHECK_OK(give_back(&run.key, fence, 1));
  agr_store_run next = new_run(run.key);
  CHECK_OK(begin(&next));
  CHECK(answer.outcome_unknown == 1 && answer.lost_fence == fence && answer.fence > fence);
  const uint64_t second_fence = answer.fence;
  CHECK_OK(begin(&next));
  CHECK(answer.outcome_unknown == 1 && answer.lost_fence == fence && answer.fence == second_fence);
}

static void a_lost_run_is_told_of(void) {
  agr_store_run run = new_run(new_key());
  run.lease_ns = moment;
  CHECK_OK(begin(&run));
  const uint64_t lost = answer.fence;
  agr_store_run next = new_run(run.key);
  for (struct patience wait = be_patient(); begin(&next) == AGR_IN_PROGRESS && has_patience(&wait);) {
    CHECK(answer.remaining_ns > 0 && answer.remaining_ns <= moment);
  }
  CHECK(answer.fence > lost && answer.lost_fence == lost && answer.outcome_unknown == 1);
  const uint64_t fence = answer.fence;
  /* The late one changes nothing. */
  CHECK_STATUS(complete(&run.key, lost, "late", hour), AGR_STALE);
  CHECK_STATUS(renew(&run.key, lost, hour), AGR_STALE);
  CHECK_STATUS(give_back(&run.key, lost, 0), AGR_STALE);
  CHECK_STATUS(read_key(&run.key), AGR_IN_PROGRESS);
  CHECK(answer.fence == fence);
  /* A run that had no effect does not make known what an earlier one did. */
  CHECK_OK(give_back(&run.key, fence, 0));
  CHECK_STATUS(read_key(&run.key), AGR_NOT_FOUND);
  CHECK(answer.outcome_unknown == 1 && answer.lost_fence == lost);
  CHECK_OK(begin(&run));
  CHECK(answer.outcome_unknown == 1 && answer.lost_fence == lost && answer.fence > fence);
  CHECK_OK(complete(&run.key, answer.fence, "known", hour));
  CHECK_STATUS(begin(&next), AGR_REPLAY);
  CHECK(!answer.outcome_unknown);
}

static void what_had_no_effect_is_forgotten(void) {
  agr_store_run run = new_run(new_key());
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK_OK(give_back(&run.key, fence, 0));
  CHECK_STATUS(read_key(&run.key), AGR_NOT_FOUND);
  CHECK(!answer.outcome_unknown);
  CHECK_STATUS(complete(&run.key, fence, "late", hour), AGR_STALE);
  CHECK_OK(begin(&run));
  CHECK(!answer.outcome_unknown && answer.fence > fence);
}

static void a_lease_can_be_renewed(void) {
  agr_store_run run = new_run(new_key());
  run.lease_ns = moment;
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  if (renew(&run.key, fence, hour) == AGR_OK) {
    CHECK_STATUS(read_key(&run.key), AGR_IN_PROGRESS);
    CHECK(answer.remaining_ns > moment && answer.remaining_ns <= hour);
  }
  CHECK_STATUS(renew(&run.key, fence + 1, hour), AGR_STALE);
  agr_store_key unknown = new_key();
  CHECK_STATUS(renew(&unknown, fence, hour), AGR_STALE);
  CHECK_STATUS(complete(&unknown, fence, "x", hour), AGR_STALE);
  CHECK_STATUS(give_back(&unknown, fence, 1), AGR_STALE);
  CHECK_STATUS(read_key(&unknown), AGR_NOT_FOUND);
}

static void a_result_ends_with_its_time(void) {
  agr_store_run run = new_run(new_key());
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK_OK(complete(&run.key, fence, "short", moment));
  agr_store_run next = new_run(run.key);
  for (struct patience wait = be_patient(); begin(&next) == AGR_REPLAY && has_patience(&wait);) {
    CHECK(answer.remaining_ns > 0 && answer.remaining_ns <= moment);
  }
  CHECK(answer.fence > fence && !answer.outcome_unknown);
}

static void a_loss_is_forgotten_in_time(void) {
  agr_store_run run = new_run(new_key());
  CHECK_OK(begin(&run));
  CHECK_OK(first.api->give_back(first.self, &run.key, answer.fence, 1, moment, timeout,
                                fresh_error()));
  struct patience wait = be_patient();
  do CHECK_STATUS(read_key(&run.key), AGR_NOT_FOUND);
  while (answer.outcome_unknown && has_patience(&wait));
  CHECK_OK(begin(&run));
  CHECK(!answer.outcome_unknown && !answer.lost_fence);
}

static void another_request_is_noticed(void) {
  agr_store_run run = new_run(new_key()), other = new_run(run.key);
  run.fingerprint[1] = 1;
  other.fingerprint[0] = 1;
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK_STATUS(begin(&other), AGR_MISMATCH);
  CHECK_OK(complete(&run.key, fence, "mine", hour));
  CHECK_STATUS(begin(&other), AGR_MISMATCH);
  CHECK(found.asked == 0);
  other.fingerprint[0] = 0;
  CHECK_STATUS(begin(&other), AGR_REPLAY);
  CHECK_STATUS(begin(&run), AGR_REPLAY);
}

/* Any bytes are a key, and none is another. */
static void keys_are_bytes(void) {
  char name[256], space_two[64];
  snprintf(name, sizeof name, "%016llx", (unsigned long long)draw());
  snprintf(space_two, sizeof space_two, "%s.2", space());
  for (int i = 16; i < 256; ++i) name[i] = (char)(i * 7);
  name[20] = 0;
  const agr_store_key keys[] = {
      key_in(space(), name, 16),  key_in(space(), name, 20),    key_in(space(), name, 21),
      key_in(space(), name, 255), key_in(space_two, name, 16),  key_in(space(), "", 0),
      key_in(space(), "\0", 1),   key_in(space(), "\0\0", 2),
  };
  uint64_t fences[8];
  for (int i = 0; i < 8; ++i) {
    const agr_store_run run = new_run(keys[i]);
    CHECK_OK(begin(&run));
    fences[i] = answer.fence;
  }
  for (int i = 0; i < 8; ++i) {
    char text[2] = {(char)('a' + i), 0};
    CHECK_OK(complete(&keys[i], fences[i], text, hour));
  }
  for (int i = 0; i < 8; ++i) {
    char text[2] = {(char)('a' + i), 0};
    CHECK_STATUS(read_key(&keys[i]), AGR_REPLAY);
    CHECK(found_text(text));
  }
}

static void sizes_are_kept(void) {
  static char bytes[MOST_BYTES];
  for (int i = 0; i < MOST_BYTES; ++i) bytes[i] = (char)(i * 31 >> 3);
  agr_store_run run = new_run(new_key());
  run.result_bytes = MOST_BYTES - 1;
  CHECK_OK(begin(&run));
  const uint64_t fence = answer.fence;
  CHECK_STATUS(first.api->complete(first.self, &run.key, fence, AGR_KEY_SUCCESS, bytes, MOST_BYTES,
                                   hour, timeout, fresh_error()),
               AGR_ERR_NEVER_FITS);
  CHECK_STATUS(read_key(&run.key), AGR_IN_PROGRESS);
  CHECK_OK(first.api->complete(first.self, &run.key, fence, AGR_KEY_SUCCESS, bytes, MOST_BYTES - 1,
                               hour, timeout, fresh_error()));
  CHECK_STATUS(read_key(&run.key), AGR_REPLAY);
  CHECK(found.length == MOST_BYTES - 1 && !memcmp(found.bytes, bytes, MOST_BYTES - 1));
  /* There is no room for it on the caller's side; it is still there the next time. */
  memset(&found, 0, sizeof found);
  memset(&answer, 0, sizeof answer);
  found.refuses = 1;
  CHECK_STATUS(first.api->begin(first.self, &run, timeout, &sink, &answer, fresh_error()),
               AGR_ERR_NO_MEMORY);
  CHECK_STATUS(begin(&run), AGR_REPLAY);
  /* A size that no store keeps is refused before anything begins. */
  agr_store_run huge = new_run(new_key());
  huge.result_bytes = UINT64_MAX;
  CHECK_STATUS(begin(&huge), AGR_ERR_NEVER_FITS);
  CHECK_STATUS(read_key(&huge.key), AGR_NOT_FOUND);
}

static void check_runs(void) {
  a_result_is_replayed();
  a_failure_may_be_the_result();
  beginning_bears_repetition();
  a_lost_run_is_told_of();
  what_had_no_effect_is_forgotten();
  a_lease_can_be_renewed();
  a_result_ends_with_its_time();
  a_loss_is_forgotten_in_time();
  another_request_is_noticed();
  keys_are_bytes();
  sizes_are_kept();
}

#endif
