/* SPDX-License-Identifier: Apache-2.0
 * A store in front of a driver that fails when it is told to. */
#include "../c/check.h"
#include "stub.h"

static agr_error error;

static agr_store *make(struct stub *stub, agr_store_config *config) {
  const agr_store_driver driver = {&stub_api, stub};
  agr_store *store = NULL;
  CHECK(agr_store_create(&driver, config, &store, &error) == AGR_OK);
  return store;
}

static agr_store_snapshot snapshot(const agr_store *store) {
  agr_store_snapshot snapshot = {.struct_size = sizeof snapshot};
  CHECK(agr_store_snapshot_read(store, &snapshot, &error) == AGR_OK);
  return snapshot;
}

static void a_driver_goes_with_its_store(void) {
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = make(&stub, NULL);
  CHECK(!strcmp(agr_store_name(store), "stub"));
  CHECK(agr_store_ping(store, 0, &error) == AGR_OK && stub.calls == 1);
  CHECK(stub.timeout_ns == 1000000000);
  CHECK(agr_store_ping(store, 7, &error) == AGR_OK && stub.timeout_ns == 7);
  CHECK(stub.destroyed == 0);
  agr_store_destroy(store);
  CHECK(stub.destroyed == 1);
  agr_store_destroy(NULL);
  CHECK(!strcmp(agr_store_name(NULL), ""));
}

static void a_driver_stays_when_no_store_is_made(void) {
  struct stub stub = {.answer = AGR_OK};
  const agr_store_driver driver = {&stub_api, &stub};
  agr_store_config config;
  agr_store *store = NULL;
  agr_store_config_init(&config, sizeof config);
  config.open_ns = config.open_max_ns + 1;
  CHECK(agr_store_create(&driver, &config, &store, &error) == AGR_ERR_ARGUMENT && !store);
  CHECK(!strcmp(error.field, "open_max_ns") && stub.destroyed == 0);
}

/* Every function of a group is missing once; the whole group may be. */
static void groups_are_whole(void) {
  static const char *const names[] = {"ping",    "destroy", "begin",        "read",        "renew",
                                      "complete", "give_back", "take",       "acquire",     "extend",
                                      "release", "breaker_read", "breaker_set", "probe"};
  static const struct { int from, to, optional; } groups[] = {
      {0, 2, 0}, {2, 7, 1}, {7, 8, 1}, {8, 11, 1}, {11, 14, 1}};
  struct stub stub = {.answer = AGR_OK};
  agr_store *store = NULL;
  for (int g = 0; g < 5; ++g) {
    for (int i = groups[g].from; i <= groups[g].to; ++i) {
      agr_store_api api = stub_api;
      void **functions = (void **)(void *)&api.ping;
      const int whole = i == groups[g].to;
      for (int f = groups[g].from; f < groups[g].to; ++f) {
        if (whole || f == i) functions[f] = NULL;
      }
      const agr_store_driver driver = {&api, &stub};
      const agr_status status = agr_store_create(&driver, NULL, &store, &error);
      const int alone = groups[g].to - groups[g].from == 1;
      if (groups[g].optional && (whole || alone)) {
        CHECK_EQUAL(status, AGR_OK, names[groups[g].from]);
        agr_store_destroy(store);
      } else {
        CHECK_EQUAL(status, AGR_ERR_ARGUMENT, names[whole ? 0 : i]);
        if (!whole) CHECK(!strcmp(error.field, names[i]));
      }
    }
  }
  /* Nothing beyond the table's own size is looked at, and a longer one is of a later version. */
  agr_store_api api = stub_api;
  api.struct_size = offsetof(agr_store_api, take);
  const agr_store_driver shorter = {&api, &stub};
  CHECK(agr_store_create(&shorter, NULL, &store, &error) == AGR_OK);
  agr_store_destroy(store);
  struct { agr_store_api api; void *later; } longer = {stub_api, stub_api.ping};
  longer.api.struct_size = sizeof longer;
  const agr_store_driver later = {&longer.api, &stub};
  CHECK(agr_store_create(&later, NULL, &store, &error) == AGR_OK);
  agr_store_destroy(store);
}

static agr_status never_join(void *self, const agr_store_key *keys, uint32_t count) {
  struct stub *stub = self;
  CHECK(count == 2 && keys[0].space_length == 1 && !memcmp(keys[0].space, "a", 1) && !memcmp(keys[1].space, "b", 1));
  ++stub->fence;
  return AGR_MISMATCH;
}

