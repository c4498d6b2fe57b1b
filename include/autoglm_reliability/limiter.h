/* SPDX-License-Identifier: Apache-2.0
 * Token-bucket rate limiting. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_LIMITER_H
#define AUTOGLM_RELIABILITY_LIMITER_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- One bucket ---- */

/* A bucket of `capacity` tokens which refills by refill_tokens per refill_interval_ns. In any
 * window of t ns it admits at most capacity + t * refill_tokens / refill_interval_ns tokens, exactly
 * so where a token takes a whole number of nanoseconds, and else within what flows in in 2 ns (with a
 * capacity or debt that takes more than 36 years to fill: within a part of a token). A thread that gives
 * tokens back at a time which is before another's adds at most what flows in in 1 ms. The arithmetic is
 * on integers: it does not drift, however long it runs. Lock-free. */
typedef struct agr_limiter agr_limiter;

typedef struct agr_limiter_config {
  uint32_t struct_size;
  uint32_t max_reservations;      /* open at a time, 0 ... 1,048,576; default 1024; 40 bytes each */
  int64_t capacity;               /* tokens (burst), 1 ... 2^50; no default */
  int64_t refill_tokens;          /* 0 ... 2^50; 0: never; no default */
  int64_t refill_interval_ns;     /* 1 ns ... 1 year, and at least 1 ns per refill token; default 1 s */
  int64_t initial_tokens;         /* 0 ... capacity; -1: full; default -1 */
  int64_t max_debt_tokens;        /* how far reservations and settlements may go below empty,
                                     0 ... 2^50; -1: 60 s of refill or the capacity, whichever is
                                     more; default -1 */
  int64_t reservation_timeout_ns; /* a reservation that is not settled or cancelled by then counts
                                     as settled in full, 1 ns ...; default 10 min */
  uint32_t observe;               /* 1: admit everybody, count what would be refused; default 0 */
  uint32_t reserved;              /* 0 */
} agr_limiter_config;

void agr_limiter_config_init(agr_limiter_config *config, uint32_t struct_size);

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates. */
agr_status agr_limiter_create(const agr_limiter_config *config, agr_limiter **out_limiter,
                              agr_error *error);
agr_status agr_limiter_create_at(const agr_limiter_config *config, int64_t now_ns,
                                 agr_limiter **out_limiter, agr_error *error);
void agr_limiter_destroy(agr_limiter *limiter);

/* Takes n tokens, or none.
 *
 * tokens              0 ... 2^50; 0 is always admitted unless the bucket is in debt.
 * out_retry_after_ns  nullable; with AGR_LIMITED the time until n tokens are there if nobody else
 *                     takes any, AGR_FOREVER if never; else 0.
 * Answers             AGR_OK, AGR_LIMITED.
 * Errors              AGR_ERR_NEVER_FITS: n > capacity; AGR_ERR_ARGUMENT. */
agr_status agr_limiter_try_acquire(agr_limiter *limiter, int64_t tokens,
                                   int64_t *out_retry_after_ns, agr_error *error);
agr_status agr_limiter_try_acquire_at(agr_limiter *limiter, int64_t tokens, int64_t now_ns,
                                      int64_t *out_retry_after_ns, agr_error *error);

/* Takes n tokens, and waits for them if need be. Waiters are served in the order in which they
 * came. Does not wait at all when the wait would be longer than the time-out, or the debt of all who wait
 * greater than max_debt_tokens. Blocks; signals do not shorten the wait.
 *
 * timeout_ns          0: do not wait; AGR_FOREVER: however long.
 * out_retry_after_ns  as above.
 * Answers             AGR_OK, AGR_LIMITED (at once).
 * Errors              as above. */
agr_status agr_limiter_acquire(agr_limiter *limiter, int64_t tokens, int64_t timeout_ns,
                               int64_t *out_retry_after_ns, agr_error *error);

/* Tokens taken ahead of their use. */
typedef struct agr_reservation {
  uint64_t permit;  /* to be settled or cancelled once; 0: none */
  int64_t tokens;
  int64_t wait_ns;  /* wait this long before making use of them; 0: they are there */
} agr_reservation;

