/* SPDX-License-Identifier: Apache-2.0
 * The Redis store when things go wrong: a server that is stopped, cut off in the middle of a reply, speaks another
 * language, forgets everything, has its clock set; connections that are ended under threads; forks. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../c/check.h"
#include "redis_store.h"

static const int64_t millisecond = 1000000, second = 1000000000, hour = 3600 * INT64_C(1000000000);
static redis_server server;
static _Thread_local agr_error error;

static agr_store_driver open_driver(int port) {
  char address[32];
  agr_redis_config config;
  agr_store_driver driver;
  agr_redis_config_init(&config, sizeof config);
  snprintf(address, sizeof address, "127.0.0.1:%d", port);
  config.address = address;
  if (agr_redis_open(&config, &driver, &error) != AGR_OK) give_up(error.message);
  return driver;
}

static agr_store_bucket bucket_of(const char *space, int64_t capacity, int64_t interval_ns) {
  return (agr_store_bucket){.key = {space, strlen(space), "k", 1},
                            .capacity = capacity,
                            .refill_tokens = 1,
                            .interval_ns = interval_ns,
                            .tokens = 1,
                            .least = 1};
}

static agr_status take(agr_store_driver driver, agr_store_bucket *bucket, int64_t timeout_ns) {
  uint32_t refused = 0;
  memset(&error, 0, sizeof error);
  return driver.api->take(driver.self, bucket, 1, timeout_ns, &refused, &error);
}

struct room {
  char bytes[64];
  size_t length;
};
static void *reserve(void *context, size_t length) {
  struct room *room = context;
  room->length = length;
  return length <= sizeof room->bytes ? room->bytes : NULL;
}

static agr_status begin(agr_store_driver driver, const char *name, uint64_t owner, struct room *room,
                        agr_store_run_state *state, int64_t timeout_ns) {
  const agr_store_run run = {.key = {"faults", 6, name, strlen(name)},
                             .owner = {owner, 1},
                             .lease_ns = hour,
                             .ttl_ns = hour,
                             .result_bytes = 64};
  const agr_store_sink sink = {reserve, room};
  memset(state, 0, sizeof *state);
  memset(&error, 0, sizeof error);
  return driver.api->begin(driver.self, &run, timeout_ns, &sink, state, &error);
}

static agr_status complete(agr_store_driver driver, const char *name, uint64_t fence,
                           int64_t timeout_ns) {
  const agr_store_key key = {"faults", 6, name, strlen(name)};
  memset(&error, 0, sizeof error);
  return driver.api->complete(driver.self, &key, fence, AGR_KEY_SUCCESS, "done", 4, hour, timeout_ns,
                              &error);
}

/* Tries until the server is heard again. */
static int is_back(agr_store_driver driver) {
  for (int i = 0; i < 10000; ++i) {
    if (driver.api->ping(driver.self, second, &error) == AGR_OK) return 1;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  return 0;
}

/* ---- a server that is stopped ---- */

static void *asks_in_vain(void *driver) {
  agr_store_bucket bucket = bucket_of("stopped", 1000, hour);
  return (void *)(intptr_t)take(*(agr_store_driver *)driver, &bucket, 30 * millisecond);
}

static void nobody_waits_for_a_stopped_server(void) {
  agr_store_driver driver = open_driver(server.port);
  pthread_t threads[8];
  CHECK(is_back(driver));
  for (int round = 0; round < 3; ++round) {
    kill(server.pid, SIGSTOP);
    for (int i = 0; i < 8; ++i) pthread_create(&threads[i], NULL, asks_in_vain, &driver);
    for (int i = 0; i < 8; ++i) {
      void *status;
      pthread_join(threads[i], &status);
      CHECK_EQUAL((intptr_t)status, AGR_ERR_STORE, "stopped");
    }
    kill(server.pid, SIGCONT);
    CHECK(is_back(driver));
  }
  driver.api->destroy(driver.self);
}

/* ---- a proxy that cuts the line ---- */

struct proxy {
  int listener, port;
  _Atomic long room; /* bytes of replies until the line is cut; below 0: all */
  _Atomic int ends;
};

static int connected(int port) {
  const struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) give_up("proxy");
  return fd;
}

