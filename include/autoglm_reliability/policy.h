/* SPDX-License-Identifier: Apache-2.0
 * The policy: one guarded call, composed of any of the parts. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_POLICY_H
#define AUTOGLM_RELIABILITY_POLICY_H

#include "backoff.h"
#include "breaker.h"
#include "common.h"
#include "idempotency.h"
#include "limiter.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A policy decides and never acts: it says what to do next (a step), the host does it and says how
 * it went. The same policy is driven by a blocking program, an event loop or a simulation.
 *
 *   agr_call_begin(policy, &request, &call, &step, NULL);
 *   while (step.kind != AGR_STEP_DONE) {
 *     if (step.kind == AGR_STEP_ATTEMPT) { ... make the call ...; agr_call_advance(call, &outcome, &step, NULL); }
 *     else { ... wait step.wait_ns, or until step.fd is readable ...; agr_call_advance(call, NULL, &step, NULL); }
 *   }
 *   agr_call_destroy(call);
 *
 * The parts, outermost first: deadline, idempotency, retry (with its budget), limiters, breaker,
 * fallback. One deadline covers attempts, backoff and every wait.
 *
 * Idempotency, limiters and breaker may lie in a region or in a store. A step then waits for the store, for each part
 * in it up to that part's timeout_ns, but not beyond the call's deadline, and an event loop makes such a step in a
 * thread. What a call ends with (its result, what it gives back) has 20 ms for all of it when the deadline is over or
 * nearer than that. The time that the store takes is the call's, also with _at. When the store fails, a part
 * does what its on_error says; one that is to REFUSE ends the call with AGR_REASON_STORE. If the deadline comes before
 * the store's answer it is AGR_REASON_DEADLINE, whatever on_error says. A lease whose renewal the store does not answer
 * lasts for as long as it did before: it is asked for again before each attempt and, if it does not cover a wait, within
 * the wait, which is cut for that; when its time has passed it is lost (AGR_REASON_LEASE_LOST), whatever on_error
 * says. An attempt that outlasts its lease is told from the next owner's by its fence, which is smaller. A success is
 * one even if its result could not be kept: the next to execute the key is told that an earlier run may have had
 * effects. Limiters are all in one store, or none of them is; on a cluster several of
 * them need names with one tag (store.h): a policy of others is refused when it is created, or, where the store does
 * not know yet that it is a cluster, each of its calls ends with AGR_REASON_ARGUMENT. */
typedef struct agr_policy agr_policy;
typedef struct agr_call agr_call;

/* The parts; also who refused, and bits (1 << component) of a mask. */
enum {
  AGR_COMPONENT_NONE = 0,
  AGR_COMPONENT_DEADLINE = 1,
  AGR_COMPONENT_IDEMPOTENCY = 2,
  AGR_COMPONENT_RETRY = 3,
  AGR_COMPONENT_BUDGET = 4,
  AGR_COMPONENT_LIMITER = 5,
  AGR_COMPONENT_BREAKER = 6,
  AGR_COMPONENT_FALLBACK = 7
};

/* How far a part is obeyed. */
enum {
  AGR_MODE_ENFORCE = 0,
  AGR_MODE_OBSERVE = 1, /* it decides and counts, and refuses nobody; a retry it would make is
                            counted, not made */
  AGR_MODE_OFF = 2      /* it is not asked */
};

/* What a call that was refused or has failed gets instead. */
enum {
  AGR_FALLBACK_NONE = 0,               /* fail fast */
  AGR_FALLBACK_DEFAULT = 1,            /* fallback_data */
  AGR_FALLBACK_CACHED = 2,             /* the last success with the same cache key */
  AGR_FALLBACK_CACHED_OR_DEFAULT = 3,  /* that, else fallback_data */
  AGR_FALLBACK_QUEUE = 4               /* the host is told to queue it: AGR_REASON_QUEUE */
};