/* Takes n tokens now, to be used after a wait; for costs that are only estimated, settle later.
 *
 * max_wait_ns         the longest wait that is acceptable; 0: none; AGR_FOREVER: any.
 * out_reservation     all zero unless AGR_OK.
 * out_retry_after_ns  nullable; with AGR_LIMITED, the time until a reservation of this size and
 *                     max_wait_ns can succeed.
 * Answers             AGR_OK, AGR_LIMITED (the wait, or the debt, would be too great).
 * Errors              AGR_ERR_CAPACITY: max_reservations are open; AGR_ERR_NEVER_FITS;
 *                     AGR_ERR_ARGUMENT.
 * Complexity          O(1); O(max_reservations) when nearly all are open. */
agr_status agr_limiter_reserve(agr_limiter *limiter, int64_t tokens, int64_t max_wait_ns,
                               agr_reservation *out_reservation, int64_t *out_retry_after_ns,
                               agr_error *error);
agr_status agr_limiter_reserve_at(agr_limiter *limiter, int64_t tokens, int64_t max_wait_ns,
                                  int64_t now_ns, agr_reservation *out_reservation,
                                  int64_t *out_retry_after_ns, agr_error *error);

/* Gives a reservation back, as far as that promises no token twice: not what the bucket has refilled
 * since, which would have spilled over; not what others have reserved behind it, who keep their wait;
 * and nothing once the limiter was reconfigured more than twice since, or once and another's came back,
 * or to a smaller capacity and then to a greater one.
 * Where threads reserve and give back in the same instant less may come back; never where refill_tokens is 0.
 * Answers     AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT.
 * Complexity  O(1); where tokens come back O(the most reservations that were open at a time). */
agr_status agr_limiter_cancel(agr_limiter *limiter, uint64_t permit, agr_error *error);
agr_status agr_limiter_cancel_at(agr_limiter *limiter, uint64_t permit, int64_t now_ns,
                                 agr_error *error);

/* Ends a reservation by its real cost: the rest is given back, or the excess taken, if need be
 * into debt, at most to max_debt_tokens.
 * actual_tokens  0 ... 2^50; -1: unknown, which keeps what was reserved.
 * Answers        AGR_OK, AGR_STALE.  Errors  AGR_ERR_ARGUMENT (the reservation is still open).
 * Complexity     as _cancel. */
agr_status agr_limiter_settle(agr_limiter *limiter, uint64_t permit, int64_t actual_tokens,
                              agr_error *error);
agr_status agr_limiter_settle_at(agr_limiter *limiter, uint64_t permit, int64_t actual_tokens,
                                 int64_t now_ns, agr_error *error);

/* Tokens that could be taken now; negative when in debt.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_limiter_available(const agr_limiter *limiter, int64_t *out_tokens,
                                 agr_error *error);
agr_status agr_limiter_available_at(const agr_limiter *limiter, int64_t now_ns,
                                    int64_t *out_tokens, agr_error *error);

/* Changes capacity, refill and debt while in use; every other field must be as it was created
 * (initial_tokens is not looked at). What was available stays available, up to the new capacity;
 * debts stay, up to the new max_debt_tokens.
 * Answers  AGR_OK.  Errors  AGR_ERR_ARGUMENT; AGR_ERR_STATE: another reconfigure is under way.
 * Complexity  O(1). */
agr_status agr_limiter_reconfigure(agr_limiter *limiter, const agr_limiter_config *config,
                                   agr_error *error);
agr_status agr_limiter_reconfigure_at(agr_limiter *limiter, const agr_limiter_config *config,
                                      int64_t now_ns, agr_error *error);

typedef struct agr_limiter_snapshot {
  uint32_t struct_size;
  uint32_t open_reservations;
  int64_t capacity;
  int64_t refill_tokens;      /* these two as a reduced fraction: 100 in 60 s reads 5 in 3 s */
  int64_t refill_interval_ns;
  int64_t available;
  uint64_t refused;      /* calls */
  uint64_t would_refuse; /* calls admitted only because of observe */
  uint64_t forgiven;     /* tokens of settlements beyond max_debt_tokens */
} agr_limiter_snapshot;

/* Errors  AGR_ERR_ARGUMENT.  Complexity  O(max_reservations). */
agr_status agr_limiter_snapshot_read(const agr_limiter *limiter,
                                     agr_limiter_snapshot *out_snapshot, agr_error *error);
