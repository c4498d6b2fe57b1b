/* SPDX-License-Identifier: Apache-2.0
 * Objects on a Redis cluster whose names share a tag lie in one slot, so that several buckets are taken from as one. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "redis_cluster.h"
#include "redis_store.h"

enum { NAMES = 300, PLAIN = 1200 };

static const int64_t second = 1000000000, hour = 3600000000000;
static redis_server nodes[NODES];
static redisContext *links[NODES];
static char everybody[100], one[32];
static agr_error error;

static agr_store_driver driver_at(const char *address) {
  agr_redis_config config;
  agr_store_driver driver;
  agr_redis_config_init(&config, sizeof config);
  config.address = address;
  if (agr_redis_open(&config, &driver, &error) != AGR_OK) give_up(error.message);
  return driver;
}

static agr_store *store_at(const char *address) {
  agr_store_config limits;
  agr_store *store = NULL;
  const agr_store_driver driver = driver_at(address);
  agr_store_config_init(&limits, sizeof limits);
  limits.timeout_ns = 30 * second;
  if (agr_store_create(&driver, &limits, &store, &error) != AGR_OK) give_up(error.message);
  return store;
}

static agr_limiter_config bucket_of(int64_t capacity) {
  agr_limiter_config config;
  agr_limiter_config_init(&config, sizeof config);
  config.capacity = capacity;
  config.refill_tokens = 1;
  config.refill_interval_ns = hour;
  return config;
}

static agr_limiter *limiter_in(agr_store *store, const char *name, int64_t capacity) {
  agr_limiter *limiter = NULL;
  const agr_limiter_config config = bucket_of(capacity);
  if (agr_limiter_create_in_store(store, name, &config, NULL, &limiter, &error) != AGR_OK) give_up(error.message);
  return limiter;
}

static int64_t left(agr_limiter *limiter) {
  int64_t tokens = -1;
  CHECK(agr_limiter_available(limiter, &tokens, &error) == AGR_OK);
  return tokens;
}

/* The sum of what the servers answer; of those that do not, a server's is 0. */
static long long everywhere(const char *command, const char *argument) {
  long long sum = 0;
  for (int i = 0; i < NODES; ++i) {
    redisReply *reply = redisCommand(links[i], argument ? "%s %s" : "%s", command, argument);
    if (!reply) give_up(command);
    if (reply->type == REDIS_REPLY_INTEGER) sum += reply->integer;
    freeReplyObject(reply);
  }
  return sum;
}

/* How many scripts the servers have run. */
static long long scripts_run(void) {
  long long sum = 0;
  for (int i = 0; i < NODES; ++i) {
    redisReply *reply = redisCommand(links[i], "INFO commandstats");
    if (!reply || reply->type != REDIS_REPLY_STRING) give_up("INFO");
    for (const char *found = reply->str; (found = strstr(found, "cmdstat_eval")) != NULL; ++found)
      sum += atoll(strstr(found, "calls=") + 6);
    freeReplyObject(reply);
  }
  return sum;
}

static long long slot_of(const char *key) {
  redisReply *reply = redisCommand(links[0], "CLUSTER KEYSLOT %s", key);
  if (!reply || reply->type != REDIS_REPLY_INTEGER) give_up("KEYSLOT");
  const long long slot = reply->integer;
  freeReplyObject(reply);
  return slot;
}

/* What a key is to be called; 0 for a space that would leave the slot to the key. */
static int key_of(const char *space, const char *key, char *out, size_t size) {
  const char *open = strchr(space, '{'), *close = open ? strchr(open, '}') : NULL;
  if (close > open + 1 && (open > space || close[1])) return snprintf(out, size, "agr:bucket:%s:%s", space, key) > 0;
  if (space[0] == '}') return 0;
  return snprintf(out, size, "agr:bucket:{%s}:%s", space, key) > 0;
}

static agr_store_bucket bucket_named(const char *space, const char *key) {
  return (agr_store_bucket){.key = {space, strlen(space), key, strlen(key)},
                            .capacity = 1000,
                            .refill_tokens = 1,
                            .interval_ns = hour,
                            .tokens = 1,
                            .least = 1};
}

static agr_status take(agr_store_driver driver, agr_store_bucket *buckets, uint32_t count) {
  uint32_t refused = 0;
  memset(&error, 0, sizeof error);
  return driver.api->take(driver.self, buckets, count, 30 * second, &refused, &error);
}