typedef struct agr_policy_config {
  uint32_t struct_size;
  uint32_t max_calls;            /* alive at a time, 1 ... 65,536; default 1024; about 1 KB each,
                                    allocated 64 at a time when first needed, then reused */
  agr_idempotency *idempotency;  /* any part may be NULL */
  agr_breaker *breaker;
  agr_retry_budget *budget;      /* needs retry */
  const agr_retry_config *retry; /* NULL: one attempt */
  agr_limiter *limiters[AGR_DIMENSIONS_MAX]; /* limiter i is charged request.costs[i] */
  uint32_t limiter_count;        /* 0 ... AGR_DIMENSIONS_MAX */
  uint32_t order_count;          /* 0: the standard order */
  int32_t order[8];              /* the AGR_COMPONENT_* of the parts present, outermost first; refused
                                    if it is not the standard order, with the reason. Says in code
                                    what the author takes the order to be. */
  int64_t total_timeout_ns;      /* the deadline, when the request has none; default 60 s;
                                    AGR_FOREVER: none */
  int64_t attempt_timeout_ns;    /* of one attempt; default AGR_FOREVER */
  int64_t connect_timeout_ns;    /* passed on in the step, at most what is left; default 3 s */
  int64_t first_byte_timeout_ns; /* default 30 s */
  int64_t idle_timeout_ns;       /* between two bytes; default 30 s */
  int64_t max_limiter_wait_ns;   /* how long to wait for tokens rather than be refused; default 0 */
  uint32_t retry_when_open;      /* 1: a breaker that is open counts as a failed attempt and is waited
                                    for, within the retries and the deadline; default 0: refused */
  int32_t fallback;              /* AGR_FALLBACK_*; default NONE */
  const void *fallback_data;     /* copied */
  size_t fallback_length;
  uint32_t cached_entries;       /* answers kept for CACHED, 1 ... 2^20, in sets of four: an answer can
                                    go before all are in use; default 0: none kept */
  uint32_t event_capacity;       /* events kept, a power of two, 16 ... 65,536; default 256 */
  uint64_t cached_bytes;         /* default 16 MiB */
  int64_t cached_ttl_ns;         /* default 1 h */
  uint32_t observe;              /* mask of 1 << AGR_COMPONENT_*: those in AGR_MODE_OBSERVE */
  uint32_t off;                  /* mask of those in AGR_MODE_OFF */
  uint64_t seed;                 /* of backoff's randomness; 0: from the kernel */
} agr_policy_config;

void agr_policy_config_init(agr_policy_config *config, uint32_t struct_size);

/* Builds a policy. It holds its parts alive until it is destroyed itself.
 *
 * Errors  AGR_ERR_ARGUMENT: a field, or a combination that cannot work, with the reason: an order
 *         other than the standard one; a budget without retry; fallback CACHED without
 *         cached_entries, DEFAULT without data; an attempt_timeout_ns beyond total_timeout_ns;
 *         a limiter twice, or several that their store does not have together; observe and off for the same part; a part named that is not there.
 *         AGR_ERR_NO_MEMORY. Allocates. */
agr_status agr_policy_create(const agr_policy_config *config, agr_policy **out_policy,
                             agr_error *error);

/* Calls which are still alive keep what they need; they are to be driven on or destroyed. */
void agr_policy_destroy(agr_policy *policy);

/* Switches a part while in use; calls see it from their next step on.
 * component  AGR_COMPONENT_IDEMPOTENCY ... FALLBACK; DEADLINE can only be ENFORCEd.
 * mode       AGR_MODE_*.  FALLBACK takes ENFORCE and OFF.
 * Errors     AGR_ERR_ARGUMENT. */
agr_status agr_policy_set_mode(agr_policy *policy, int32_t component, int32_t mode,
                               agr_error *error);

/* Switches the fallback while in use: AGR_FALLBACK_*. CACHED and DEFAULT need what the policy was
 * built with.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_policy_set_fallback(agr_policy *policy, int32_t fallback, agr_error *error);

/* What is asked for. */
typedef struct agr_request {
  uint32_t struct_size;
  int32_t priority;             /* kept and reported; 0 is normal */
  const void *key;              /* idempotency key; length 0: none, the cache is not asked. Without a
                                   cache of the policy's it says that the upstream recognises a repeated
                                   request, so that AGR_CLASS_UNKNOWN may be retried. */
  size_t key_length;
  const void *fingerprint;      /* as agr_idempotency_begin */
  size_t fingerprint_length;
  const void *cache_key;        /* of cached answers; length 0: none kept, none found; at most 1024 */
  size_t cache_key_length;
  int64_t costs[AGR_DIMENSIONS_MAX]; /* estimated, one a limiter, charged for every attempt;
                                        0 ... 2^50; agr_request_init sets costs[0] to 1 */
  int64_t deadline_ns;          /* absolute, on the scale of now; 0: total_timeout_ns from now;
                                   AGR_FOREVER: none */
  const char *trace_id;         /* goes into events; longer than 55 bytes is cut */
  size_t trace_id_length;
} agr_request;

