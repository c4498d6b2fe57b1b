/* SPDX-License-Identifier: Apache-2.0
 * What a store is made of: the functions that a driver gives, for those who write one. A plug-in, such as
 * the one for SQLite, is a library with such a driver, which sees this header and nothing else of the
 * library; a program can have one of its own. examples/c/file_store.c is a small one, and
 * Tests/store/conformance.c checks one against all that is said here. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_STORE_DRIVER_H
#define AUTOGLM_RELIABILITY_STORE_DRIVER_H

#include "breaker.h"
#include "common.h"
#include "idempotency.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rules for every function below.
 *
 * Threads.    Any function may be called from any thread, at the same time as any other, except `destroy`,
 *             which is the last.
 * Time.       `timeout_ns` is how long the function may take, all waiting included, 1 ns ...
 *             AGR_TIME_MAX_NS; when it is over the function answers AGR_ERR_STORE. All times that are
 *             kept (leases, times to live, levels) are durations from now on the store's own clock, which is
 *             one for all who share it and should not jump: a server's for a server, CLOCK_BOOTTIME for a
 *             file. Durations are 1 ns ... AGR_TIME_MAX_NS; a store with a coarser clock rounds up.
 * Status.     AGR_OK and the answers that a function's block names; AGR_ERR_STORE when the store failed or
 *             could not be reached, AGR_ERR_NO_MEMORY, AGR_ERR_ARGUMENT, AGR_ERR_NEVER_FITS (a key or
 *             a result that this store could never keep), AGR_ERR_CAPACITY (full now). Any other
 *             number is taken for AGR_ERR_STORE.
 * Errors.     `error` is never NULL and zero before. With an error the driver writes a `message`, and in
 *             `field` what was at fault if it is not the store itself; the rest is filled in by the caller.
 * Atomicity.  A function does all that it says, or nothing, also when the process or the machine
 *             stops in it. After AGR_ERR_STORE it is unknown which; functions therefore bear being
 *             repeated, as their blocks say, and the caller repeats them.
 * Memory.     Inputs are the caller's and good until the function returns. Outputs are zero before, and
 *             written with the answers that their block names. Bytes go out through a sink: the driver
 *             asks it for room and copies them there; no memory ever changes hands.
 * Fork.       A child that calls a function must not disturb the parent's connection: the driver notices
 *             (by the process id), and opens one of its own or answers AGR_ERR_STORE.
 * Removal.    What has expired is as if it were not there; the store removes it by and by. */

/* What a piece of state is called: the name of the object that it belongs to, and a key within it. Objects of
 * different groups (buckets, idempotency, leases, breakers) do not see each other's keys. */
typedef struct agr_store_key {
  const void *space; /* 1 ... 63 bytes of A-Z a-z 0-9 . _ -, of which some, but not all, may stand in one
                        pair of braces {} */
  size_t space_length;
  const void *data;  /* any bytes; NULL only with length 0 */
  size_t length;     /* 0 ... 1,048,576; a store that cannot answers AGR_ERR_NEVER_FITS */
} agr_store_key;

/* Room for `length` bytes, for the driver to copy them to before it returns; NULL when there is none:
 * the driver then answers AGR_ERR_NO_MEMORY. length may be 0, and then what it returns is not NULL, and not
 * to be written to. Called for the answer AGR_REPLAY, by any thread, before the driver's function returns; a
 * driver that has to begin anew may call it again, and the last room is what counts. */
typedef void *(*agr_store_reserve)(void *context, size_t length);

typedef struct agr_store_sink {
  agr_store_reserve reserve;
  void *context;
} agr_store_sink;

/* -- health -- */

/* Asks for a sign of life.  Answers  AGR_OK. */
typedef agr_status (*agr_store_ping_fn)(void *self, int64_t timeout_ns, agr_error *error);

/* Frees everything, in the child of a fork only what is the child's. */
typedef void (*agr_store_destroy_fn)(void *self);

/* -- idempotency -- */

