/* SPDX-License-Identifier: Apache-2.0
 * Circuit breaker. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_BREAKER_H
#define AUTOGLM_RELIABILITY_BREAKER_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Closed: calls pass and are counted. Open: nobody passes for open_ns. Half-open: a few calls pass
 * as probes; enough successes close the breaker, one failure opens it again for longer. Every
 * change of state starts a new generation, and a result of an earlier generation changes nothing.
 * Lock-free. */
typedef struct agr_breaker agr_breaker;

enum {
  AGR_BREAKER_CLOSED = 1,
  AGR_BREAKER_OPEN = 2,
  AGR_BREAKER_HALF_OPEN = 3
};

/* Whether the state is obeyed. */
enum {
  AGR_BREAKER_AUTOMATIC = 0,
  AGR_BREAKER_FORCED_OPEN = 1,   /* refuses everybody until another mode is set */
  AGR_BREAKER_FORCED_CLOSED = 2, /* admits everybody, counts, never trips */
  AGR_BREAKER_DISABLED = 3,      /* admits everybody, counts nothing */
  AGR_BREAKER_OBSERVE = 4        /* runs as AUTOMATIC and counts what it would refuse, but admits it */
};

enum {
  AGR_WINDOW_NONE = 0,
  AGR_WINDOW_COUNT = 1, /* the last window_calls results */
  AGR_WINDOW_TIME = 2   /* the results of the last window_ns, in ten steps */
};

/* At least one way to trip must be on. A rate is reached when it is >= its threshold and at least
 * minimum_calls results are in the window. */
typedef struct agr_breaker_config {
  uint32_t struct_size;
  uint32_t consecutive_failures; /* trip at so many in a row; 0: off; at most 1,000,000; default 0 */
  int32_t window;                /* AGR_WINDOW_*; default COUNT */
  uint32_t window_calls;         /* COUNT: 1 ... 10,000; default 100 */
  int64_t window_ns;             /* TIME: 10 ns ... 1 day; default 30 s */
  uint32_t minimum_calls;        /* 1 ... (COUNT: window_calls, else 1,000,000); default 20 */
  uint32_t half_open_permits;    /* probes at a time, 1 ... 64; default 3 */
  uint32_t half_open_successes;  /* that close it, 1 ... 1000; 0: half_open_permits; default 0 */
  uint32_t max_permits;          /* calls in flight that it can tell apart, 1 ... 1,048,576;
                                    default 4096; 24 bytes each */
  double failure_rate;           /* above 0 ... 1; 0: off; default 0.5 */
  double slow_rate;              /* above 0 ... 1; 0: off; default 0 */
  int64_t slow_call_ns;          /* a call this long or longer is slow; default 60 s */
  int64_t open_ns;               /* the first time it opens, 1 ns ... ; default 5 s */
  int64_t open_max_ns;           /* however often, open_ns ... ; default 5 min */
  double open_growth;            /* factor for each trip in a row, 1 ... 100; default 2. One such
                                    trip is forgotten for each open_ns that it then stays closed. */
  double open_jitter;            /* U(1, 1+jitter) times as long, 0 ... 1; default 0.1 */
  int64_t permit_timeout_ns;     /* a permit not reported by then is void, and frees its place,
                                    1 ns ...; default 10 min */
  uint32_t backpressure_fails;   /* 1: AGR_OUTCOME_BACKPRESSURE counts as a failure; default 0 */
  int32_t mode;                  /* at the start, AGR_BREAKER_AUTOMATIC ...; default AUTOMATIC */
  uint64_t seed;                 /* of the jitter; 0: from the kernel; default 0 */
} agr_breaker_config;

void agr_breaker_config_init(agr_breaker_config *config, uint32_t struct_size);

/* Sets a configuration to a preset (AGR_PRESET_*, backoff.h). PRODUCTION: half of at least 10 of
 * the last 10 calls failed, open 5 s; EDGE: 4 failures in a row, open 5 s; DEVELOPMENT: DISABLED.
 * Errors  AGR_ERR_ARGUMENT: preset, config, config->struct_size. */
agr_status agr_breaker_config_preset(agr_breaker_config *config, int32_t preset, agr_error *error);

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates. */
agr_status agr_breaker_create(const agr_breaker_config *config, agr_breaker **out_breaker,
                              agr_error *error);
void agr_breaker_destroy(agr_breaker *breaker);

/* Asks to make a call.
 *
 * out_permit          to be given to agr_breaker_report once, by any thread; 0 unless AGR_OK.
 * out_retry_after_ns  nullable; with AGR_OPEN when to ask again: when it will be half-open; while
 *                     half-open after open_ns, for a probe can end at any time, or when a probe's
 *                     permit expires if that is sooner; AGR_FOREVER when forced open.
 * Answers             AGR_OK: make the call; AGR_OPEN: do not.
 * Errors              AGR_ERR_ARGUMENT; AGR_ERR_CAPACITY: max_permits calls are in flight.
 * Complexity          O(1); O(max_permits) when nearly all of them are in flight. */
