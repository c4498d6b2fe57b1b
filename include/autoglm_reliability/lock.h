/* SPDX-License-Identifier: Apache-2.0
 * Locks and semaphores for all who share a store. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_LOCK_H
#define AUTOGLM_RELIABILITY_LOCK_H

#include "common.h"
#include "store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Locks of one kind in a store: for each key, one holder at a time, or `limit` of them.
 *
 * A holder has its lock until it gives it back, or for ttl_ns after it was taken or renewed:
 * whoever is held up for longer has lost it, and another may have it. No clock helps against that;
 * a fence does. It is a number that is larger with each holder of a key; who is written to by
 * holders remembers the largest it has seen, and refuses smaller ones. For work that must merely
 * not be done twice at the same time by many, the lock alone is enough.
 *
 * Nobody ends another's hold: every hold has an owner value of its own, 128 random bits. on_error
 * and local_share of the options are not looked at: while the store does not answer, nobody gets a
 * lock. */
typedef struct agr_lock agr_lock;

typedef struct agr_lock_config {
  uint32_t struct_size;
  uint32_t limit;     /* holders of a key at a time, 1 ... 1,048,576; default 1. All processes should agree. */
  int64_t ttl_ns;     /* 1 ms ... AGR_TIME_MAX_NS; default 30 s */
} agr_lock_config;

void agr_lock_config_init(agr_lock_config *config, uint32_t struct_size);

/* name     of the locks, the same in all processes: 1 ... 63 characters A-Z a-z 0-9 . _ - and
 *          perhaps a {tag}, as store.h says
 * config   NULL: the defaults.
 * options  NULL: the defaults.
 * Errors   AGR_ERR_ARGUMENT, field "store": it does not offer leases; AGR_ERR_NO_MEMORY. Nothing is
 *          asked of the store yet. Allocates. */
agr_status agr_lock_create_in_store(agr_store *store, const char *name,
                                    const agr_lock_config *config,
                                    const agr_store_options *options, agr_lock **out_lock,
                                    agr_error *error);

/* Holds stay until their time is over. */
void agr_lock_destroy(agr_lock *lock);

/* What a holder has; plain values, which may be copied and sent to whoever is to renew or release it. */
typedef struct agr_lock_hold {
  uint64_t owner[2];
  uint64_t fence;
  int64_t until_ns; /* on CLOCK_MONOTONIC: until then it is held for certain, counted from before the store was
                       asked */
} agr_lock_hold;

/* Takes the lock of a key, or does not.
 *
 * key, key_length     0 ... 1,048,576 bytes, any; NULL only with 0.
 * out_hold            all zero unless AGR_OK.
 * out_retry_after_ns  nullable; with AGR_LIMITED, when the next holder's time is over.
 * Answers             AGR_OK; AGR_LIMITED: it is held.
 * Errors              AGR_ERR_ARGUMENT; AGR_ERR_STORE: nobody knows whether it was taken; what was
 *                     taken ends by itself.
 * Waits for the store, for the options' timeout_ns at the longest. */
agr_status agr_lock_try_acquire(agr_lock *lock, const void *key, size_t key_length,
                                agr_lock_hold *out_hold, int64_t *out_retry_after_ns,
                                agr_error *error);

/* The same, and waits until the lock is free, or timeout_ns are over. The store is asked from time
 * to time: after 1 ms, then ever less often, at the most each 250 ms, by chance sooner, and when a
 * holder's time ends. Whoever waits is not served in turn. It
 * is asked no more when the answer would come too late.
 * timeout_ns  0: as agr_lock_try_acquire; AGR_FOREVER: however long. */
agr_status agr_lock_acquire(agr_lock *lock, const void *key, size_t key_length,
                            int64_t timeout_ns, agr_lock_hold *out_hold, agr_error *error);

/* Extends a hold to ttl_ns from now.
 * hold     in and out.
 * Answers  AGR_OK; AGR_STALE: it has ended.  Errors  as agr_lock_try_acquire. */
agr_status agr_lock_renew(agr_lock *lock, const void *key, size_t key_length,
                          agr_lock_hold *hold, agr_error *error);

/* Ends a hold.  Answers  AGR_OK; AGR_STALE: it had ended before.  Errors  as agr_lock_try_acquire. */
agr_status agr_lock_release(agr_lock *lock, const void *key, size_t key_length,
                            const agr_lock_hold *hold, agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