void agr_request_init(agr_request *request, uint32_t struct_size);

/* What to do next. */
enum {
  AGR_STEP_ATTEMPT = 1, /* make the call, then advance with its outcome */
  AGR_STEP_WAIT = 2,    /* wait wait_ns, then advance with NULL */
  AGR_STEP_JOIN = 3,    /* another caller is executing this key: wait until fd is readable, at most
                           wait_ns, then advance with NULL */
  AGR_STEP_DONE = 4     /* the call is over; reason says how */
};

/* Why. */
enum {
  AGR_REASON_NONE = 0,
  /* of DONE, when there is a result */
  AGR_REASON_SUCCEEDED = 1,
  AGR_REASON_REPLAYED = 2,          /* the key had a result, or another caller's run gave one */
  AGR_REASON_FALLBACK_DEFAULT = 3,
  AGR_REASON_FALLBACK_CACHED = 4,
  /* of DONE, when there is none */
  AGR_REASON_FAILED_PERMANENT = 10, /* the class says never retry */
  AGR_REASON_ATTEMPTS_EXHAUSTED = 11,
  AGR_REASON_BUDGET_EXHAUSTED = 12,
  AGR_REASON_DEADLINE = 13,         /* over, or the wait that is needed would overrun it */
  AGR_REASON_LIMITED = 14,
  AGR_REASON_OPEN = 15,
  AGR_REASON_MISMATCH = 16,         /* the key is in use for another request */
  AGR_REASON_CAPACITY = 17,         /* a part's bound is reached */
  AGR_REASON_COMMITTED = 18,        /* failed after agr_call_commit */
  AGR_REASON_CANCELLED = 19,
  AGR_REASON_HINT_TOO_LONG = 20,    /* the server asked for more than max_server_delay_ns */
  AGR_REASON_OUTCOME_UNKNOWN = 21,  /* sent, no reply, and repeating it is not safe */
  AGR_REASON_NEVER_FITS = 22,       /* a cost is larger than its bucket */
  AGR_REASON_QUEUE = 23,            /* AGR_FALLBACK_QUEUE: put it off */
  AGR_REASON_REPLAYED_FAILURE = 24, /* the key has a failure as its result */
  AGR_REASON_NO_MEMORY = 25,
  AGR_REASON_LEASE_LOST = 26,       /* the lease of the key ran out, between attempts or while its store did
                                       not answer: another caller may be executing it */
  AGR_REASON_STORE = 27,            /* the store of a part fails, and the part is to refuse then */
  AGR_REASON_ARGUMENT = 28,         /* limiters that the store's cluster does not have together: their names
                                       must share a {tag} (store.h) */
  /* of ATTEMPT, WAIT and JOIN */
  AGR_REASON_FIRST = 40,
  AGR_REASON_RETRY = 41,
  AGR_REASON_BACKOFF = 42,
  AGR_REASON_SERVER_HINT = 43,
  AGR_REASON_WAIT_LIMITER = 44,
  AGR_REASON_WAIT_BREAKER = 45,
  AGR_REASON_JOINED = 46,
  AGR_REASON_PROMOTED = 47          /* ATTEMPT: the run that was joined failed, it is our turn */
};