agr_status agr_limiter_snapshot_read_at(const agr_limiter *limiter, int64_t now_ns,
                                        agr_limiter_snapshot *out_snapshot, agr_error *error);

/* ---- Several buckets as one: requests and tokens per minute ---- */

typedef struct agr_limiter_demand {
  agr_limiter *limiter;
  int64_t tokens;
} agr_limiter_demand;

/* Takes from every bucket, or from none. A demand that meets contention may be refused although
 * each bucket alone would have done: while it is being decided, another's tokens are held.
 *
 * demands             1 ... AGR_DIMENSIONS_MAX; no limiter twice.
 * out_refused_index   nullable; with AGR_LIMITED, and with AGR_ERR_NEVER_FITS, the demand that was
 *                     refused, the one that takes longest to clear; else `count`.
 * out_retry_after_ns  nullable; the longest of the demands' times.
 * Answers             AGR_OK, AGR_LIMITED.  Errors  as agr_limiter_try_acquire. */
agr_status agr_limiter_try_acquire_all(const agr_limiter_demand *demands, uint32_t count,
                                       uint32_t *out_refused_index, int64_t *out_retry_after_ns,
                                       agr_error *error);
agr_status agr_limiter_try_acquire_all_at(const agr_limiter_demand *demands, uint32_t count,
                                          int64_t now_ns, uint32_t *out_refused_index,
                                          int64_t *out_retry_after_ns, agr_error *error);

/* Reserves from every bucket, or from none. out_reservations: `count` of them, one a demand; wait
 * for the longest of their wait_ns, then settle or cancel each with its own limiter.
 * Otherwise as agr_limiter_reserve. */
agr_status agr_limiter_reserve_all(const agr_limiter_demand *demands, uint32_t count,
                                   int64_t max_wait_ns, agr_reservation *out_reservations,
                                   uint32_t *out_refused_index, int64_t *out_retry_after_ns,
                                   agr_error *error);
agr_status agr_limiter_reserve_all_at(const agr_limiter_demand *demands, uint32_t count,
                                      int64_t max_wait_ns, int64_t now_ns,
                                      agr_reservation *out_reservations,
                                      uint32_t *out_refused_index, int64_t *out_retry_after_ns,
                                      agr_error *error);

/* ---- One bucket per key ---- */

/* A bucket for every key, all of the same capacity and refill: 16 bytes a key, whose memory is
 * bounded from the start. A key whose bucket is full again takes no place (so that a thread whose time is
 * before another's may find a bucket full that is so by the other's). Keys are known by a
 * keyed 64-bit hash (SipHash-1-3, random seed); two keys share a bucket with probability 2^-63. A
 * request's cost is rounded up to whole nanoseconds of refill. Lock-free. */
typedef struct agr_keyed_limiter agr_keyed_limiter;

enum {
  AGR_WHEN_FULL_REFUSE = 0, /* a new key is refused: AGR_ERR_CAPACITY */
  AGR_WHEN_FULL_EVICT = 1   /* it takes the place of the one that has the least to wait for */
};

typedef struct agr_keyed_limiter_config {
  uint32_t struct_size;
  uint32_t max_keys;              /* keys that are not idle at a time, 1 ... 2^28; default 65,536.
                                     Table: the next power of two above 1.5 * max_keys, 16 bytes
                                     each; nearly full neighbourhoods count as full. */
  int64_t capacity;               /* tokens, 1 ... 2^40; no default */
  int64_t refill_tokens;          /* 1 ... 2^40; no default */
  int64_t refill_interval_ns;     /* 1 ns ... 1 year; at least 1 ns per token; filling an empty bucket
                                     takes at most 10 years; default 1 s */
  int64_t max_debt_tokens;        /* as agr_limiter_config */
  int64_t reservation_timeout_ns; /* as agr_limiter_config */
  uint32_t max_reservations;      /* 0 ... 1,048,576; default 1024; 40 bytes each */
  int32_t when_full;              /* AGR_WHEN_FULL_*; default REFUSE */
  uint32_t max_key_bytes;         /* 1 ... 1,048,576; default 1024 */
  uint32_t observe;               /* as agr_limiter_config */
  uint64_t seed;                  /* of the hash; 0: from the kernel; default 0 */
} agr_keyed_limiter_config;