/* A run that asks to begin. */
typedef struct agr_store_run {
  agr_store_key key;
  uint64_t fingerprint[2]; /* of the request; both 0: not checked. A row keeps that of its first run. */
  uint64_t owner[2];       /* drawn afresh for this run, so that it can be told from all others */
  int64_t lease_ns;        /* how long it may run without renewing */
  int64_t ttl_ns;          /* how long it is kept that a run was lost, after its lease ended */
  uint64_t result_bytes;   /* the most that its result may have */
} agr_store_run;

/* The answer: what is known of the key. */
typedef struct agr_store_run_state {
  uint64_t fence;           /* AGR_OK: of this run; AGR_IN_PROGRESS, AGR_REPLAY: of the other's */
  uint64_t lost_fence;      /* AGR_OK with outcome_unknown: of the last run that was lost */
  int64_t remaining_ns;     /* AGR_OK, AGR_IN_PROGRESS: of the lease; AGR_REPLAY: of the time to live */
  int64_t retry_after_ns;   /* AGR_IN_PROGRESS: a hint when to ask again; 0: none */
  uint32_t outcome_unknown; /* AGR_OK: 1 when an earlier run was lost or abandoned, and its effects are not
                               known */
  int32_t state;            /* AGR_REPLAY: AGR_KEY_SUCCESS or AGR_KEY_FAILED */
} agr_store_run_state;

/* Asks to execute a key. A key that is unknown, or whose result has expired, begins. One whose lease
 * has expired begins too, with outcome_unknown and the lost_fence, and this remains known until a run
 * of the key has ended with a result, or ttl_ns after the last lease ended.
 *
 * Fences grow: each is larger than every one that the store ever gave for the key, also after the key was
 * removed, and if possible after the store lost its data (begin at the time in microseconds).
 * Answers  AGR_OK: it runs; AGR_IN_PROGRESS: another run does; AGR_REPLAY: it has a result, which went into
 *          the sink; AGR_MISMATCH: both fingerprints are given and differ.
 * Errors   AGR_ERR_NEVER_FITS: of the key, or field "result_bytes": no result of that size can be kept.
 * Repeat   by the `owner` whose run it is: AGR_OK again, same fence and outcome_unknown, the lease as
 *          long as asked for. */
typedef agr_status (*agr_store_begin_fn)(void *self, const agr_store_run *run, int64_t timeout_ns,
                                         const agr_store_sink *sink, agr_store_run_state *out_state,
                                         agr_error *error);

/* What is known of a key, and changes nothing.
 * Answers  AGR_NOT_FOUND: nothing, or a run was lost or abandoned (then with lost_fence and
 *          outcome_unknown); AGR_IN_PROGRESS; AGR_REPLAY. */
typedef agr_status (*agr_store_read_fn)(void *self, const agr_store_key *key, int64_t timeout_ns,
                                        const agr_store_sink *sink, agr_store_run_state *out_state,
                                        agr_error *error);

/* Extends the lease of the run with this fence to lease_ns from now, if it has not expired.
 * Answers  AGR_OK; AGR_STALE: it has, or it ended.  Repeat  the same again. */
typedef agr_status (*agr_store_renew_fn)(void *self, const agr_store_key *key, uint64_t fence,
                                         int64_t lease_ns, int64_t ttl_ns, int64_t timeout_ns,
                                         agr_error *error);

/* Ends a run with its result, which is kept for ttl_ns.
 * state         AGR_KEY_SUCCESS or AGR_KEY_FAILED.
 * data, length  NULL only with length 0.
 * Answers       AGR_OK: it is kept, and durably as far as the store is; AGR_STALE: the lease has
 *               expired or ended: nothing was kept.
 * Errors        AGR_ERR_NEVER_FITS: longer than the result_bytes it began with, or than the store keeps; the
 *               lease is still held.
 * Repeat        by the fence whose result it is: AGR_OK, and the first result stays. */
typedef agr_status (*agr_store_complete_fn)(void *self, const agr_store_key *key, uint64_t fence,
                                            int32_t state, const void *data, size_t length,
                                            int64_t ttl_ns, int64_t timeout_ns, agr_error *error);