/* The driver and the servers agree on the slot of every name, braces wherever they stand, and whatever the key holds. */
static void slots_are_the_servers(void) {
  static char spaces[NAMES + PLAIN][16], keys[NAMES + PLAIN][48];
  static long long slots[NAMES + PLAIN];
  static int good[NAMES + PLAIN];
  const agr_store_driver driver = driver_at(everybody);
  const char *seed = getenv("AGR_SEED");
  const uint64_t first = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15u;
  uint64_t random = first;
  for (int i = 0; i < NAMES + PLAIN; ++i) {
    size_t length = 0;
    if (i < NAMES)
      do random = random * 6364136223846793005u + 1442695040888963407u, spaces[i][length++] = "{}a{}b"[(random >> 33) % 6];
      while (length < 2 || (length < 8 && random >> 60));
    else
      snprintf(spaces[i], sizeof spaces[i], "%08x", (unsigned)i * 2654435761u);
    good[i] = key_of(spaces[i], "k{x}}{", keys[i], sizeof keys[i]);
    agr_store_bucket bucket = bucket_named(spaces[i], "k{x}}{");
    if (!good[i]) {
      CHECK_EQUAL(take(driver, &bucket, 1), AGR_ERR_ARGUMENT, spaces[i]);
      CHECK(!strcmp(error.field, "space"));
      continue;
    }
    slots[i] = slot_of(keys[i]);
    if (i >= NAMES) continue;
    CHECK_EQUAL(take(driver, &bucket, 1), AGR_OK, spaces[i]);
    CHECK_EQUAL(everywhere("EXISTS", keys[i]), 1, keys[i]);
  }
  int together = 0, apart = 0, by_chance = 0;
  for (int i = 0; i < NAMES + PLAIN; ++i) {
    for (int j = 0; j < i && good[i]; ++j) {
      if (!good[j]) continue;
      const agr_store_bucket two[2] = {bucket_named(spaces[i], "k"), bucket_named(spaces[j], "}{k")};
      const agr_store_key names[2] = {two[0].key, two[1].key};
      const agr_status wanted = slots[i] == slots[j] ? AGR_OK : AGR_MISMATCH;
      if (driver.api->joins(driver.self, names, 2) != wanted) CHECK_EQUAL(!wanted, wanted, keys[i]);
      together += !wanted, apart += wanted == AGR_MISMATCH;
      by_chance += !wanted && i >= NAMES;
    }
  }
  if (failures) fprintf(stderr, "seed %llu\n", (unsigned long long)first);
  CHECK(together > 1000 && apart > 1000 && by_chance > 10);
  /* Those that lie together a server has together. */
  for (int i = 1, taken = 0; i < NAMES && taken < 100; ++i) {
    if (!good[i] || !good[i - 1]) continue;
    agr_store_bucket two[2] = {bucket_named(spaces[i], "one"), bucket_named(spaces[i - 1], "two")};
    CHECK_EQUAL(take(driver, two, 2), slots[i] == slots[i - 1] ? AGR_OK : AGR_ERR_ARGUMENT, keys[i]);
    ++taken;
  }
  driver.api->destroy(driver.self);
}

static void names_have_one_tag_at_most(agr_store *store) {
  const char *const bad[] = {"{}", "}{", "a{", "a}", "{a}", "a{}", "{}a", "a{b}{c}", "a{b}c}", "a{b{c}", "a}b{c", "a{b }"};
  const char *const fine[] = {"a{b}", "{b}a", "a{b}c", "{.-_}."};
  const agr_limiter_config config = bucket_of(1);
  agr_limiter *limiter;
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; ++i) {
    CHECK_EQUAL(agr_limiter_create_in_store(store, bad[i], &config, NULL, &limiter, &error), AGR_ERR_ARGUMENT, bad[i]);
    CHECK(!strcmp(error.field, "name"));
  }
  for (unsigned i = 0; i < sizeof fine / sizeof *fine; ++i) {
    limiter = limiter_in(store, fine[i], 1);
    CHECK_EQUAL(left(limiter), 1, fine[i]);
    agr_limiter_destroy(limiter);
  }
}