static void pass_on(struct proxy *proxy, int client) {
  char bytes[4096];
  const int upstream = connected(server.port);
  struct pollfd both[] = {{.fd = client, .events = POLLIN}, {.fd = upstream, .events = POLLIN}};
  while (!atomic_load(&proxy->ends)) {
    if (poll(both, 2, 20) <= 0) continue;
    if (both[0].revents) {
      const ssize_t got = recv(client, bytes, sizeof bytes, 0);
      if (got <= 0 || send(upstream, bytes, (size_t)got, MSG_NOSIGNAL) != got) break;
    }
    if (both[1].revents) {
      ssize_t got = recv(upstream, bytes, sizeof bytes, 0);
      if (got <= 0) break;
      const long room = atomic_load(&proxy->room);
      const int cuts = room >= 0 && got > room;
      if (cuts) got = room;
      if (room >= 0) atomic_fetch_sub(&proxy->room, got);
      if (got > 0 && send(client, bytes, (size_t)got, MSG_NOSIGNAL) != got) break;
      if (cuts) break;
    }
  }
  close(upstream);
  close(client);
}

static void *proxies(void *context) {
  struct proxy *proxy = context;
  while (!atomic_load(&proxy->ends)) {
    struct pollfd entry = {.fd = proxy->listener, .events = POLLIN};
    if (poll(&entry, 1, 20) <= 0) continue;
    const int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0) pass_on(proxy, client);
  }
  return NULL;
}

static void listen_somewhere(int *listener, int *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(*listener, (struct sockaddr *)&address, size) != 0 || listen(*listener, 16) != 0 ||
      getsockname(*listener, (struct sockaddr *)&address, &size) != 0)
    give_up("listen");
  *port = ntohs(address.sin_port);
}

/* Wherever the line is cut, the call is answered or fails, and repeated says the same as before. */
static void a_line_may_be_cut_anywhere(void) {
  struct proxy proxy = {0};
  pthread_t thread;
  listen_somewhere(&proxy.listener, &proxy.port);
  atomic_store(&proxy.room, -1);
  pthread_create(&thread, NULL, proxies, &proxy);
  agr_store_driver driver = open_driver(proxy.port), direct = open_driver(server.port);
  int failed = 0, answered = 0;
  for (long cut = 0; cut < 60; ++cut) {
    char name[16];
    struct room room;
    agr_store_run_state first, again;
    snprintf(name, sizeof name, "cut-%ld", cut);
    atomic_store(&proxy.room, cut);
    const agr_status status = begin(driver, name, 7, &room, &first, 5 * second);
    failed += status == AGR_ERR_STORE;
    answered += status == AGR_OK;
    atomic_store(&proxy.room, -1);
    CHECK(status == AGR_OK || status == AGR_ERR_STORE);
    /* The same owner's run. */
    CHECK_EQUAL(begin(direct, name, 7, &room, &again, 5 * second), AGR_OK, name);
    CHECK(!again.outcome_unknown && (status != AGR_OK || again.fence == first.fence));
    CHECK(is_back(driver));
    CHECK_EQUAL(complete(driver, name, again.fence, 5 * second), AGR_OK, name);
    CHECK_EQUAL(begin(driver, name, 8, &room, &again, 5 * second), AGR_REPLAY, name);
    CHECK(room.length == 4 && !memcmp(room.bytes, "done", 4));
  }
  CHECK(failed > 20 && answered > 0);
  driver.api->destroy(driver.self);
  direct.api->destroy(direct.self);
  atomic_store(&proxy.ends, 1);
  pthread_join(thread, NULL);
  close(proxy.listener);
}

/* ---- a server that is none ---- */

struct babbler {
  int listener;
  const char *text;
  _Atomic int ends;
};

