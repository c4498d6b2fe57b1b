/* SPDX-License-Identifier: Apache-2.0
 * A cluster of three servers of the test's own, and commands to single servers. */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include <hiredis/hiredis.h>

#include "redis_server.h"

static inline redisReply *tell(int port, const char *const *words, int count) {
  redisContext *context = redisConnect("127.0.0.1", port);
  if (!context || context->err) give_up("hiredis");
  redisReply *reply = redisCommandArgv(context, count, (const char **)(uintptr_t)words, NULL);
  if (!reply) give_up("no reply");
  redisFree(context);
  return reply;
}

#define TELL(port, ...)                                                             \
  tell(port, (const char *const[]){__VA_ARGS__},                                    \
       (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

/* Does what must not fail. */
static inline void told(redisReply *reply) {
  if (reply->type == REDIS_REPLY_ERROR) give_up(reply->str);
  freeReplyObject(reply);
}

enum { NODES = 3 };

static inline void start_cluster(redis_server *nodes) {
  char command[400] = "redis-cli --cluster create";
  for (int i = 0; i < NODES; ++i) {
    nodes[i] = (redis_server){.options = {"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}};
    /* The cluster's own port is 10,000 above. */
    do nodes[i].port = free_port();
    while (nodes[i].port > 55000);
    start_server(&nodes[i]);
    snprintf(command + strlen(command), sizeof command - strlen(command), " 127.0.0.1:%d", nodes[i].port);
  }
  strcat(command, " --cluster-replicas 0 --cluster-yes >/dev/null");
  if (system(command) != 0) give_up("redis-cli --cluster create");
  for (int i = 0, good = 0; i < 10000 && good < NODES; ++i) {
    redisReply *reply = TELL(nodes[good].port, "CLUSTER", "INFO");
    good += strstr(reply->str, "cluster_state:ok") != NULL;
    freeReplyObject(reply);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
}

static inline void end_cluster(redis_server *nodes) {
  for (int i = 0; i < NODES; ++i) end_server(&nodes[i]);
}

#endif