static void all_or_none_in_one_round_trip(agr_store *store) {
  agr_limiter *requests = limiter_in(store, "requests{tenant-7}", 10), *tokens = limiter_in(store, "tokens{tenant-7}", 100);
  agr_limiter_demand demands[2] = {{requests, 3}, {tokens, 50}};
  agr_reservation reserved[2];
  uint32_t index = 9;
  int64_t retry = 0;
  CHECK(agr_limiter_try_acquire_all(demands, 2, &index, &retry, &error) == AGR_OK && index == 2);
  CHECK(left(requests) == 7 && left(tokens) == 50);
  const long long before = scripts_run();
  demands[1].tokens = 51;
  CHECK(agr_limiter_try_acquire_all(demands, 2, &index, &retry, &error) == AGR_LIMITED && index == 1 && retry > 0);
  CHECK_EQUAL(scripts_run() - before, 1, "a round trip");
  CHECK(left(requests) == 7 && left(tokens) == 50);
  demands[1].tokens = 50;
  CHECK(agr_limiter_reserve_all(demands, 2, 0, reserved, &index, &retry, &error) == AGR_OK);
  CHECK(left(requests) == 4 && left(tokens) == 0);
  CHECK(agr_limiter_settle(tokens, reserved[1].permit, 10, &error) == AGR_OK);
  CHECK(agr_limiter_settle(requests, reserved[0].permit, 3, &error) == AGR_OK);
  CHECK(left(requests) == 4 && left(tokens) == 40);
  agr_limiter_destroy(requests);
  agr_limiter_destroy(tokens);
}

static agr_policy *policy_of(agr_limiter *requests, agr_limiter *tokens, agr_status *status) {
  agr_policy_config config;
  agr_policy *policy = NULL;
  agr_policy_config_init(&config, sizeof config);
  config.limiters[0] = requests;
  config.limiters[1] = tokens;
  config.limiter_count = 2;
  *status = agr_policy_create(&config, &policy, &error);
  return policy;
}

static agr_step step_of(agr_policy *policy, int64_t cost) {
  agr_request request;
  agr_call *call = NULL;
  agr_step step = {.struct_size = sizeof step};
  agr_outcome outcome;
  agr_request_init(&request, sizeof request);
  request.costs[1] = cost;
  CHECK(agr_call_begin(policy, &request, &call, &step, &error) == AGR_OK);
  const agr_step first = step;
  if (step.kind == AGR_STEP_ATTEMPT) {
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.attempt_id = step.attempt_id;
    CHECK(agr_call_advance(call, &outcome, &step, &error) == AGR_OK && step.reason == AGR_REASON_SUCCEEDED);
  }
  agr_call_destroy(call);
  return first;
}

static void a_policy_of_several(agr_store *store, const char *first, const char *second_name) {
  agr_status status;
  agr_limiter *requests = limiter_in(store, first, 10), *tokens = limiter_in(store, second_name, 100);
  agr_policy *policy = policy_of(requests, tokens, &status);
  CHECK_EQUAL(status, AGR_OK, "one tag");
  CHECK(step_of(policy, 60).kind == AGR_STEP_ATTEMPT);
  const long long before = scripts_run();
  const agr_step refused = step_of(policy, 60);
  CHECK(refused.kind == AGR_STEP_DONE && refused.reason == AGR_REASON_LIMITED && refused.retry_after_ns > 0);
  CHECK_EQUAL(scripts_run() - before, 1, "a round trip");
  CHECK(left(requests) == 9 && left(tokens) == 40);
  agr_policy_destroy(policy);
  agr_limiter_destroy(requests);
  agr_limiter_destroy(tokens);
}

