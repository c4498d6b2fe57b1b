/* SPDX-License-Identifier: Apache-2.0
 * Idempotency cache: one execution per key, its result for everybody who asks.
 * Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_IDEMPOTENCY_H
#define AUTOGLM_RELIABILITY_IDEMPOTENCY_H

#include "common.h"
#include "limiter.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A key is PROCESSING under a lease, then SUCCESS or FAILED for its time to live. Callers that come
 * meanwhile can join: they get the result when it is there; if the run fails and failures are
 * forgotten, the one who has waited longest, and no other, is promoted to run it again (PENDING until
 * it picks that up). A lease that expires is lost: the next caller gets a new one with a higher fence
 * and is told that the outcome of the earlier run is unknown; the late owner's result is refused.
 * Bounded in entries and bytes. Each operation holds one of several locks for a short, bounded time,
 * never while a caller executes. */
typedef struct agr_idempotency agr_idempotency;

enum {
  AGR_KEY_PENDING = 1,    /* known, and nobody is executing it */
  AGR_KEY_PROCESSING = 2, /* a lease is out */
  AGR_KEY_SUCCESS = 3,
  AGR_KEY_FAILED = 4
};

enum {
  AGR_ON_FAILURE_FORGET = 0, /* a failed key may be tried again at once */
  AGR_ON_FAILURE_KEEP = 1    /* the failure is the result, and is replayed */
};

typedef struct agr_idempotency_config {
  uint32_t struct_size;
  uint32_t max_entries;   /* 1 ... 2^26; default 65,536 */
  uint64_t max_bytes;     /* of keys and results, 1 ... 2^50; default 64 MiB */
  uint32_t max_key_bytes; /* 1 ... 1,048,576; default 255 */
  uint32_t max_waiters;   /* callers joined at a time, 0 ... 1,048,576; default 1024 */
  uint32_t max_pins;      /* results pinned at a time, 1 ... 1,048,576; default 4096 */
  int32_t when_full;      /* AGR_WHEN_FULL_REFUSE: new keys get AGR_ERR_CAPACITY; EVICT: completed keys
                             go, the oldest first (of those under the same lock); default REFUSE.
                             A key in progress is never evicted. */
  int32_t on_failure;     /* AGR_ON_FAILURE_*; default FORGET */
  uint32_t reserved;      /* 0 */
  int64_t ttl_ns;         /* how long a result is kept, and that an outcome is unknown, 1 ns ...
                             AGR_TIME_MAX_NS; default 24 h */
  int64_t lease_ns;       /* how long a caller may execute without renewing, or a promoted one may take
                             to pick its turn up, 1 ns ... AGR_TIME_MAX_NS; default 60 s */
  uint64_t seed;          /* of the hash (SipHash-1-3); 0: from the kernel; default 0 */
} agr_idempotency_config;

void agr_idempotency_config_init(agr_idempotency_config *config, uint32_t struct_size);

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates its tables: about 120 bytes an entry. */
agr_status agr_idempotency_create(const agr_idempotency_config *config,
                                  agr_idempotency **out_cache, agr_error *error);
void agr_idempotency_destroy(agr_idempotency *cache);

/* The right to execute a key. */
typedef struct agr_lease {
  uint64_t id;              /* for _complete, _fail, _renew; 0: none */
  uint64_t fence;           /* grows with every lease of the cache; hand it to what must refuse
                               late writers */
  int64_t expires_in_ns;    /* AGR_OK: of this lease; AGR_IN_PROGRESS: of the other's */
  uint32_t outcome_unknown; /* 1: an earlier run lost its lease and may have had effects */
  uint32_t reserved;
} agr_lease;

/* A result, pinned: `data` stays where it is, whatever becomes of the key, until
 * agr_idempotency_release, or until the cache is destroyed. */
typedef struct agr_result {
  const void *data; /* length bytes, 16-byte aligned; never NULL in a result, even with length 0 */
  size_t length;
  uint64_t pin;     /* for agr_idempotency_release; 0: none */
  int32_t state;    /* AGR_KEY_SUCCESS or AGR_KEY_FAILED */
  uint32_t reserved;
} agr_result;