typedef struct agr_step {
  uint32_t struct_size;
  int32_t kind;                  /* AGR_STEP_* */
  int32_t reason;                /* AGR_REASON_* */
  int32_t component;             /* who refused or makes wait, AGR_COMPONENT_* */
  uint64_t attempt_id;           /* ATTEMPT: goes into the outcome */
  uint32_t attempt;              /* attempts made or being made */
  uint32_t endpoint;             /* ATTEMPT: which upstream; 0 */
  int64_t wait_ns;               /* WAIT, JOIN */
  int64_t retry_after_ns;        /* DONE by refusal: when it clears; AGR_FOREVER: it does not;
                                    0: not known */
  int64_t remaining_ns;          /* until the deadline; AGR_FOREVER: none */
  int64_t connect_timeout_ns;    /* ATTEMPT: the time for each, at most remaining_ns */
  int64_t first_byte_timeout_ns;
  int64_t idle_timeout_ns;
  int64_t attempt_timeout_ns;
  int32_t fd;                    /* JOIN: an eventfd (it belongs to the call); else -1 */
  uint32_t outcome_unknown;      /* ATTEMPT: an earlier run of this key may have had effects */
  uint64_t fence;                /* ATTEMPT with a key: the lease's fencing number; else 0 */
  const void *result;            /* DONE with a result: replayed, cached or default; lives until the
                                    call is destroyed. NULL with SUCCEEDED: the caller has it. */
  size_t result_length;
} agr_step;

/* How an attempt went. */
typedef struct agr_outcome {
  uint32_t struct_size;
  int32_t error_class;        /* AGR_CLASS_*, when domain is NONE; default SUCCESS */
  int32_t domain;             /* AGR_DOMAIN_*: domain and code are looked up in the rules */
  int32_t code;
  uint64_t attempt_id;        /* from the step; 0: the present attempt */
  int64_t server_delay_ns;    /* agr_hint_parse's; -1: the server said nothing; AGR_FOREVER: never
                                 retry; default -1 */
  int64_t latency_ns;         /* -1: from the step to now; default -1 */
  int64_t costs[AGR_DIMENSIONS_MAX]; /* real, one a limiter; -1: unknown, the estimate stays;
                                        default -1 */
  const void *result;         /* of a success (and of a failure, for AGR_ON_FAILURE_KEEP): stored for
                                 those who joined, replays and cached answers; copied */
  size_t result_length;
} agr_outcome;

void agr_outcome_init(agr_outcome *outcome, uint32_t struct_size);

/* Begins a guarded call.
 *
 * request   NULL: the defaults.
 * out_call  to be destroyed, always, also when the step is DONE.
 * out_step  struct_size set by the caller.
 * Answers   AGR_OK. A refusal is a step (DONE), not a status.
 * Errors    AGR_ERR_ARGUMENT; AGR_ERR_CAPACITY: max_calls are alive; AGR_ERR_NO_MEMORY. No call then.
 * Complexity  O(length) of keys; no allocation once 64 calls have been alive, but for a cached answer,
 *             which is copied. */
agr_status agr_call_begin(agr_policy *policy, const agr_request *request, agr_call **out_call,
                          agr_step *out_step, agr_error *error);
agr_status agr_call_begin_at(agr_policy *policy, const agr_request *request, int64_t now_ns,
                             agr_call **out_call, agr_step *out_step, agr_error *error);

/* Goes on: with the outcome of the attempt, or with NULL after a wait. To come back early from a wait
 * is no error: the rest of it is the next step.
 *
 * Answers  AGR_OK; AGR_STALE: the outcome is of another attempt, and nothing changed (out_step is the
 *          present step again).
 * Errors   AGR_ERR_ARGUMENT; AGR_ERR_STATE: an outcome is due and NULL was given, or the reverse, or
 *          the call is done (out_step is the present step again).
 * Complexity  O(length) of a result that is kept under a key or a cache key, which allocates. */
agr_status agr_call_advance(agr_call *call, const agr_outcome *outcome, agr_step *out_step,
                            agr_error *error);
agr_status agr_call_advance_at(agr_call *call, const agr_outcome *outcome, int64_t now_ns,
                               agr_step *out_step, agr_error *error);

/* From here on a failure is final: something was passed on to the user, such as the first token.
 * Errors  AGR_ERR_STATE: no attempt is under way; AGR_ERR_ARGUMENT. */
agr_status agr_call_commit(agr_call *call, agr_error *error);

