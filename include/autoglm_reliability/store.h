/* SPDX-License-Identifier: Apache-2.0
 * Stores: where the state of objects lies when it is shared by processes or machines, or is to outlive
 * them. A driver comes from a plug-in or from a program of one's own (store_driver.h), agr_store_create
 * makes a store of it, and objects are created in the store. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_STORE_H
#define AUTOGLM_RELIABILITY_STORE_H

#include "breaker.h"
#include "common.h"
#include "idempotency.h"
#include "limiter.h"
#include "store_driver.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A driver, with a breaker in front of it: when calls of the driver have failed several times in a row,
 * further ones fail at once, and one at a time is let through to see whether the store is back. Objects
 * that were created in a store hold it alive. */
typedef struct agr_store agr_store;

/* What an object does when its store fails. */
enum {
  AGR_STORE_DEFAULT = 0, /* objects only: as the store's configuration says */
  AGR_STORE_REFUSE = 1,  /* fail closed: the call ends with AGR_ERR_STORE, and nothing begins */
  AGR_STORE_ADMIT = 2,   /* fail open: the call is let through, and nothing is remembered of it */
  AGR_STORE_LOCAL = 3    /* this process alone goes on: a cache in memory, a local bucket of a stated share */
};

typedef struct agr_store_config {
  uint32_t struct_size;
  int32_t on_error;        /* AGR_STORE_REFUSE ... LOCAL, of objects that do not say; default REFUSE */
  int64_t timeout_ns;      /* of a call of the driver, 1 ns ... AGR_TIME_MAX_NS; default 1 s */
  uint32_t max_failures;   /* in a row, after which calls fail at once, 1 ... 1,000,000; 0: never; default 5 */
  uint32_t max_calls;      /* of the driver at a time, 1 ... 1,048,576; more fail at once;
                              default 4096; 24 bytes each */
  int64_t open_ns;         /* the first time for so long, 1 ns ... AGR_TIME_MAX_NS; default 100 ms */
  int64_t open_max_ns;     /* doubled each time, up to, open_ns ... AGR_TIME_MAX_NS; default 5 s */
} agr_store_config;

void agr_store_config_init(agr_store_config *config, uint32_t struct_size);

/* Makes a store of a driver, which is copied, and takes it over: its `destroy` is called when the
 * store has been destroyed and the last object in it has gone. When this fails, the driver is still
 * the caller's.
 *
 * config   NULL: the defaults.
 * Errors   AGR_ERR_ARGUMENT (field "api" when the driver's table is not whole); AGR_ERR_NO_MEMORY.
 * Nothing is asked of the store yet: agr_store_ping does that. Allocates. */
agr_status agr_store_create(const agr_store_driver *driver, const agr_store_config *config,
                            agr_store **out_store, agr_error *error);
void agr_store_destroy(agr_store *store);

/* The name that the driver gives itself, such as "sqlite"; "" for what is not a store. As long as the
 * store. */
const char *agr_store_name(const agr_store *store);

/* Asks the store whether it is there, whatever its breaker says; an answer closes the breaker.
 * timeout_ns  0: as configured; else 1 ns ... AGR_TIME_MAX_NS.
 * Answers     AGR_OK.  Errors  AGR_ERR_ARGUMENT; AGR_ERR_STORE, with what the driver says.
 * Blocks, for timeout_ns at the longest. */
agr_status agr_store_ping(agr_store *store, int64_t timeout_ns, agr_error *error);

typedef struct agr_store_snapshot {
  uint32_t struct_size;
  int32_t state;            /* of the breaker, AGR_BREAKER_CLOSED ... */
  uint64_t calls;           /* of the driver */
  uint64_t failures;        /* of these calls */
  uint64_t refused;         /* calls that failed at once */
  uint64_t fallbacks;       /* what objects then admitted, or did locally */
  int64_t retry_after_ns;   /* OPEN: until a call is let through */
} agr_store_snapshot;

/* Errors  AGR_ERR_ARGUMENT. */
agr_status agr_store_snapshot_read(const agr_store *store, agr_store_snapshot *out_snapshot,
                                   agr_error *error);