/* Asks to execute a key.
 *
 * key, key_length   1 ... max_key_bytes bytes.
 * fingerprint, fingerprint_length  what the request consists of, so that the same key with another
 *                   request is noticed; 0 ... 2^30 bytes, hashed; of length 0: not checked.
 * out_lease         with AGR_OK the lease; with AGR_IN_PROGRESS only expires_in_ns; else zero.
 * out_result        with AGR_REPLAY the result, to be released; else zero.
 * Answers           AGR_OK: execute, then _complete or _fail; AGR_REPLAY; AGR_IN_PROGRESS;
 *                   AGR_MISMATCH.
 * Errors            AGR_ERR_ARGUMENT; AGR_ERR_CAPACITY: no place (field "max_entries",
 *                   "max_bytes", "max_pins"); AGR_ERR_NO_MEMORY.
 * Complexity        O(key_length + fingerprint_length), and O(max_pins) for a replay when nearly all
 *                   pins are out. Allocates when the answer is AGR_OK. */
agr_status agr_idempotency_begin(agr_idempotency *cache, const void *key, size_t key_length,
                                 const void *fingerprint, size_t fingerprint_length,
                                 agr_lease *out_lease, agr_result *out_result, agr_error *error);
agr_status agr_idempotency_begin_at(agr_idempotency *cache, const void *key, size_t key_length,
                                    const void *fingerprint, size_t fingerprint_length,
                                    int64_t now_ns, agr_lease *out_lease, agr_result *out_result,
                                    agr_error *error);

/* As _begin, and when the key is in progress the caller joins: AGR_IN_PROGRESS then comes with a
 * ticket, for _wait, _poll or _ticket_fd, until one of them gives an answer or _leave is called.
 * out_ticket  0 unless AGR_IN_PROGRESS.
 * Errors      also AGR_ERR_CAPACITY, field "max_waiters". */
agr_status agr_idempotency_join(agr_idempotency *cache, const void *key, size_t key_length,
                                const void *fingerprint, size_t fingerprint_length,
                                uint64_t *out_ticket, agr_lease *out_lease, agr_result *out_result,
                                agr_error *error);
agr_status agr_idempotency_join_at(agr_idempotency *cache, const void *key, size_t key_length,
                                   const void *fingerprint, size_t fingerprint_length,
                                   int64_t now_ns, uint64_t *out_ticket, agr_lease *out_lease,
                                   agr_result *out_result, agr_error *error);

/* What has become of the run that was joined; does not wait.
 * Answers  AGR_REPLAY: the result, pinned; AGR_OK: promoted, execute under this lease;
 *          AGR_IN_PROGRESS: not yet, the ticket stays good (out_lease->expires_in_ns: ask again at the
 *          latest then, for the run may have been lost); AGR_STALE: no such ticket.
 *          After AGR_REPLAY and AGR_OK the ticket is gone.
 * Errors   AGR_ERR_ARGUMENT; AGR_ERR_CAPACITY, field "max_pins" (the ticket stays good). */
agr_status agr_idempotency_poll(agr_idempotency *cache, uint64_t ticket, agr_lease *out_lease,
                                agr_result *out_result, agr_error *error);
agr_status agr_idempotency_poll_at(agr_idempotency *cache, uint64_t ticket, int64_t now_ns,
                                   agr_lease *out_lease, agr_result *out_result, agr_error *error);

/* _poll, which blocks for its answer.
 * timeout_ns  0 ... AGR_TIME_MAX_NS, or AGR_FOREVER.
 * Answers     as _poll, with AGR_TIMED_OUT for AGR_IN_PROGRESS; the ticket stays good.
 * Blocks; signals do not shorten the wait. */
agr_status agr_idempotency_wait(agr_idempotency *cache, uint64_t ticket, int64_t timeout_ns,
                                agr_lease *out_lease, agr_result *out_result, agr_error *error);

/* An eventfd which becomes readable when _poll has an answer. It belongs to the ticket: do not read
 * or close it; it is closed when the ticket ends. The same number for the same ticket.
 * Answers  AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT, AGR_ERR_SYSTEM. */
agr_status agr_idempotency_ticket_fd(agr_idempotency *cache, uint64_t ticket, int32_t *out_fd,
                                     agr_error *error);