/* Ends a run without a result: the next who asks begins at once.
 * outcome_unknown  1: the run may have had effects, and the next is told, for ttl_ns. 0: it had none; the
 *                  key is forgotten, unless an earlier run was lost: then the next is told of that.
 * Answers          AGR_OK; AGR_STALE.  Repeat  AGR_OK or AGR_STALE, and nothing changes. */
typedef agr_status (*agr_store_give_back_fn)(void *self, const agr_store_key *key, uint64_t fence,
                                             uint32_t outcome_unknown, int64_t ttl_ns,
                                             int64_t timeout_ns, agr_error *error);

/* -- buckets -- */

enum {
  /* Takes the tokens even when they are not there: the level becomes negative. */
  AGR_STORE_MAY_OWE = 1
};

/* One of the buckets that are taken from, and then its answer. A bucket that is not known is full. One whose
 * capacity or rate is not what it was keeps its level, cut to the capacity. */
typedef struct agr_store_bucket {
  agr_store_key key;
  int64_t capacity;       /* 1 ... 2^40 tokens */
  int64_t refill_tokens;  /* 1 ... 2^40, each ... */
  int64_t interval_ns;    /* 1 ns ... AGR_TIME_MAX_NS; they come evenly, not all at its end */
  int64_t tokens;         /* -2^40 ... 2^40; negative: given back, up to the capacity; 0: only looks */
  int64_t least;          /* tokens > 0: is content with so many, 1 ... tokens, if there are not more;
                             else 0 */
  uint32_t flags;         /* AGR_STORE_MAY_OWE, or 0 */
  uint32_t reserved;      /* 0 */
  int64_t taken;          /* out, AGR_OK: least ... tokens, or tokens */
  int64_t level;          /* out: what is there, after the call; negative: owed */
  int64_t retry_after_ns; /* out, AGR_LIMITED: when `least` will be there; 0: is there */
} agr_store_bucket;

/* Takes from 1 ... 4 different buckets as one, by the store's clock: from all or from none.
 * out_refused  AGR_LIMITED: the first that has not enough; else 0.
 * Answers      AGR_OK; AGR_LIMITED.  Errors  AGR_ERR_NEVER_FITS: least > capacity, without MAY_OWE;
 *              AGR_ERR_ARGUMENT, field "buckets": they cannot be taken from as one.
 * Repeat       takes again: the caller does not repeat it. */
typedef agr_status (*agr_store_take_fn)(void *self, agr_store_bucket *buckets, uint32_t count,
                                        int64_t timeout_ns, uint32_t *out_refused,
                                        agr_error *error);

/* Whether buckets of these 1 ... 4 keys can be taken from as one: where keys are spread over servers, those
 * of spaces with the same bytes in braces lie together. Asks nobody and does not wait.
 * Answers  AGR_OK: they can, or that is not known yet; AGR_MISMATCH: `take` would be AGR_ERR_ARGUMENT. */
typedef agr_status (*agr_store_joins_fn)(void *self, const agr_store_key *keys, uint32_t count);

/* -- leases: concurrency permits, locks -- */

typedef struct agr_store_lease {
  agr_store_key key;
  uint64_t owner[2]; /* who holds it; drawn at random; not both 0 */
  uint32_t limit;    /* how many may hold one at a time, 1 ... 1,048,576; 1: a lock */
  uint32_t reserved; /* 0 */
  int64_t ttl_ns;    /* it ends by itself after that */
} agr_store_lease;

/* Takes a lease.
 * out_fence           AGR_OK: larger than every one given for the key before, as with a run.
 * out_retry_after_ns  AGR_LIMITED: when the next one ends by itself.
 * Answers             AGR_OK; AGR_LIMITED: `limit` or more are held.
 * Repeat              by an owner who holds one: AGR_OK, the same fence, ttl_ns from now. */
typedef agr_status (*agr_store_acquire_fn)(void *self, const agr_store_lease *lease,
                                           int64_t timeout_ns, uint64_t *out_fence,
                                           int64_t *out_retry_after_ns, agr_error *error);

/* Extends the owner's lease to ttl_ns from now, if it has not expired.
 * Answers  AGR_OK; AGR_STALE: it is not the owner's (any more).  Repeat  the same again. */
