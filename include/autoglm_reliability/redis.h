/* SPDX-License-Identifier: Apache-2.0
 * A store on a Redis or Valkey server, shared by processes on any number of machines.
 * In libautoglm_reliability_redis.so, which needs libhiredis and OpenSSL and not the library itself.
 * Conventions: autoglm_reliability.h.
 *
 *   agr_redis_config config;
 *   agr_redis_config_init(&config, sizeof config);
 *   config.address = "cache.internal:6379";
 *   agr_store_driver driver;
 *   agr_store *store;
 *   if (agr_redis_open(&config, &driver, &error) == AGR_OK &&
 *       agr_store_create(&driver, NULL, &store, &error) == AGR_OK) ...
 *
 * It offers everything that a store can: buckets, idempotency, leases, breaker state. Each call is
 * one script, which the server runs as one, in one round trip. For servers with Redis's commands of
 * version 6.2 or later, alone, with replicas behind Sentinel, or as a cluster; tested with 7.0.
 *
 * Links    are shared: what threads ask for at a time goes out together, and answers come back in
 *          turn. They are made when they are needed, and again after a failure, at first at once and
 *          then after growing pauses, in which calls fail at once, saying why.
 * Keys     are PREFIX:GROUP:{SPACE}:KEY, where SPACE is the object's name, so that all keys of one object are
 *          in one slot of a cluster. Of a name with a tag of its own they are PREFIX:GROUP:SPACE:KEY, and the
 *          slot is the tag's, by the rule of Redis Cluster: objects whose names share a tag are in one slot.
 *          Buckets that are taken as one must be: else the call answers AGR_ERR_ARGUMENT.
 * Time     is the server's. When its clock steps back, no bucket waits longer than it takes to
 *          refill, and leases last longer by as much as it stepped; when it steps on, buckets
 *          refill and leases end early.
 * Loss     A server that restarts empty, or a replica that takes over without the last writes, has
 *          forgotten: buckets are full, leases and results are gone. Fences still grow, for they
 *          begin at the server's time in microseconds. Where a result must not be lost, use a
 *          durable store.
 * Fork     A child opens connections of its own. */
#ifndef AUTOGLM_RELIABILITY_REDIS_H
#define AUTOGLM_RELIABILITY_REDIS_H

#include "store_driver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Texts are copied. A NULL text is the default. */
typedef struct agr_redis_config {
  uint32_t struct_size;
  uint32_t connections;       /* to each server, 1 ... 64; default 2 */
  const char *address;        /* "host", "host:port", "[v6]:port", "unix:/path", or up to 16 of them with
                                 commas between: servers of a cluster, or the sentinels. 1 ... 1023
                                 bytes; default "127.0.0.1:6379" */
  const char *sentinel;       /* the name of the master that sentinels at `address` watch; default: none,
                                 `address` is the server */
  const char *user;           /* of an access control list; default: the server's default user */
  const char *password;       /* default: none */
  const char *sentinel_user, *sentinel_password; /* the same, of the sentinels */
  const char *prefix;         /* of all keys, 1 ... 63 bytes of A-Z a-z 0-9 . _ -; default "agr" */
  const char *ca_file;        /* TLS: authorities in PEM; default: the system's */
  const char *certificate_file, *key_file; /* TLS: of the client, in PEM; both or none */
  uint32_t tls;               /* 1: TLS 1.2 or later, also to sentinels and other servers of a cluster;
                                 default 0 */
  uint32_t verify;            /* TLS, 1: the server's certificate must be good and of its host name;
                                 default 1 */
  uint32_t database;          /* 0 ... 1,000,000; a cluster has only 0; default 0 */
  uint32_t reserved;          /* 0 */
  int64_t connect_timeout_ns; /* within the time of the call, 1 ms ... 1 h; default 1 s */
  uint64_t max_result_bytes;  /* 0 ... 2^29 - 1; runs that may have larger ones do not begin; default 16 MiB */
} agr_redis_config;

void agr_redis_config_init(agr_redis_config *config, uint32_t struct_size);

/* Makes the driver; nothing is asked of a server yet. out_driver is for agr_store_create, which
 * takes it over; else it is to be destroyed by its own `destroy`.
 * Errors  AGR_ERR_ARGUMENT: of the configuration, files of TLS among it; AGR_ERR_NO_MEMORY. */
agr_status agr_redis_open(const agr_redis_config *config, agr_store_driver *out_driver,
                          agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