/* What cannot be taken from as one is no policy; a driver that does not say has everything together. */
static void limiters_are_together(void) {
  struct stub stub = {.answer = AGR_OK};
  for (int says = 0; says < 3; ++says) {
    agr_store_api api = stub_api;
    agr_limiter_config bucket;
    agr_policy_config config;
    agr_policy *policy = NULL;
    agr_store *store = NULL;
    api.joins = says ? never_join : NULL;
    if (says == 2) api.struct_size = offsetof(agr_store_api, joins);
    const agr_store_driver driver = {&api, &stub};
    CHECK(agr_store_create(&driver, NULL, &store, &error) == AGR_OK);
    agr_limiter_config_init(&bucket, sizeof bucket);
    bucket.capacity = bucket.refill_tokens = 1;
    agr_policy_config_init(&config, sizeof config);
    config.limiter_count = 2;
    CHECK(agr_limiter_create_in_store(store, "a", &bucket, NULL, &config.limiters[0], &error) == AGR_OK);
    CHECK(agr_limiter_create_in_store(store, "b", &bucket, NULL, &config.limiters[1], &error) == AGR_OK);
    CHECK_EQUAL(agr_policy_create(&config, &policy, &error), says == 1 ? AGR_ERR_ARGUMENT : AGR_OK, "policy");
    if (says == 1) CHECK(!strcmp(error.field, "limiters") && stub.fence == 1);
    agr_policy_destroy(policy);
    agr_limiter_destroy(config.limiters[0]);
    agr_limiter_destroy(config.limiters[1]);
    agr_store_destroy(store);
  }
  CHECK(stub.fence == 1);
}

static void names_are_checked(void) {
  static const char *const bad[] = {NULL, "", "a b", "a/b", "\xc3\xa4",
                                    "a234567890123456789012345678901x"};
  struct stub stub = {.answer = AGR_OK};
  for (int i = 0; i < 6; ++i) {
    agr_store_api api = stub_api;
    agr_store *store = NULL;
    api.name = bad[i];
    const agr_store_driver driver = {&api, &stub};
    CHECK_EQUAL(agr_store_create(&driver, NULL, &store, &error), AGR_ERR_ARGUMENT, "name");
    CHECK(!strcmp(error.field, "name"));
  }
}

/* What a driver says of an error is made whole; what it may not say becomes AGR_ERR_STORE. */
static void errors_are_whole(void) {
  static const struct { agr_status said, seen; } cases[] = {
      {AGR_ERR_STORE, AGR_ERR_STORE},       {AGR_ERR_ARGUMENT, AGR_ERR_ARGUMENT},
      {AGR_ERR_CAPACITY, AGR_ERR_CAPACITY}, {AGR_ERR_NO_MEMORY, AGR_ERR_NO_MEMORY},
      {AGR_ERR_SYSTEM, AGR_ERR_STORE},      {AGR_ERR_STATE, AGR_ERR_STORE},
      {-99, AGR_ERR_STORE},                 {99, AGR_ERR_STORE},
      {AGR_ERR_NEVER_FITS, AGR_ERR_NEVER_FITS}};
  struct stub stub = {.message = "the disk is full"};
  agr_store *store = make(&stub, NULL);
  for (int i = 0; i < 9; ++i) {
    stub.answer = cases[i].said;
    memset(&error, 0x55, sizeof error);
    CHECK_EQUAL(agr_store_ping(store, 0, &error), cases[i].seen, "status");
    CHECK(error.status == cases[i].seen && !strcmp(error.field, "stub") && !error.system_errno);
    CHECK(!strcmp(error.message, cases[i].said < 0 ? stub.message : "the store failed and did not say why"));
    CHECK(agr_store_ping(store, 0, NULL) == cases[i].seen);
  }
  stub.answer = AGR_ERR_STORE;
  stub.message = NULL;
  CHECK(agr_store_ping(store, 0, &error) == AGR_ERR_STORE && error.message[0]);
  CHECK(snapshot(store).failures == 11);
  agr_store_destroy(store);
}

int main(void) {
  a_driver_goes_with_its_store();
  a_driver_stays_when_no_store_is_made();
  groups_are_whole();
  limiters_are_together();
  names_are_checked();
  errors_are_whole();
  return finish();
}