typedef agr_status (*agr_store_extend_fn)(void *self, const agr_store_lease *lease,
                                          int64_t timeout_ns, agr_error *error);

/* Ends the owner's lease; limit and ttl_ns are not looked at.  Answers  AGR_OK; AGR_STALE.
 * Repeat  AGR_STALE, and nothing changes. */
typedef agr_status (*agr_store_release_fn)(void *self, const agr_store_lease *lease,
                                           int64_t timeout_ns, agr_error *error);

/* -- breaker state -- */

/* The state that breakers share. */
typedef struct agr_store_breaker {
  uint64_t generation; /* of the state, grows by 1 with each change; 0: never set, closed */
  int32_t state;       /* AGR_BREAKER_CLOSED ... HALF_OPEN */
  uint32_t trips;      /* in a row */
  int64_t open_ns;     /* OPEN: in: to be open from now; out: what is left, 0 when it is over */
} agr_store_breaker;

/* What the state is.  Answers  AGR_OK; one that was never set, or has expired, is closed, generation 0. */
typedef agr_status (*agr_store_breaker_read_fn)(void *self, const agr_store_key *key,
                                                int64_t timeout_ns, agr_store_breaker *out_breaker,
                                                agr_error *error);

/* Sets the state, if its generation is still `desired->generation`, which then grows by one.
 * ttl_ns       it is forgotten when it has not been set for so long.
 * out_breaker  what it is after the call, with both answers.
 * Answers      AGR_OK: set; AGR_STALE: somebody else was faster.
 * Repeat       AGR_STALE, when it was set before. */
typedef agr_status (*agr_store_breaker_set_fn)(void *self, const agr_store_key *key,
                                               const agr_store_breaker *desired, int64_t ttl_ns,
                                               int64_t timeout_ns, agr_store_breaker *out_breaker,
                                               agr_error *error);

/* Claims the one probe of a half-open or no longer open state. The claim ends with the generation, or after
 * ttl_ns.
 * out_retry_after_ns  AGR_OPEN: until the claim, or the time it is open, ends.
 * Answers             AGR_OK: the probe is the owner's, who was the first; AGR_OPEN: still open, or
 *                     another is; AGR_STALE: the generation is another, or the state is closed.
 * Repeat              by the owner: AGR_OK, ttl_ns from now. */
typedef agr_status (*agr_store_probe_fn)(void *self, const agr_store_key *key, uint64_t generation,
                                         const uint64_t *owner, int64_t ttl_ns, int64_t timeout_ns,
                                         int64_t *out_retry_after_ns, agr_error *error);

/* A driver's functions. A group is given whole, or left NULL: then this store does not offer it, and to create
 * an object that needs it is an error which names the store. Static. A longer table is one of a later
 * version, whose further functions are not called; a shorter one must end between groups. */
typedef struct agr_store_api {
  uint32_t struct_size;          /* sizeof(agr_store_api) */
  uint32_t reserved;             /* 0 */
  const char *name;              /* "sqlite"; 1 ... 31 characters A-Z a-z 0-9 . _ - */
  agr_store_ping_fn ping;        /* required */
  agr_store_destroy_fn destroy;  /* required */
  agr_store_begin_fn begin;      /* idempotency */
  agr_store_read_fn read;
  agr_store_renew_fn renew;
  agr_store_complete_fn complete;
  agr_store_give_back_fn give_back;
  agr_store_take_fn take;        /* buckets */
  agr_store_acquire_fn acquire;  /* leases */
  agr_store_extend_fn extend;
  agr_store_release_fn release;
  agr_store_breaker_read_fn breaker_read; /* breaker state */
  agr_store_breaker_set_fn breaker_set;
  agr_store_probe_fn probe;
  agr_store_joins_fn joins; /* NULL: any buckets can be taken from as one */
} agr_store_api;

/* A store's own functions and data. Plain values. */
typedef struct agr_store_driver {
  const agr_store_api *api; /* must stay as it is until `destroy` was called */
  void *self;               /* handed to every function; may be NULL */
} agr_store_driver;

#ifdef __cplusplus
}
#endif
#endif