void agr_keyed_limiter_config_init(agr_keyed_limiter_config *config, uint32_t struct_size);

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates all it will ever use. */
agr_status agr_keyed_limiter_create(const agr_keyed_limiter_config *config,
                                    agr_keyed_limiter **out_limiter, agr_error *error);
void agr_keyed_limiter_destroy(agr_keyed_limiter *limiter);

/* The functions below do for a key what agr_limiter_* of the same name do for one bucket.
 * key, key_length  0 ... max_key_bytes bytes, any; NULL only with 0.
 * Errors           also AGR_ERR_CAPACITY: there is no place for a new key. */
agr_status agr_keyed_limiter_try_acquire(agr_keyed_limiter *limiter, const void *key,
                                         size_t key_length, int64_t tokens,
                                         int64_t *out_retry_after_ns, agr_error *error);
agr_status agr_keyed_limiter_try_acquire_at(agr_keyed_limiter *limiter, const void *key,
                                            size_t key_length, int64_t tokens, int64_t now_ns,
                                            int64_t *out_retry_after_ns, agr_error *error);

/* Blocks. */
agr_status agr_keyed_limiter_acquire(agr_keyed_limiter *limiter, const void *key,
                                     size_t key_length, int64_t tokens, int64_t timeout_ns,
                                     int64_t *out_retry_after_ns, agr_error *error);

agr_status agr_keyed_limiter_reserve(agr_keyed_limiter *limiter, const void *key,
                                     size_t key_length, int64_t tokens, int64_t max_wait_ns,
                                     agr_reservation *out_reservation,
                                     int64_t *out_retry_after_ns, agr_error *error);
agr_status agr_keyed_limiter_reserve_at(agr_keyed_limiter *limiter, const void *key,
                                        size_t key_length, int64_t tokens, int64_t max_wait_ns,
                                        int64_t now_ns, agr_reservation *out_reservation,
                                        int64_t *out_retry_after_ns, agr_error *error);

/* The permit knows its key. */
agr_status agr_keyed_limiter_cancel(agr_keyed_limiter *limiter, uint64_t permit, agr_error *error);
agr_status agr_keyed_limiter_cancel_at(agr_keyed_limiter *limiter, uint64_t permit, int64_t now_ns,
                                       agr_error *error);
agr_status agr_keyed_limiter_settle(agr_keyed_limiter *limiter, uint64_t permit,
                                    int64_t actual_tokens, agr_error *error);
agr_status agr_keyed_limiter_settle_at(agr_keyed_limiter *limiter, uint64_t permit,
                                       int64_t actual_tokens, int64_t now_ns, agr_error *error);

agr_status agr_keyed_limiter_available(const agr_keyed_limiter *limiter, const void *key,
                                       size_t key_length, int64_t *out_tokens, agr_error *error);
agr_status agr_keyed_limiter_available_at(const agr_keyed_limiter *limiter, const void *key,
                                          size_t key_length, int64_t now_ns, int64_t *out_tokens,
                                          agr_error *error);

/* Changes capacity, refill and debt of all keys. A key keeps the time it still has to refill, not
 * the tokens. */
agr_status agr_keyed_limiter_reconfigure(agr_keyed_limiter *limiter,
                                         const agr_keyed_limiter_config *config, agr_error *error);

typedef struct agr_keyed_limiter_snapshot {
  uint32_t struct_size;
  uint32_t open_reservations;
  uint64_t busy_keys;    /* keys whose bucket is not full */
  uint64_t slots;        /* places in the table */
  uint64_t bytes;        /* memory of the table */
  uint64_t refused;
  uint64_t would_refuse;
  uint64_t evicted;
  uint64_t no_place;     /* refusals for want of a place */
} agr_keyed_limiter_snapshot;

/* Complexity  O(slots). */
agr_status agr_keyed_limiter_snapshot_read(const agr_keyed_limiter *limiter,
                                           agr_keyed_limiter_snapshot *out_snapshot,
                                           agr_error *error);
agr_status agr_keyed_limiter_snapshot_read_at(const agr_keyed_limiter *limiter, int64_t now_ns,
                                              agr_keyed_limiter_snapshot *out_snapshot,
                                              agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