static void *babbles(void *context) {
  struct babbler *babbler = context;
  char bytes[4096];
  while (!atomic_load(&babbler->ends)) {
    struct pollfd entry = {.fd = babbler->listener, .events = POLLIN};
    if (poll(&entry, 1, 20) <= 0) continue;
    const int client = accept4(babbler->listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    if (recv(client, bytes, sizeof bytes, 0) > 0)
      (void)!send(client, babbler->text, strlen(babbler->text), MSG_NOSIGNAL);
    close(client);
  }
  return NULL;
}

static void what_is_no_reply_is_an_error(void) {
  const char *texts[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", "+\r\n", ":1\r\n", "$-1\r\n", "*0\r\n", "*1\r\n:0\r\n",
                         "*2\r\n:4\r\n:1\r\n", "*-1\r\n", "$40\r\n0123456789012345678901234567890123456789\r\n",
                         "*5\r\n:4\r\n:1\r\n:1\r\n$1\r\nS\r\n:7\r\n", "$99999999999999999999\r\n",
                         "*1000000000\r\n", "-MOVED 1\r\n", "-MOVED 99999 :0\r\n", "-ASK 1 nowhere:x\r\n",
                         "-MOVED 1 nowhere.invalid:1\r\n", "-\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "\r\n",
                         "*2\r\n:0\r\n$3\r\nabc\r\n:1\r\n:1\r\n"};
  for (unsigned i = 0; i < sizeof texts / sizeof *texts; ++i) {
    struct babbler babbler = {.text = texts[i]};
    int port;
    pthread_t thread;
    listen_somewhere(&babbler.listener, &port);
    pthread_create(&thread, NULL, babbles, &babbler);
    agr_store_driver driver = open_driver(port);
    struct room room;
    agr_store_run_state state;
    int64_t retry = 0;
    uint64_t fence = 0;
    agr_store_bucket bucket = bucket_of("babble", 1000, hour);
    const agr_store_lease lease = {.key = {"babble", 6, NULL, 0}, .owner = {1, 1}, .limit = 1, .ttl_ns = hour};
    CHECK_EQUAL(begin(driver, "k", 1, &room, &state, 50 * millisecond), AGR_ERR_STORE, texts[i]);
    CHECK_EQUAL(take(driver, &bucket, 50 * millisecond), AGR_ERR_STORE, texts[i]);
    CHECK_EQUAL(driver.api->acquire(driver.self, &lease, 50 * millisecond, &fence, &retry, &error),
                AGR_ERR_STORE, texts[i]);
    CHECK(!state.fence && !fence);
    driver.api->destroy(driver.self);
    atomic_store(&babbler.ends, 1);
    pthread_join(thread, NULL);
    close(babbler.listener);
  }
}

/* ---- a server that forgets ---- */

static void after_a_restart_fences_still_grow(void) {
  agr_store_driver driver = open_driver(server.port);
  struct room room;
  agr_store_run_state before, after;
  agr_store_bucket bucket = bucket_of("restart", 5, hour);
  CHECK_EQUAL(begin(driver, "lost", 1, &room, &before, 5 * second), AGR_OK, "before");
  CHECK(take(driver, &bucket, 5 * second) == AGR_OK && bucket.level == 4);
  stop_server(&server);
  CHECK_EQUAL(begin(driver, "lost", 2, &room, &after, 50 * millisecond), AGR_ERR_STORE, "gone");
  start_server(&server);
  CHECK(is_back(driver));
  CHECK_EQUAL(begin(driver, "lost", 2, &room, &after, 5 * second), AGR_OK, "after");
  CHECK(after.fence > before.fence);
  CHECK_EQUAL(complete(driver, "lost", before.fence, 5 * second), AGR_STALE, "the old run");
  bucket = bucket_of("restart", 5, hour);
  CHECK(take(driver, &bucket, 5 * second) == AGR_OK && bucket.level == 4);
  driver.api->destroy(driver.self);
}

/* ---- a clock that is set ---- */

static void a_clock_may_be_set(const char *shim) {
  char path[120];
  redis_server other = {.preload = shim};
  strcpy(other.directory, "/tmp/agr-redis-XXXXXX");
  if (!mkdtemp(other.directory)) give_up("mkdtemp");
  snprintf(path, sizeof path, "%s/offset", other.directory);
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, 8) != 0) give_up(path);
  volatile int64_t *offset = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (offset == MAP_FAILED) give_up("mmap");
  setenv("REDIS_CLOCK_OFFSET", path, 1);
  start_server(&other);
  agr_store_driver driver = open_driver(other.port);
  struct room room;
  agr_store_run_state first, next;
  agr_store_bucket bucket = bucket_of("clock", 10, hour);
  for (int i = 0; i < 4; ++i) CHECK(take(driver, &bucket, 5 * second) == AGR_OK);
  CHECK(bucket.level == 6);
  CHECK_EQUAL(begin(driver, "first", 1, &room, &first, 5 * second), AGR_OK, "first");
  /* A day back: nothing refills that had not, nothing is lost, nobody waits for a day; fences grow. */
  *offset = -86400 * INT64_C(1000000);
  CHECK(take(driver, &bucket, 5 * second) == AGR_OK);
  CHECK_EQUAL(bucket.level, 5, "a day back");
  CHECK_EQUAL(begin(driver, "second", 1, &room, &next, 5 * second), AGR_OK, "second");
  CHECK(next.fence > first.fence);
  bucket.tokens = bucket.least = 6;
  CHECK_EQUAL(take(driver, &bucket, 5 * second), AGR_LIMITED, "a day back");
  CHECK(bucket.retry_after_ns <= hour);
  /* On again: at the most the bucket is full. */
  *offset = 3 * 86400 * INT64_C(1000000);
  bucket.tokens = 0;
  bucket.least = 0;
  CHECK(take(driver, &bucket, 5 * second) == AGR_OK);
  CHECK_EQUAL(bucket.level, 10, "three days on");
  driver.api->destroy(driver.self);
  munmap((void *)(uintptr_t)offset, 8);
  close(file);
  end_server(&other);
}

