/* SPDX-License-Identifier: Apache-2.0
 * The Redis store on servers as people run them: with passwords and users, on a socket, behind TLS, as a cluster whose
 * slots move, behind a sentinel that replaces a master which was killed. */
#define _GNU_SOURCE
#include "../c/check.h"
#include "redis_cluster.h"
#include "redis_store.h"

static const int64_t second = 1000000000;
static agr_error error;

static agr_redis_config config_of(const char *address) {
  agr_redis_config config;
  agr_redis_config_init(&config, sizeof config);
  config.address = address;
  return config;
}

static const char *address_of(const redis_server *server) {
  static char addresses[4][64];
  static int next;
  char *text = addresses[next++ % 4];
  snprintf(text, 64, "127.0.0.1:%d", server->port);
  return text;
}

static agr_store_driver open_driver(const agr_redis_config *config) {
  agr_store_driver driver = {NULL, NULL};
  memset(&error, 0, sizeof error);
  const agr_status status = agr_redis_open(config, &driver, &error);
  if (status != AGR_OK) fprintf(stderr, "%s: %s\n", error.field, error.message);
  CHECK_EQUAL(status, AGR_OK, "open");
  return driver;
}

static agr_status take_from(agr_store_driver driver, const char *space, int64_t *out_level) {
  agr_store_bucket bucket = {.key = {space, strlen(space), "k", 1},
                             .capacity = 1000,
                             .refill_tokens = 1,
                             .interval_ns = 3600 * second,
                             .tokens = 1,
                             .least = 1};
  uint32_t refused = 0;
  memset(&error, 0, sizeof error);
  const agr_status status = driver.api->take(driver.self, &bucket, 1, 5 * second, &refused, &error);
  if (out_level) *out_level = bucket.level;
  return status;
}

/* Opens, takes once, closes; the answer. */
static agr_status try_config(const agr_redis_config *config) {
  agr_store_driver driver = open_driver(config);
  const agr_status status = take_from(driver, "tries", NULL);
  driver.api->destroy(driver.self);
  return status;
}

static void passwords_and_users(void) {
  redis_server server = {.options = {"--requirepass", "secret"}};
  start_server(&server);
  agr_redis_config config = config_of(address_of(&server));
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "no password");
  CHECK(strstr(error.message, "NOAUTH"));
  config.password = "wrong";
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "wrong password");
  CHECK(strstr(error.message, "WRONGPASS"));
  config.password = "secret";
  CHECK_EQUAL(try_config(&config), AGR_OK, "password");
  agr_store_driver driver = open_driver(&config);
  redisContext *context = redisConnect("127.0.0.1", server.port);
  freeReplyObject(redisCommand(context, "AUTH secret"));
  freeReplyObject(redisCommand(context, "ACL SETUSER gate on >door ~agr:* +@all -@dangerous"));
  freeReplyObject(redisCommand(context, "ACL SETUSER weak on >door ~other:* +@all"));
  config.user = "gate";
  config.password = "door";
  CHECK_EQUAL(try_config(&config), AGR_OK, "user");
  config.user = "weak";
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "a user who may not");
  CHECK(strstr(error.message, "NOPERM") || strstr(error.message, "permission"));
  config.prefix = "other";
  CHECK_EQUAL(try_config(&config), AGR_OK, "a prefix that the user may");
  redisFree(context);
  driver.api->destroy(driver.self);
  end_server(&server);
}

static void sockets_and_databases(void) {
  redis_server server = {.options = {"--unixsocket", "sock"}};
  char path[160];
  int64_t level;
  start_server(&server);
  snprintf(path, sizeof path, "unix:%s/sock", server.directory);
  agr_redis_config config = config_of(path);
  agr_store_driver driver = open_driver(&config);
  CHECK(take_from(driver, "here", &level) == AGR_OK && level == 999);
  CHECK(take_from(driver, "here", &level) == AGR_OK && level == 998);
  config = config_of(address_of(&server));
  config.database = 3;
  agr_store_driver third = open_driver(&config);
  CHECK(take_from(third, "here", &level) == AGR_OK && level == 999);
  config.database = 999999;
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "no such database");
  driver.api->destroy(driver.self);
  third.api->destroy(third.self);
  end_server(&server);
}

static void make_certificates(const char *directory) {
  char command[2048];
  snprintf(command, sizeof command,
           "cd '%s' && exec >/dev/null 2>&1 && "
           "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt && "
           "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt && "
           "for n in server client; do openssl req -newkey rsa:2048 -nodes -subj /CN=$n -keyout $n.key -out $n.csr && "
           "printf 'subjectAltName=IP:127.0.0.1' > $n.ext && "
           "openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $n.ext -out $n.crt "
           "|| exit 1; done",
           directory);
  if (system(command) != 0) give_up("openssl");
}

