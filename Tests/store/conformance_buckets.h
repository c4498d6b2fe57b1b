/* SPDX-License-Identifier: Apache-2.0
 * Conformance: buckets. */
#ifndef CONFORMANCE_BUCKETS_H
#define CONFORMANCE_BUCKETS_H

#include "conformance_tools.h"

/* One that does not refill in the time of a test. */
static agr_store_bucket bucket_of(agr_store_key key, int64_t capacity, int64_t tokens) {
  return (agr_store_bucket){.key = key,
                            .capacity = capacity,
                            .refill_tokens = 1,
                            .interval_ns = hour,
                            .tokens = tokens,
                            .least = tokens > 0 ? tokens : 0};
}

static uint32_t refused;

static agr_status take(agr_store_bucket *buckets, uint32_t count) {
  refused = 0;
  for (uint32_t i = 0; i < count; ++i) {
    buckets[i].taken = buckets[i].level = buckets[i].retry_after_ns = 0;
  }
  return first.api->take(first.self, buckets, count, timeout, &refused, fresh_error());
}

static void a_bucket_is_full_and_empties(void) {
  const agr_store_key key = new_key();
  agr_store_bucket bucket = bucket_of(key, 10, 0);
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 10 && bucket.taken == 0);
  bucket = bucket_of(key, 10, 7);
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 3 && bucket.taken == 7);
  CHECK_STATUS(take(&bucket, 1), AGR_LIMITED);
  CHECK(bucket.level == 3 && refused == 0 && bucket.taken == 0);
  CHECK(bucket.retry_after_ns > 3 * hour && bucket.retry_after_ns <= 4 * hour);
  /* Content with less. */
  bucket.least = 2;
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 0 && bucket.taken == 3);
  CHECK_STATUS(take(&bucket, 1), AGR_LIMITED);
  CHECK(bucket.retry_after_ns > hour && bucket.retry_after_ns <= 2 * hour);
  /* Given back, and never more than the capacity. */
  bucket = bucket_of(key, 10, -4);
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 4);
  bucket = bucket_of(key, 10, -100);
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 10);
  bucket = bucket_of(key, 10, 11);
  CHECK_STATUS(take(&bucket, 1), AGR_ERR_NEVER_FITS);
  /* Owed. */
  bucket.flags = AGR_STORE_MAY_OWE;
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == -1 && bucket.taken == 11);
  /* A smaller capacity cuts what is there. */
  bucket = bucket_of(key, 10, -100);
  CHECK_OK(take(&bucket, 1));
  bucket = bucket_of(key, 5, 0);
  CHECK_OK(take(&bucket, 1));
  CHECK(bucket.level == 5);
}

static void several_are_taken_as_one(void) {
  agr_store_bucket buckets[4];
  for (int i = 0; i < 4; ++i) buckets[i] = bucket_of(new_key(), 10 * (i + 1), 5);
  CHECK_OK(take(buckets, 4));
  CHECK(buckets[0].level == 5 && buckets[3].level == 35 && buckets[3].taken == 5);
  buckets[2].tokens = buckets[2].least = 26;
  CHECK_STATUS(take(buckets, 4), AGR_LIMITED);
  CHECK(refused == 2 && buckets[2].retry_after_ns > 0 && buckets[0].retry_after_ns == 0);
  buckets[2].tokens = buckets[2].least = 25;
  CHECK_OK(take(buckets, 4));
  CHECK(buckets[0].level == 0 && buckets[1].level == 10 && buckets[2].level == 0);
}

static void a_bucket_refills(void) {
  agr_store_bucket bucket = bucket_of(new_key(), 2, 2);
  bucket.interval_ns = moment;
  CHECK_OK(take(&bucket, 1));
  for (struct patience wait = be_patient();
       take(&bucket, 1) == AGR_LIMITED && has_patience(&wait);) {
    CHECK(bucket.retry_after_ns > 0 && bucket.retry_after_ns <= 2 * moment);
  }
  CHECK(bucket.taken == 2);
}

static void check_buckets(void) {
  a_bucket_is_full_and_empties();
  several_are_taken_as_one();
  a_bucket_refills();
}

#endif
