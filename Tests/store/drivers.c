/* SPDX-License-Identifier: Apache-2.0
 * The plug-ins from their drivers' side: what is wrong with a configuration or an argument is named, and when
 * memory runs out, at each request in turn, also of the libraries below them, they answer, lose nothing and
 * go on.
 *
 *   test_store_drivers FILE */
#include "../c/heap.h"

#include <autoglm_reliability/redis.h>
#include <autoglm_reliability/sqlite.h>

#include "conformance_tools.h"
#include "redis_server.h"

static redis_server server;
static char address[32];
static const char *path;

static agr_redis_config redis_config(void) {
  agr_redis_config config;
  agr_redis_config_init(&config, sizeof config);
  config.address = address;
  return config;
}

static agr_status open_redis(agr_store_driver *driver) {
  const agr_redis_config config = redis_config();
  return agr_redis_open(&config, driver, fresh_error());
}

static agr_sqlite_config sqlite_config(void) {
  agr_sqlite_config config;
  agr_sqlite_config_init(&config, sizeof config);
  config.path = path;
  config.synchronous = AGR_SQLITE_NORMAL;
  return config;
}

static agr_status open_sqlite(agr_store_driver *driver) {
  const agr_sqlite_config config = sqlite_config();
  return agr_sqlite_open(&config, driver, fresh_error());
}

/* ---- configurations ---- */

static char long_text[1100];