static void behind_tls(void) {
  redis_server server = {0};
  char tls_port[16], ca[160], other[160], certificate[160], key[160];
  strcpy(server.directory, "/tmp/agr-redis-XXXXXX");
  if (!mkdtemp(server.directory)) give_up("mkdtemp");
  make_certificates(server.directory);
  server.port = free_port();
  snprintf(tls_port, sizeof tls_port, "%d", server.port);
  const char *options[] = {"--port", "0", "--tls-port", tls_port, "--tls-cert-file", "server.crt",
                           "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"};
  for (unsigned i = 0; i < sizeof options / sizeof *options; ++i) server.options[i] = options[i];
  start_server(&server);
  snprintf(ca, sizeof ca, "%s/ca.crt", server.directory);
  snprintf(other, sizeof other, "%s/other.crt", server.directory);
  snprintf(certificate, sizeof certificate, "%s/client.crt", server.directory);
  snprintf(key, sizeof key, "%s/client.key", server.directory);
  agr_redis_config config = config_of(address_of(&server));
  config.tls = 1;
  config.ca_file = ca;
  config.certificate_file = certificate;
  config.key_file = key;
  CHECK_EQUAL(try_config(&config), AGR_OK, "TLS");
  config.ca_file = other;
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "an authority that is not the server's");
  CHECK(strstr(error.message, "TLS"));
  config.ca_file = ca;
  char name[64];
  snprintf(name, sizeof name, "localhost:%d", server.port);
  config.address = name;
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "a name that is not the certificate's");
  config.verify = 0;
  CHECK_EQUAL(try_config(&config), AGR_OK, "unless that is not asked");
  config = config_of(address_of(&server));
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "without TLS");
  agr_store_driver driver;
  config.tls = 1;
  config.ca_file = "/nonexistent";
  CHECK(agr_redis_open(&config, &driver, &error) == AGR_ERR_ARGUMENT && !strcmp(error.field, "ca_file"));
  config.ca_file = ca;
  config.certificate_file = certificate;
  config.key_file = ca;
  CHECK(agr_redis_open(&config, &driver, &error) == AGR_ERR_ARGUMENT && !strcmp(error.field, "key_file"));
  end_server(&server);
}

/* ---- a cluster ---- */

static void on_a_cluster(void) {
  redis_server nodes[NODES];
  start_cluster(nodes);
  agr_redis_config config = config_of(address_of(&nodes[0]));
  agr_store_driver driver = open_driver(&config);
  int64_t level;
  /* Objects lie in slots of all three. */
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 60; ++i) {
      char space[32];
      snprintf(space, sizeof space, "object-%d", i);
      CHECK_EQUAL(take_from(driver, space, &level), AGR_OK, space);
      CHECK_EQUAL(level, 999 - round, space);
    }
  }
  for (int i = 0; i < NODES; ++i) {
    redisReply *reply = TELL(nodes[i].port, "DBSIZE");
    CHECK(reply->integer > 0 && reply->integer < 60);
    freeReplyObject(reply);
  }
  /* Buckets of two objects are in two slots. */
  agr_store_bucket two[2] = {{.key = {"a", 1, NULL, 0}, .capacity = 1, .refill_tokens = 1, .interval_ns = 1},
                             {.key = {"b", 1, NULL, 0}, .capacity = 1, .refill_tokens = 1, .interval_ns = 1}};
  uint32_t refused;
  CHECK_EQUAL(driver.api->take(driver.self, two, 2, second, &refused, &error), AGR_ERR_ARGUMENT, "slots");
  CHECK(!strcmp(error.field, "buckets"));
  two[1].key = (agr_store_key){"a", 1, "b", 1};
  CHECK_EQUAL(driver.api->take(driver.self, two, 2, second, &refused, &error), AGR_OK, "one object");
  /* A slot on its way: what is there already is asked for where it goes. */
  redisReply *slot_reply = TELL(nodes[0].port, "CLUSTER", "KEYSLOT", "{moving}");
  char slot[16];
  snprintf(slot, sizeof slot, "%lld", slot_reply->integer);
  freeReplyObject(slot_reply);
  CHECK(take_from(driver, "moving", &level) == AGR_OK && level == 999);
  int from = -1, to;
  char ids[NODES][64];
  for (int i = 0; i < NODES; ++i) {
    redisReply *id = TELL(nodes[i].port, "CLUSTER", "MYID");
    snprintf(ids[i], sizeof ids[i], "%s", id->str);
    freeReplyObject(id);
    redisReply *count = TELL(nodes[i].port, "CLUSTER", "COUNTKEYSINSLOT", slot);
    if (count->integer > 0) from = i;
    freeReplyObject(count);
  }
  CHECK(from >= 0);
  to = (from + 1) % NODES;
  told(TELL(nodes[to].port, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from]));
  told(TELL(nodes[from].port, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]));
  char port[16];
  snprintf(port, sizeof port, "%d", nodes[to].port);
  told(TELL(nodes[from].port, "MIGRATE", "127.0.0.1", port, "agr:bucket:{moving}:k", "0", "1000"));
  CHECK(take_from(driver, "moving", &level) == AGR_OK && level == 998);
  CHECK(take_from(driver, "moving", &level) == AGR_OK && level == 997);
  for (int i = 0; i < NODES; ++i) told(TELL(nodes[i].port, "CLUSTER", "SETSLOT", slot, "NODE", ids[to]));
  CHECK(take_from(driver, "moving", &level) == AGR_OK && level == 996);
  driver.api->destroy(driver.self);
  /* Another server of the cluster does as well as the first. */
  config = config_of(address_of(&nodes[2]));
  driver = open_driver(&config);
  CHECK(take_from(driver, "moving", &level) == AGR_OK && level == 995);
  driver.api->destroy(driver.self);
  end_cluster(nodes);
}