/* Ends a call. Before DONE that is an abandonment: every permit and reservation is given back, and
 * counts nowhere; a lease of a key whose attempt was under way is abandoned (outcome unknown), of
 * one that had none is given to the next. NULL is a no-op. On a scale of time of one's own, use _at. */
void agr_call_destroy(agr_call *call);
void agr_call_destroy_at(agr_call *call, int64_t now_ns);

/* Makes one attempt. outcome comes initialised as a failure without a code (AGR_CLASS_TRANSIENT), with
 * the attempt's id; what it points to must live until the function is called again, or execute returns.
 * It must return: what leaves it by longjmp or an exception leaves the call alive for ever. */
typedef void (*agr_attempt_fn)(const agr_step *step, agr_outcome *outcome, void *user_data);

/* Runs a call to its end on this thread: attempts by `attempt`, waits by sleeping. Blocks.
 *
 * out_call  nullable; the finished call, to be destroyed by the caller when it has read
 *           out_step->result; if NULL the call is destroyed and out_step->result is NULL.
 * Otherwise as agr_call_begin. */
agr_status agr_policy_execute(agr_policy *policy, const agr_request *request,
                              agr_attempt_fn attempt, void *user_data, agr_call **out_call,
                              agr_step *out_step, agr_error *error);

/* Counters since creation. */
typedef struct agr_policy_snapshot {
  uint32_t struct_size;
  uint32_t calls_alive;
  uint64_t calls;
  uint64_t attempts;
  uint64_t retries;
  uint64_t succeeded;
  uint64_t replayed;
  uint64_t joined;
  uint64_t fallbacks;
  uint64_t failed;           /* done without a result, refusals not among them */
  uint64_t refused_limiter;
  uint64_t refused_breaker;
  uint64_t refused_budget;
  uint64_t refused_deadline;
  uint64_t refused_other;
  uint64_t abandoned;
  uint64_t observed;         /* refusals that were not obeyed */
  uint64_t backoff_ns;       /* waits asked for between attempts, in all */
} agr_policy_snapshot;

/* Errors  AGR_ERR_ARGUMENT.  Complexity  O(max_calls). */
agr_status agr_policy_snapshot_read(const agr_policy *policy, agr_policy_snapshot *out_snapshot,
                                    agr_error *error);

enum {
  AGR_EVENT_ATTEMPT = 1, /* an attempt failed */
  AGR_EVENT_RETRY = 2,   /* another will follow, after backoff_ns */
  AGR_EVENT_REFUSED = 3, /* a part refused, or would have (observed = 1) */
  AGR_EVENT_DONE = 4     /* a call ended */
};

typedef struct agr_event {
  uint32_t struct_size;
  int32_t kind;
  int32_t reason;
  int32_t component;
  int32_t domain;
  int32_t code;
  int32_t error_class;
  uint32_t attempt;
  uint32_t observed;
  int32_t priority;
  uint64_t call_id;    /* of one call of this policy, and of no other; never 0 */
  int64_t time_ns;
  int64_t backoff_ns;
  int64_t latency_ns;
  int64_t retry_after_ns;
  char trace_id[56]; /* ends with NUL */
} agr_event;

/* Reads the next event, as agr_breaker_next_event does. */
agr_status agr_policy_next_event(const agr_policy *policy, uint64_t *cursor, agr_event *out_event,
                                 uint64_t *out_lost, agr_error *error);

/* Writes an event as one line of JSON, without a line feed, ending with NUL:
 * {"event":"retry","call":7,"trace_id":"...","attempt":1,"reason":"backoff",...}
 *
 * buffer, capacity  capacity bytes; NULL with capacity 0 asks for the length.
 * out_length        without the NUL.
 * Errors            AGR_ERR_CAPACITY (out_length is written); AGR_ERR_ARGUMENT.
 * Complexity        O(length). */
agr_status agr_event_json(const agr_event *event, char *buffer, size_t capacity,
                          size_t *out_length, agr_error *error);

/* The name of a reason, such as "attempts_exhausted", and of a component, such as "breaker"; "unknown"
 * for any other number. Static. */
const char *agr_reason_name(int32_t reason);
const char *agr_component_name(int32_t component);

#ifdef __cplusplus
}
#endif
#endif