#define REFUSES(kind, member, value, name)                                         \
  do {                                                                             \
    agr_##kind##_config config = kind##_config();                                  \
    agr_store_driver driver = {NULL, NULL};                                        \
    config.member = value;                                                         \
    CHECK_STATUS(agr_##kind##_open(&config, &driver, fresh_error()), AGR_ERR_ARGUMENT); \
    CHECK(!strcmp(last_error.field, name));                                        \
    if (strcmp(last_error.field, name)) fprintf(stderr, "  %s: %s\n", name, last_error.field); \
    CHECK(!driver.self && !driver.api);                                            \
  } while (0)

static void redis_configurations(void) {
  REFUSES(redis, struct_size, 4, "struct_size");
  REFUSES(redis, connections, 0, "connections");
  REFUSES(redis, connections, 65, "connections");
  REFUSES(redis, tls, 2, "tls");
  REFUSES(redis, verify, 2, "verify");
  REFUSES(redis, database, 1000001, "database");
  REFUSES(redis, reserved, 1, "reserved");
  REFUSES(redis, connect_timeout_ns, 999999, "connect_timeout_ns");
  REFUSES(redis, connect_timeout_ns, INT64_MAX, "connect_timeout_ns");
  REFUSES(redis, max_result_bytes, 1u << 29, "max_result_bytes");
  REFUSES(redis, key_file, "/dev/null", "key_file");
  REFUSES(redis, certificate_file, "/dev/null", "key_file");
  REFUSES(redis, user, "somebody", "password");
  REFUSES(redis, sentinel_user, "somebody", "sentinel_password");
  REFUSES(redis, password, "", "password");
  REFUSES(redis, password, long_text, "password");
  REFUSES(redis, sentinel, "", "sentinel");
  REFUSES(redis, prefix, "", "prefix");
  REFUSES(redis, prefix, "a{b}", "prefix");
  REFUSES(redis, prefix, long_text, "prefix");
  static const char *const places[] = {
      "",        ",",       "host:",     "host:0", "host:65536", "host:1x",    ":6379", "[::1",
      "[::1]6379", "[::1]:", "unix:", "a,b,", "[::1]:0",    "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};
  for (size_t i = 0; i < sizeof places / sizeof *places; ++i) REFUSES(redis, address, places[i], "address");
  REFUSES(redis, address, long_text, "address");
  CHECK(agr_redis_open(NULL, NULL, fresh_error()) == AGR_ERR_ARGUMENT);

  /* A later version's fields may only be unset. */
  struct {
    agr_redis_config config;
    uint64_t later;
  } grown = {redis_config(), 0};
  agr_store_driver driver;
  grown.config.struct_size = sizeof grown;
  CHECK_OK(agr_redis_open(&grown.config, &driver, fresh_error()));
  CHECK_OK(driver.api->ping(driver.self, timeout, fresh_error()));
  driver.api->destroy(driver.self);
  grown.later = 1;
  CHECK(agr_redis_open(&grown.config, &driver, fresh_error()) == AGR_ERR_ARGUMENT);

  /* What nobody listens at is no error of the configuration. */
  static const char *const elsewhere[] = {"[::1]:1", "[::1]", "127.0.0.1:1", "unix:/nowhere/at/all"};
  for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; ++i) {
    agr_redis_config config = redis_config();
    config.address = elsewhere[i];
    CHECK_OK(agr_redis_open(&config, &driver, fresh_error()));
    CHECK_STATUS(driver.api->ping(driver.self, timeout, fresh_error()), AGR_ERR_STORE);
    driver.api->destroy(driver.self);
  }
}

static void sqlite_configurations(void) {
  REFUSES(sqlite, struct_size, 4, "struct_size");
  REFUSES(sqlite, synchronous, 2, "synchronous");
  REFUSES(sqlite, path, NULL, "path");
  REFUSES(sqlite, path, "", "path");
  REFUSES(sqlite, path, long_text, "path");
  REFUSES(sqlite, max_result_bytes, (1u << 29) + 1u, "max_result_bytes");
  REFUSES(sqlite, max_bytes, 65535, "max_bytes");
  REFUSES(sqlite, max_batch, 0, "max_batch");
  REFUSES(sqlite, max_batch, 1025, "max_batch");
  REFUSES(sqlite, reserved, 1, "reserved");
  CHECK(agr_sqlite_open(NULL, NULL, fresh_error()) == AGR_ERR_ARGUMENT);
}

/* ---- arguments ---- */

static char room[64];
static void *reserve(void *context, size_t length) {
  (void)context;
  return length <= sizeof room ? room : NULL;
}
static const agr_store_sink sink = {reserve, NULL};
static const uint64_t owner[2] = {1, 2};

static agr_store_run run_of(agr_store_key key) {
  return (agr_store_run){.key = key, .owner = {draw(), draw()}, .lease_ns = hour, .ttl_ns = hour, .result_bytes = 8};
}
static agr_store_lease lease_of(agr_store_key key) {
  return (agr_store_lease){.key = key, .owner = {1, 2}, .limit = 1, .ttl_ns = hour};
}
static agr_store_bucket bucket_of(agr_store_key key) {
  return (agr_store_bucket){.key = key, .capacity = 10, .refill_tokens = 1, .interval_ns = hour, .tokens = 1, .least = 1};
}

static void missing_pointers(const agr_store_driver *driver) {
  const agr_store_api *api = driver->api;
  void *self = driver->self;
  const agr_store_key key = new_key();
  const agr_store_run run = run_of(key);
  agr_store_run_state state;
  agr_error *error = fresh_error();
  CHECK(api->begin(self, NULL, timeout, &sink, &state, error) == AGR_ERR_ARGUMENT);
  CHECK(api->begin(self, &run, timeout, NULL, &state, error) == AGR_ERR_ARGUMENT);
  CHECK(api->begin(self, &run, timeout, &sink, NULL, error) == AGR_ERR_ARGUMENT);
  CHECK(api->read(self, NULL, timeout, &sink, &state, error) == AGR_ERR_ARGUMENT);
  CHECK(api->renew(self, NULL, 1, hour, hour, timeout, error) == AGR_ERR_ARGUMENT);
  CHECK(api->complete(self, NULL, 1, AGR_KEY_SUCCESS, "", 0, hour, timeout, error) == AGR_ERR_ARGUMENT);
  CHECK(api->complete(self, &key, 1, AGR_KEY_SUCCESS, NULL, 1, hour, timeout, error) == AGR_ERR_ARGUMENT);
  CHECK(api->give_back(self, NULL, 1, 0, hour, timeout, error) == AGR_ERR_ARGUMENT);
  CHECK(api->acquire(self, NULL, timeout, &state.fence, &state.remaining_ns, error) == AGR_ERR_ARGUMENT);
  CHECK(api->extend(self, NULL, timeout, error) == AGR_ERR_ARGUMENT);
  CHECK(api->release(self, NULL, timeout, error) == AGR_ERR_ARGUMENT);
  if (api->take) {
    agr_store_bucket bucket = bucket_of(key);
    uint32_t refused;
    CHECK(api->take(self, NULL, 1, timeout, &refused, error) == AGR_ERR_ARGUMENT);
    CHECK(api->take(self, &bucket, 0, timeout, &refused, error) == AGR_ERR_ARGUMENT);
    CHECK(api->take(self, &bucket, 5, timeout, &refused, error) == AGR_ERR_ARGUMENT);
  }
  if (api->probe) {
    agr_store_breaker breaker = {0};
    int64_t wait;
    CHECK(api->breaker_read(self, NULL, timeout, &breaker, error) == AGR_ERR_ARGUMENT);
    CHECK(api->breaker_read(self, &key, timeout, NULL, error) == AGR_ERR_ARGUMENT);
    CHECK(api->breaker_set(self, &key, NULL, hour, timeout, &breaker, error) == AGR_ERR_ARGUMENT);
    CHECK(api->probe(self, &key, 1, NULL, hour, timeout, &wait, error) == AGR_ERR_ARGUMENT);
  }
}

static void unfit_keys(const agr_store_driver *driver) {
  const agr_store_api *api = driver->api;
  agr_store_run_state state;
  const agr_store_key bad[] = {{NULL, 3, "k", 1}, {"s", 0, "k", 1}, {long_text, 64, "k", 1}, {"s", 1, NULL, 1}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    const agr_store_run run = run_of(bad[i]);
    CHECK_STATUS(api->begin(driver->self, &run, timeout, &sink, &state, fresh_error()), AGR_ERR_ARGUMENT);
    CHECK_STATUS(api->read(driver->self, &bad[i], timeout, &sink, &state, fresh_error()), AGR_ERR_ARGUMENT);
  }
  char *big = malloc((1 << 20) + 1);
  memset(big, 'k', (1 << 20) + 1);
  const agr_store_key longest = key_in(space(), big, 1 << 20), longer = key_in(space(), big, (1 << 20) + 1);
  const agr_store_run fits = run_of(longest), does_not = run_of(longer);
  CHECK_STATUS(api->begin(driver->self, &does_not, timeout, &sink, &state, fresh_error()), AGR_ERR_NEVER_FITS);
  CHECK_OK(api->begin(driver->self, &fits, timeout, &sink, &state, fresh_error()));
  CHECK_OK(api->give_back(driver->self, &longest, state.fence, 0, hour, timeout, fresh_error()));
  free(big);
}

/* ---- memory that runs out ---- */

static long errors;

/* What a call may answer while memory runs out: what it always may, that there is none, or that the store failed. */
static agr_status bears(agr_status status) {
  if (status >= 0 || status != AGR_ERR_NO_MEMORY) CHECK_EQUAL(status < 0 ? status : AGR_ERR_STORE, AGR_ERR_STORE, last_error.message);
  CHECK(status >= 0 || last_error.message[0]);
  errors += status < 0;
  return status;
}

/* Every function once. What was said to be done is done. */
static void use(const agr_store_driver *driver, agr_store_key *completed) {
  const agr_store_api *api = driver->api;
  void *self = driver->self;
  const agr_store_key key = new_key(), other = new_key();
  const agr_store_run run = run_of(key), second_run = run_of(other);
  agr_store_lease lease = lease_of(key);
  agr_store_run_state state = {0};
  uint64_t fence = 0;
  int64_t wait = 0;
  bears(api->ping(self, timeout, fresh_error()));
  if (bears(api->begin(self, &run, timeout, &sink, &state, fresh_error())) == AGR_OK) {
    bears(api->renew(self, &key, state.fence, hour, hour, timeout, fresh_error()));
    if (bears(api->complete(self, &key, state.fence, AGR_KEY_SUCCESS, "result", 6, hour, timeout, fresh_error())) == AGR_OK)
      *completed = key;
    bears(api->read(self, &key, timeout, &sink, &state, fresh_error()));
  }
  if (bears(api->begin(self, &second_run, timeout, &sink, &state, fresh_error())) == AGR_OK)
    bears(api->give_back(self, &other, state.fence, 1, hour, timeout, fresh_error()));
  bears(api->acquire(self, &lease, timeout, &fence, &wait, fresh_error()));
  bears(api->extend(self, &lease, timeout, fresh_error()));
  bears(api->release(self, &lease, timeout, fresh_error()));
  if (api->take) {
    agr_store_bucket buckets[2] = {bucket_of(key), bucket_of(other)};
    uint32_t refused;
    bears(api->take(self, buckets, 2, timeout, &refused, fresh_error()));
  }
  if (api->probe) {
    agr_store_breaker breaker = {.state = AGR_BREAKER_OPEN, .trips = 1, .open_ns = hour};
    bears(api->breaker_set(self, &key, &breaker, hour, timeout, &breaker, fresh_error()));
    bears(api->breaker_read(self, &key, timeout, &breaker, fresh_error()));
    bears(api->probe(self, &key, breaker.generation, owner, hour, timeout, &wait, fresh_error()));
  }
}

static int pings(const agr_store_driver *driver) {
  const struct patience patience = be_patient();
  while (driver->api->ping(driver->self, timeout, fresh_error()) != AGR_OK)
    if (!has_patience(&patience)) return 0;
  return 1;
}

/* `kept`: blocks that a library below keeps in such a case. */
static void memory_runs_out(agr_status (*open)(agr_store_driver *), const char *name, long kept) {
  agr_store_key completed;
  long n = 0, opened = 0;
  errors = 0;
  /* What is made once is made. */
  CHECK_OK(open(&first));
  use(&first, &completed);
  first.api->destroy(first.self);
  CHECK_EQUAL(errors, 0, name);
  const long live = heap_live;
  CHECK_OK(open(&second));
  for (int failed = 1; failed && n < 20000;) {
    completed = (agr_store_key){NULL, 0, NULL, 0};
    heap_watch(++n);
    const agr_status status = bears(open(&first));
    if (status == AGR_OK) use(&first, &completed);
    failed = heap_relent();
    if (status == AGR_OK) {
      ++opened;
      CHECK(pings(&first));
      first.api->destroy(first.self);
    }
    if (completed.data) {
      agr_store_run_state state = {0};
      CHECK_EQUAL(second.api->read(second.self, &completed, timeout, &sink, &state, fresh_error()), AGR_REPLAY, name);
      CHECK(!memcmp(room, "result", 6));
    }
  }
  CHECK(n < 20000 && errors > 0 && opened > 0);
  second.api->destroy(second.self);
  CHECK(heap_live - live <= kept);
  printf("%s: %ld requests, %ld errors, %ld blocks left\n", name, n - 1, errors, heap_live - live);
}

int main(int count, char **arguments) {
  path = count > 1 ? arguments[1] : "drivers.db";
  memset(long_text, 'a', sizeof long_text - 1);
  start_server(&server);
  snprintf(address, sizeof address, "127.0.0.1:%d", server.port);
  redis_configurations();
  sqlite_configurations();
  agr_status (*const open[])(agr_store_driver *) = {open_redis, open_sqlite};
  for (int i = 0; i < 2; ++i) {
    CHECK_OK(open[i](&first));
    missing_pointers(&first);
    unfit_keys(&first);
    first.api->destroy(first.self);
  }
  /* OpenSSL 3.0 keeps two blocks of a digest that it had no memory for; there is one a script. */
  memory_runs_out(open_redis, "redis", 2 * 13);
  memory_runs_out(open_sqlite, "sqlite", 0);
  end_server(&server);
  return finish();
}