/* ---- connections that end under threads ---- */

static _Atomic int running;
static _Atomic long answered, failed_calls;

static void *asks_on(void *context) {
  const agr_store_driver driver = *(agr_store_driver *)context;
  for (int i = 0; atomic_load(&running); ++i) {
    agr_store_bucket bucket = bucket_of("threads", INT64_C(1) << 40, 1);
    const int64_t timeout = i % 7 ? second : (i % 5) * 100000 + 1;
    const agr_status status = take(driver, &bucket, timeout);
    if (status == AGR_OK) atomic_fetch_add(&answered, 1);
    else if (status == AGR_ERR_STORE) atomic_fetch_add(&failed_calls, 1);
    else CHECK_EQUAL(status, AGR_OK, "threads");
  }
  return NULL;
}

static void connections_may_end_under_threads(void) {
  agr_store_driver driver = open_driver(server.port);
  pthread_t threads[8];
  atomic_store(&running, 1);
  for (int i = 0; i < 8; ++i) pthread_create(&threads[i], NULL, asks_on, &driver);
  const int fd = connected(server.port);
  char bytes[4096];
  for (int i = 0; i < 150; ++i) {
    const char command[] = "CLIENT KILL TYPE normal SKIPME yes\r\n";
    if (send(fd, command, sizeof command - 1, MSG_NOSIGNAL) < 0 || recv(fd, bytes, sizeof bytes, 0) <= 0)
      give_up("CLIENT KILL");
    const long seen = atomic_load(&answered);
    for (int j = 0; j < 10000 && atomic_load(&answered) == seen; ++j)
      nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    CHECK(atomic_load(&answered) > seen);
  }
  atomic_store(&running, 0);
  for (int i = 0; i < 8; ++i) pthread_join(threads[i], NULL);
  printf("%ld answered, %ld failed\n", atomic_load(&answered), atomic_load(&failed_calls));
  close(fd);
  driver.api->destroy(driver.self);
}

/* ---- forks ---- */

static void parent_and_child_go_on(void) {
  agr_store_driver driver = open_driver(server.port);
  agr_store_bucket bucket = bucket_of("forks", 1000, hour);
  CHECK_EQUAL(take(driver, &bucket, 5 * second), AGR_OK, "before");
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      int good = 1;
      for (int i = 0; i < 5; ++i) good = good && take(driver, &bucket, 5 * second) == AGR_OK;
      driver.api->destroy(driver.self);
      _exit(good ? 0 : 1);
    }
    for (int i = 0; i < 5; ++i) CHECK_EQUAL(take(driver, &bucket, 5 * second), AGR_OK, "parent");
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0, "child");
  }
  bucket.tokens = bucket.least = 0;
  CHECK(take(driver, &bucket, 5 * second) == AGR_OK);
  CHECK_EQUAL(bucket.level, 1000 - 1 - 20 * 10, "each token once");
  driver.api->destroy(driver.self);
}

int main(int count, char **arguments) {
  start_server(&server);
  nobody_waits_for_a_stopped_server();
  a_line_may_be_cut_anywhere();
  what_is_no_reply_is_an_error();
  after_a_restart_fences_still_grow();
  if (count > 1) a_clock_may_be_set(arguments[1]);
  connections_may_end_under_threads();
  parent_and_child_go_on();
  end_server(&server);
  return finish();
}