/* ---- a sentinel ---- */

static void start_sentinel(redis_server *sentinel, const redis_server *master) {
  char path[120], port[16];
  strcpy(sentinel->directory, "/tmp/agr-redis-XXXXXX");
  if (!mkdtemp(sentinel->directory)) give_up("mkdtemp");
  snprintf(path, sizeof path, "%s/sentinel.conf", sentinel->directory);
  sentinel->port = free_port();
  snprintf(port, sizeof port, "%d", sentinel->port);
  FILE *file = fopen(path, "w");
  if (!file) give_up(path);
  fprintf(file,
          "bind 127.0.0.1\nport %s\ndir %s\nlogfile log\nsentinel monitor main 127.0.0.1 %d 1\n"
          "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n",
          port, sentinel->directory, master->port);
  fclose(file);
  sentinel->pid = fork();
  if (sentinel->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("redis-server", "redis-server", path, "--sentinel", (char *)NULL);
    _exit(127);
  }
  for (int tries = 0; !is_open(sentinel->port); ++tries) {
    if (tries > 5000 || sentinel->pid < 0) give_up("the sentinel does not start");
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
}

/* Until INFO of the server says so. */
static int says(int port, const char *section, const char *text) {
  for (int i = 0; i < 10000; ++i) {
    redisReply *reply = TELL(port, "INFO", section);
    const int said = reply->type == REDIS_REPLY_STRING && strstr(reply->str, text);
    freeReplyObject(reply);
    if (said) return 1;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  return 0;
}

static void behind_a_sentinel(void) {
  redis_server master = {0}, replica = {0}, sentinel = {0};
  char of[32], addresses[80];
  int64_t level = 0;
  start_server(&master);
  snprintf(of, sizeof of, "127.0.0.1 %d", master.port);
  replica.options[0] = "--replicaof";
  replica.options[1] = of;
  start_server(&replica);
  CHECK(says(replica.port, "replication", "master_link_status:up"));
  start_sentinel(&sentinel, &master);
  CHECK(says(sentinel.port, "sentinel", "slaves=1"));
  /* The first sentinel is not there. */
  snprintf(addresses, sizeof addresses, "127.0.0.1:%d,127.0.0.1:%d", free_port(), sentinel.port);
  agr_redis_config config = config_of(addresses);
  config.sentinel = "main";
  agr_store_driver driver = open_driver(&config);
  CHECK(take_from(driver, "kept", &level) == AGR_OK && level == 999);
  CHECK(says(master.port, "replication", "lag=0") || says(master.port, "replication", "lag=1"));
  stop_server(&master);
  int tries = 0;
  while (take_from(driver, "kept", &level) != AGR_OK && ++tries < 3000)
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  CHECK(level == 998 || level == 999);
  CHECK(says(replica.port, "replication", "role:master"));
  /* The old master comes back as what it thinks it is, and is not taken for it. */
  driver.api->destroy(driver.self);
  config.sentinel = "unknown";
  CHECK_EQUAL(try_config(&config), AGR_ERR_STORE, "no such master");
  end_server(&master);
  end_server(&replica);
  end_server(&sentinel);
}

int main(void) {
  passwords_and_users();
  sockets_and_databases();
  behind_tls();
  on_a_cluster();
  behind_a_sentinel();
  return finish();
}