agr_status agr_breaker_acquire(agr_breaker *breaker, uint64_t *out_permit,
                               int64_t *out_retry_after_ns, agr_error *error);
agr_status agr_breaker_acquire_at(agr_breaker *breaker, int64_t now_ns, uint64_t *out_permit,
                                  int64_t *out_retry_after_ns, agr_error *error);

/* Gives a permit back, with how the call ended.
 *
 * outcome     AGR_OUTCOME_*. NEUTRAL (and BACKPRESSURE, unless it counts as failure) only gives it back.
 * latency_ns  how long the call took; 0 ... AGR_TIME_MAX_NS.
 * Answers     AGR_OK: it was counted, or neutral; AGR_STALE: reported before, expired, of an
 *             earlier generation, or never given: nothing changed.
 * Errors      AGR_ERR_ARGUMENT (the permit is still good).
 * Threads     a permit's place is free a moment before its result is judged; results of one instant are
 *             looked at together; in the instant of a trip calls still pass, and a result may be answered
 *             AGR_OK and count no more.
 * Complexity  O(1); O(window_calls / 16) when the outcome is a failure or slow. */
agr_status agr_breaker_report(agr_breaker *breaker, uint64_t permit, int32_t outcome,
                              int64_t latency_ns, agr_error *error);
agr_status agr_breaker_report_at(agr_breaker *breaker, uint64_t permit, int32_t outcome,
                                 int64_t latency_ns, int64_t now_ns, agr_error *error);

/* The state, AGR_BREAKER_CLOSED ... HALF_OPEN, as an acquire at this moment would find it.
 * Errors  AGR_ERR_ARGUMENT. */
agr_status agr_breaker_state(const agr_breaker *breaker, int32_t *out_state, agr_error *error);
agr_status agr_breaker_state_at(const agr_breaker *breaker, int64_t now_ns, int32_t *out_state,
                                agr_error *error);

/* Sets the mode, AGR_BREAKER_AUTOMATIC ... OBSERVE. Another mode than the present one starts afresh:
 * closed, a new generation, nothing counted.
 * Errors  AGR_ERR_ARGUMENT. */
agr_status agr_breaker_force(agr_breaker *breaker, int32_t mode, agr_error *error);
agr_status agr_breaker_force_at(agr_breaker *breaker, int32_t mode, int64_t now_ns,
                                agr_error *error);

/* Counters since creation, and the window as it is. A reading under load is not one instant. */
typedef struct agr_breaker_snapshot {
  uint32_t struct_size;
  int32_t state;
  int32_t mode;
  uint32_t trips_in_a_row;
  uint64_t generation;
  int64_t state_age_ns;
  int64_t retry_after_ns;       /* open: until half-open; else 0 */
  uint64_t window_total;
  uint64_t window_failures;
  uint64_t window_slow;
  uint32_t consecutive_failures;
  uint32_t half_open_in_flight;
  uint64_t refused;
  uint64_t would_refuse;        /* admitted only because of OBSERVE */
  uint64_t stale;               /* reports answered AGR_STALE */
  uint64_t trips;
} agr_breaker_snapshot;

/* out_snapshot: struct_size set by the caller.  Errors  AGR_ERR_ARGUMENT.
 * Complexity  O(window). */
agr_status agr_breaker_snapshot_read(const agr_breaker *breaker, agr_breaker_snapshot *out_snapshot,
                                     agr_error *error);
agr_status agr_breaker_snapshot_read_at(const agr_breaker *breaker, int64_t now_ns,
                                        agr_breaker_snapshot *out_snapshot, agr_error *error);

/* A change of state. The last 64 are kept. */
typedef struct agr_breaker_event {
  uint32_t struct_size;
  int32_t from_state;
  int32_t to_state;
  int32_t mode;
  uint64_t generation; /* the new one */
  int64_t time_ns;     /* on the caller's scale */
  int64_t open_for_ns; /* to_state OPEN: how long; else 0 */
} agr_breaker_event;

/* Reads the next change of state. Readers are independent: each keeps a cursor of its own.
 *
 * cursor     in and out; 0 at first.
 * out_event  struct_size set by the caller.
 * out_lost   nullable; how many were overwritten before they could be read.
 * Answers    AGR_OK, AGR_EMPTY.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_breaker_next_event(const agr_breaker *breaker, uint64_t *cursor,
                                  agr_breaker_event *out_event, uint64_t *out_lost,
                                  agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