/* Gives up a ticket. If it was promoted already, the next in line is.
 * Answers  AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_idempotency_leave(agr_idempotency *cache, uint64_t ticket, agr_error *error);
agr_status agr_idempotency_leave_at(agr_idempotency *cache, uint64_t ticket, int64_t now_ns,
                                    agr_error *error);

/* Ends a lease with the result, which everybody who joined gets, and all who come in its time to live.
 * data, length  copied; NULL only with length 0; length may be 0.
 * Answers       AGR_OK; AGR_STALE: the lease was lost or ended: nothing was stored.
 * Errors        AGR_ERR_NEVER_FITS: length > max_bytes; AGR_ERR_CAPACITY: there is no room for it now;
 *               AGR_ERR_NO_MEMORY (the lease is still held in all three); AGR_ERR_ARGUMENT.
 * Complexity    O(length). Allocates. */
agr_status agr_idempotency_complete(agr_idempotency *cache, uint64_t lease_id, const void *data,
                                    size_t length, agr_error *error);
agr_status agr_idempotency_complete_at(agr_idempotency *cache, uint64_t lease_id, const void *data,
                                       size_t length, int64_t now_ns, agr_error *error);

/* Ends a lease without success. With AGR_ON_FAILURE_KEEP, data is kept and replayed as a FAILED
 * result; with FORGET the first who waits is promoted, or the key is forgotten, unless an earlier run of
 * it may have had effects: then the next who asks is told.
 * Otherwise as _complete. */
agr_status agr_idempotency_fail(agr_idempotency *cache, uint64_t lease_id, const void *data,
                                size_t length, agr_error *error);
agr_status agr_idempotency_fail_at(agr_idempotency *cache, uint64_t lease_id, const void *data,
                                   size_t length, int64_t now_ns, agr_error *error);

/* Ends a lease of a run that may or may not have had its effect (it was sent, and no reply came).
 * The first who waits is promoted, or the next who asks is given the key; either is told with
 * outcome_unknown.  Answers  AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_idempotency_abandon(agr_idempotency *cache, uint64_t lease_id, agr_error *error);
agr_status agr_idempotency_abandon_at(agr_idempotency *cache, uint64_t lease_id, int64_t now_ns,
                                      agr_error *error);

/* Extends a lease to lease_ns from now.
 * lease_ns  1 ns ... AGR_TIME_MAX_NS; 0: as configured.
 * Answers   AGR_OK; AGR_STALE: it was lost.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_idempotency_renew(agr_idempotency *cache, uint64_t lease_id, int64_t lease_ns,
                                 agr_error *error);
agr_status agr_idempotency_renew_at(agr_idempotency *cache, uint64_t lease_id, int64_t lease_ns,
                                    int64_t now_ns, agr_error *error);

/* Unpins a result.  Answers  AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_idempotency_release(agr_idempotency *cache, uint64_t pin, agr_error *error);

/* The state of a key, AGR_KEY_*.  Answers  AGR_OK, AGR_NOT_FOUND (0 is written).
 * Errors  AGR_ERR_ARGUMENT. */
agr_status agr_idempotency_state(const agr_idempotency *cache, const void *key, size_t key_length,
                                 int32_t *out_state, agr_error *error);
agr_status agr_idempotency_state_at(const agr_idempotency *cache, const void *key,
                                    size_t key_length, int64_t now_ns, int32_t *out_state,
                                    agr_error *error);

typedef struct agr_idempotency_snapshot {
  uint32_t struct_size;
  uint32_t waiters;
  uint64_t entries;
  uint64_t bytes;            /* of keys and results, those only pinned among them */
  uint64_t pins;
  uint64_t executed;         /* leases given */
  uint64_t replayed;
  uint64_t joined;
  uint64_t promoted;
  uint64_t leases_lost;
  uint64_t mismatched;
  uint64_t evicted;
  uint64_t refused;          /* for want of a place */
  uint64_t illegal;          /* transitions asked for out of order, such as a second completion */
} agr_idempotency_snapshot;

/* Errors  AGR_ERR_ARGUMENT.  Complexity  O(max_pins). */
agr_status agr_idempotency_snapshot_read(const agr_idempotency *cache,
                                         agr_idempotency_snapshot *out_snapshot, agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