/* How an object lies in a store. */
typedef struct agr_store_options {
  uint32_t struct_size;
  int32_t on_error;          /* AGR_STORE_DEFAULT ... LOCAL; default DEFAULT */
  int64_t timeout_ns;        /* of a call of the driver, 1 ns ... AGR_TIME_MAX_NS; 0: the store's;
                                default 0 */
  uint64_t max_result_bytes; /* idempotency: of a result, 0 ... 2^30; what can be larger is refused
                                before work begins; default 1 MiB */
  double local_share;        /* LOCAL: of a bucket's capacity and rate, above 0 ... 1; default 0.1 */
  int64_t lease_tokens;      /* limiter: so many tokens more than a call needs are taken with it, for the
                                next calls of this process, 0 ... capacity; default 0 */
  int64_t sync_ns;           /* breaker: how often the shared state is looked at, 1 ms ... 1 h; default
                                100 ms */
} agr_store_options;

void agr_store_options_init(agr_store_options *options, uint32_t struct_size);

/* ---- objects in a store ---- */

/* An idempotency cache whose keys lie in the store: all the functions of idempotency.h, for the callers of
 * all processes that create one of this name. In front of it is a cache of this process, as `config`
 * describes: callers of this process that join a run of this process wait for it without asking the store,
 * and a result is replayed from memory for as long as it is there. Results leave memory first when that is
 * full, whatever `when_full` says: they are in the store.
 *
 * What is different:
 * - begin, join, poll, wait and the ends of a lease wait for the store, for the options' timeout_ns at the
 *   longest; if the first call fails sooner than that it is made once more. A wait that is asking the store
 *   when its own timeout ends has its answer first.
 * - A run of another process is AGR_IN_PROGRESS. Whoever has joined it waits, and the store is asked from
 *   time to time (after 2 ms, then ever less often, at the most each 250 ms) by one of them. A poll asks when
 *   the time that it was told has passed; an eventfd does not tell of a result of another process.
 * - A lease's `fence` is the store's, larger with each run of the key, in whichever process. 0: the store
 *   failed, and the run is not in it (on_error).
 * - A process that ends between begin and complete leaves its lease behind. When that has ended, the next who
 *   begins gets AGR_OK with outcome_unknown, and agr_idempotency_lost_fence tells the fence of the lost run.
 * - renew answers AGR_OK when the store has renewed the lease. With AGR_ERR_STORE it lasts as long as it did
 *   before, and renewing may be tried again until then.
 * - complete answers AGR_OK when the result is in the store. With AGR_ERR_STORE the lease is still held: it
 *   may be completed again. A result longer than max_result_bytes is AGR_ERR_NEVER_FITS, and a store that
 *   cannot keep results of that length refuses to begin.
 * - on_error, for a begin that the store does not answer: REFUSE, AGR_ERR_STORE; ADMIT: AGR_OK, the run's
 *   result goes to those who joined and is then forgotten; LOCAL: AGR_OK, the result is kept by this process
 *   as if there were no store.
 *
 * name     of the object, the same in all processes: 1 ... 63 characters A-Z a-z 0-9 . _ - of which some, but
 *          not all, may stand in one pair of braces, as in requests{tenant-7}: a tag. On a cluster objects whose
 *          names have the same tag lie on the same server.
 * options  NULL: the defaults.
 * Errors   AGR_ERR_ARGUMENT, field "store": it does not offer idempotency; AGR_ERR_NO_MEMORY.
 * Nothing is asked of the store yet. Allocates as agr_idempotency_create, and 40 bytes an entry. */
agr_status agr_idempotency_create_in_store(agr_store *store, const char *name,
                                           const agr_idempotency_config *config,
                                           const agr_store_options *options,
                                           agr_idempotency **out_cache, agr_error *error);