/* What cannot be is said when a policy is made, if the cluster is known for one then; else by each call. */
static void names_without_a_common_tag(agr_store *store, int is_known) {
  agr_status status;
  agr_limiter *requests = limiter_in(store, "requests", 10), *tokens = limiter_in(store, "tokens", 100);
  agr_policy *policy = policy_of(requests, tokens, &status);
  CHECK_EQUAL(status, is_known ? AGR_ERR_ARGUMENT : AGR_OK, "created");
  if (policy) {
    const agr_step step = step_of(policy, 60);
    CHECK(step.kind == AGR_STEP_DONE && step.component == AGR_COMPONENT_LIMITER);
    CHECK_EQUAL(step.reason, AGR_REASON_ARGUMENT, "reason");
    CHECK(!strcmp(agr_reason_name(step.reason), "argument"));
    agr_policy_destroy(policy);
  } else {
    CHECK(!strcmp(error.field, "limiters") && strstr(error.message, "{tag}"));
  }
  const agr_limiter_demand demands[2] = {{requests, 3}, {tokens, 50}};
  agr_reservation reserved[2];
  CHECK(agr_limiter_try_acquire_all(demands, 2, NULL, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(!strcmp(error.field, "demands.limiter") && strstr(error.message, "{tag}"));
  CHECK(agr_limiter_reserve_all(demands, 2, 0, reserved, NULL, NULL, &error) == AGR_ERR_ARGUMENT);
  CHECK(left(requests) == 10 && left(tokens) == 100);
  agr_limiter_destroy(requests);
  agr_limiter_destroy(tokens);
}

/* Objects of every kind lie in the slot of their tag, whatever keys they have. */
static void every_kind_of_object(agr_store *store) {
  const long long slot = slot_of("{every}"), keys = everywhere("DBSIZE", NULL);
  const char key[] = "}{k{x}";
  char number[16];
  agr_keyed_limiter_config buckets;
  agr_keyed_limiter *keyed;
  agr_idempotency_config runs;
  agr_idempotency *cache;
  agr_breaker_config states;
  agr_breaker *breaker;
  agr_lock *lock;
  agr_lock_hold hold;
  agr_lease lease = {0};
  agr_result result = {0};
  agr_keyed_limiter_config_init(&buckets, sizeof buckets);
  buckets.capacity = buckets.refill_tokens = 10;
  buckets.refill_interval_ns = hour;
  agr_idempotency_config_init(&runs, sizeof runs);
  agr_breaker_config_init(&states, sizeof states);
  states.window = AGR_WINDOW_NONE;
  states.consecutive_failures = 1;
  CHECK(agr_keyed_limiter_create_in_store(store, "keyed{every}", &buckets, NULL, &keyed, &error) == AGR_OK);
  CHECK(agr_idempotency_create_in_store(store, "{every}runs", &runs, NULL, &cache, &error) == AGR_OK);
  CHECK(agr_breaker_create_in_store(store, "state{every}s", &states, NULL, &breaker, &error) == AGR_OK);
  CHECK(agr_lock_create_in_store(store, "lock{every}", NULL, NULL, &lock, &error) == AGR_OK);
  CHECK(agr_keyed_limiter_try_acquire(keyed, key, sizeof key - 1, 3, NULL, &error) == AGR_OK);
  CHECK(agr_idempotency_begin(cache, key, sizeof key - 1, NULL, 0, &lease, &result, &error) == AGR_OK);
  CHECK(agr_idempotency_complete(cache, lease.id, "done", 4, &error) == AGR_OK);
  uint64_t permit;
  CHECK(agr_breaker_acquire(breaker, &permit, NULL, &error) == AGR_OK);
  CHECK(agr_breaker_report(breaker, permit, AGR_OUTCOME_FAILURE, 0, &error) == AGR_OK);
  CHECK(agr_lock_try_acquire(lock, key, sizeof key - 1, &hold, NULL, &error) == AGR_OK);
  /* A bucket; a run and its fence; a state; a lease, its fence and the locks'. */
  snprintf(number, sizeof number, "%lld", slot);
  long long there = 0;
  for (int i = 0; i < NODES; ++i) {
    redisReply *reply = redisCommand(links[i], "CLUSTER COUNTKEYSINSLOT %s", number);
    if (reply && reply->type == REDIS_REPLY_INTEGER) there += reply->integer;
    freeReplyObject(reply);
  }
  CHECK_EQUAL(there, everywhere("DBSIZE", NULL) - keys, "keys in the slot");
  CHECK(there >= 6);
  CHECK(agr_lock_release(lock, key, sizeof key - 1, &hold, &error) == AGR_OK);
  agr_keyed_limiter_destroy(keyed);
  agr_idempotency_destroy(cache);
  agr_breaker_destroy(breaker);
  agr_lock_destroy(lock);
}

int main(void) {
  start_cluster(nodes);
  snprintf(one, sizeof one, "127.0.0.1:%d", nodes[1].port);
  snprintf(everybody, sizeof everybody, "127.0.0.1:%d,127.0.0.1:%d,%s", nodes[0].port, nodes[2].port, one);
  for (int i = 0; i < NODES; ++i) {
    links[i] = redisConnect("127.0.0.1", nodes[i].port);
    if (!links[i] || links[i]->err) give_up("hiredis");
  }
  agr_store *store = store_at(everybody);
  slots_are_the_servers();
  names_have_one_tag_at_most(store);
  all_or_none_in_one_round_trip(store);
  a_policy_of_several(store, "requests{tenant-8}", "tokens{tenant-8}");
  names_without_a_common_tag(store, 1);
  every_kind_of_object(store);
  /* By one server, which has named no other yet. */
  agr_store *seed = store_at(one);
  names_without_a_common_tag(seed, 0);
  a_policy_of_several(seed, "requests{tenant-9}", "tokens{tenant-9}");
  agr_store_destroy(seed);
  agr_store_destroy(store);
  for (int i = 0; i < NODES; ++i) redisFree(links[i]);
  end_cluster(nodes);
  return finish();
}
