/* SPDX-License-Identifier: Apache-2.0
 *
 * libautoglm_reliability: stay up while serving or calling an LLM.
 *
 * One include gives the whole C interface: backoff and retry rules, retry budget, circuit breaker,
 * token-bucket limiter (one bucket, several as one, one per key), idempotency cache, a policy that
 * composes them, and stores in which their state can lie. This file states the conventions; a function's own block states only what
 * differs from them.
 *
 * Statuses.  A fallible function returns agr_status. AGR_OK is 0. A positive status is an answer
 * (limited, open, in progress, stale ...): expected, and often with a retry_after. A negative one
 * is an error, and the optional last parameter, a caller-owned agr_error, then names the field or
 * argument and says what is wrong with it. `error` may always be NULL. It is written on errors
 * only. Nothing here aborts, traps or exits, whatever it is given; a pointer that is neither NULL
 * nor valid remains undefined behaviour, as everywhere in C.
 *
 * Time.  Every duration and timestamp is int64_t nanoseconds, from 0 to AGR_TIME_MAX_NS (146
 * years); AGR_FOREVER stands for "no limit" where a block says so. A function that needs the time
 * reads CLOCK_MONOTONIC; its twin with the suffix _at takes `now_ns` instead, any monotonic scale
 * the caller likes, for tests, simulations and event loops which have read the clock already. Use
 * one scale for one object. Should the time given step back by more than one second, the object
 * re-anchors itself on the new scale: what it had counted is kept, nobody is locked out, and a
 * limiter admits at most one capacity more than its bound for each such step. A step forward counts
 * for a year at the most; all that steps add up to must stay below 146 years.
 *
 * Handles.  Opaque; made by _create, released by _destroy (NULL is a no-op). A policy holds its
 * parts alive, so they may be destroyed in any order. A handle that was destroyed must not be used
 * again; the library recognises most such calls and answers AGR_ERR_ARGUMENT, but cannot promise
 * to.
 *
 * Threads.  Every function may be called from any thread on the same handle at the same time,
 * except _destroy, and except agr_call_* on one call, which is used by one thread at a time.
 * Only functions that say so block. There are no background threads and no thread-local state.
 *
 * Fork.  After fork the child may use every handle it inherited. Its random numbers differ from
 * its parent's. What the parent holds (leases, permits, reservations) is copied, not shared; only
 * descriptors are shared, as always: a child should leave inherited tickets and leases alone. Objects of a
 * region are the exception: their state is shared with the child, as it is with every other process (region.h).
 *
 * Structures.  Every configuration, and every structure which the library fills in, begins with
 * `struct_size`, which the caller sets to sizeof (for a configuration, _config_init does). Fields
 * are only ever appended: a shorter structure gets the defaults of those it lacks, a longer one is
 * accepted if the rest of it is zero. Reserved fields must be zero. An invalid value is refused by
 * name, never replaced.
 *
 * Ownership.  Every input is copied before the call returns. Outputs are plain values, except
 * agr_result and agr_step results, whose blocks say how long they live. Unless its block says
 * otherwise, a call that does not answer AGR_OK leaves an output zero or as it was.
 *
 * Cost.  Unless its block says otherwise, a function takes constant time and allocates nothing. None
 * needs more than 8 KiB of stack.
 *
 * Versions.  Everything here is there since 0.1, unless its block says otherwise.
 */
#ifndef AUTOGLM_RELIABILITY_H
#define AUTOGLM_RELIABILITY_H

#include "autoglm_reliability/common.h"
#include "autoglm_reliability/backoff.h"
#include "autoglm_reliability/breaker.h"
#include "autoglm_reliability/limiter.h"
#include "autoglm_reliability/idempotency.h"
#include "autoglm_reliability/policy.h"
#include "autoglm_reliability/region.h"
#include "autoglm_reliability/store_driver.h"
#include "autoglm_reliability/store.h"
#include "autoglm_reliability/lock.h"

#endif