/* A limiter whose bucket lies in the store: all the functions of limiter.h for one bucket, for the callers of
 * all processes that create one of this name. Processes should agree on the configuration; the store goes by
 * that of the call, and keeps the level.
 *
 * What is different:
 * - Each decision is one round trip, and waits for the store, for the options' timeout_ns at the longest; a
 *   reservation that accepts a wait, or a refund, may need a second one.
 * - With lease_tokens a call that must ask takes that many more, and the calls that follow spend them without
 *   asking. They are taken from the shared bucket first, so that no token is promised twice; but they may be
 *   spent later than the bucket has refilled. In any window of t ns all processes together are admitted at
 *   most capacity + t * refill_tokens / refill_interval_ns + processes * lease_tokens; a process that ends
 *   without destroying the limiter loses what it had leased. A refusal then stands for all calls of this
 *   process that ask for as much, for retry_after_ns but not longer than 100 ms. One thread asks at a time.
 * - The time is the store's: now_ns of an _at function is only that of this process's reservations, which lie
 *   in this process. Tokens given back beyond lease_tokens go to the store.
 * - on_error, when the store does not answer: REFUSE, AGR_ERR_STORE; ADMIT: admitted; LOCAL: by a bucket of
 *   this process that has local_share of capacity and rate (of a call for more than that, when it is full).
 * - The functions for several limiters take limiters that are all in one store, and ask it once for all of
 *   them, for their whole cost: what this process has leased is not looked at, and nothing is leased. If one
 *   of them is to REFUSE without the store, all do. On a cluster their names must have one tag, as
 *   requests{tenant-7} and tokens{tenant-7} have; else AGR_ERR_ARGUMENT, field "demands.limiter".
 * - _available asks the store; a snapshot's `available` is what this process holds. Not _reconfigure
 *   (AGR_ERR_STATE).
 *
 * config   capacity and refill_tokens 1 ... 2^40, initial_tokens -1 or the capacity.
 * options  NULL: the defaults.
 * Errors   AGR_ERR_ARGUMENT, field "store": it does not offer buckets; AGR_ERR_NO_MEMORY. Nothing
 *          is asked of the store yet. */
agr_status agr_limiter_create_in_store(agr_store *store, const char *name,
                                       const agr_limiter_config *config,
                                       const agr_store_options *options,
                                       agr_limiter **out_limiter, agr_error *error);

/* A limiter whose keys have their buckets in the store: all the functions of keyed_limiter, for the callers
 * of all processes that create one of this name. As agr_limiter_create_in_store, except:
 * - Each decision is one round trip: nothing is leased. The store keeps the keys as they are, for as long as
 *   their buckets are not full, and is what bounds their number.
 * - A reservation keeps a copy of its key in this process.
 * - max_keys and when_full are of the buckets that this process has for LOCAL. A snapshot counts this
 *   process's calls and reservations. seed is not looked at. Not _reconfigure (AGR_ERR_STATE). */
agr_status agr_keyed_limiter_create_in_store(agr_store *store, const char *name,
                                             const agr_keyed_limiter_config *config,
                                             const agr_store_options *options,
                                             agr_keyed_limiter **out_limiter, agr_error *error);

/* A breaker whose state is shared through the store: all the functions of breaker.h, for the callers of all
 * processes that create one of this name.
 *
 * What is different:
 * - Each process counts its own calls, and trips by them. Whichever opens or closes tells the store; the
 *   others take it over when they look, each sync_ns, one thread at a time, in an acquire. Such an acquire,
 *   and the report or acquire that changes the state, waits for the store, for the options' timeout_ns at the
 *   longest; no other call does. A change that a policy's call had not the time to tell is told by a later one,
 *   after sync_ns at the earliest.
 * - Half-open, the process that asks first has the probes, for open_ns and as long as it asks again; in all
 *   others an acquire is AGR_OPEN.
 * - When the store fails the breaker goes on by what it knows, and so does each process by itself: on_error
 *   is not looked at. A store that has lost its data changes nothing.
 * - _force, _snapshot and events are of this process.
 *
 * config, options, Errors  as agr_limiter_create_in_store; field "store": it does not offer breaker
 * state. */
agr_status agr_breaker_create_in_store(agr_store *store, const char *name,
                                       const agr_breaker_config *config,
                                       const agr_store_options *options,
                                       agr_breaker **out_breaker, agr_error *error);

/* The fence of the run that was lost before the one with this lease; 0: none was.
 * Answers  AGR_OK; AGR_STALE.  Errors  AGR_ERR_ARGUMENT: also for a cache that is in no store. */
agr_status agr_idempotency_lost_fence(const agr_idempotency *cache, uint64_t lease_id,
                                      uint64_t *out_fence, agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
