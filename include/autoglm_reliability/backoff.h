/* SPDX-License-Identifier: Apache-2.0
 * Backoff, retry rules, server hints, retry budget. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_BACKOFF_H
#define AUTOGLM_RELIABILITY_BACKOFF_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Backoff: how long to wait before the next attempt. Pure functions. ---- */

/* The shape of the delay d before jitter, for attempt n = 1, 2, ... that has just failed. */
enum {
  AGR_BACKOFF_CONSTANT = 1,            /* base */
  AGR_BACKOFF_LINEAR = 2,              /* base * n */
  AGR_BACKOFF_EXPONENTIAL = 3,         /* base * multiplier^(n-1) */
  AGR_BACKOFF_DECORRELATED = 4,        /* U(base, 3*previous); AWS architecture blog, 2015 */
  AGR_BACKOFF_SMOOTH_DECORRELATED = 5, /* f(n-1+U(0,1)) - previous f, f(t) = 2^t*tanh(sqrt(4t))
                                          * base/1.4; Polly's DecorrelatedJitterBackoffV2 */
  AGR_BACKOFF_ADAPTIVE = 6             /* 2*previous; agr_backoff_adapt shrinks it again */
};

/* What chance does to the delay d. U(a,b) is uniform. Jitter never exceeds max_delay_ns. */
enum {
  AGR_JITTER_NONE = 0,
  AGR_JITTER_FULL = 1,         /* U(0, d) */
  AGR_JITTER_EQUAL = 2,        /* d/2 + U(0, d/2) */
  AGR_JITTER_PROPORTIONAL = 3, /* d * U(1-ratio, 1+ratio) */
  AGR_JITTER_DECORRELATED = 4  /* U(base, 3*previous), whatever the strategy */
};

typedef struct agr_backoff_config {
  uint32_t struct_size;
  int32_t strategy;       /* AGR_BACKOFF_*; default EXPONENTIAL */
  int32_t jitter;         /* AGR_JITTER_*; default FULL. The decorrelated shapes are random
                             themselves and take NONE only. */
  uint32_t max_attempts;  /* attempts in all, the first among them; 0: no limit; default 3 */
  int64_t base_delay_ns;  /* 0 ... max_delay_ns; default 100 ms */
  int64_t max_delay_ns;   /* at most AGR_TIME_MAX_NS; default 20 s. No delay is longer. */
  int64_t min_delay_ns;   /* ADAPTIVE: the floor, 0 ... max_delay_ns; default 10 ms */
  int64_t fast_success_ns;/* ADAPTIVE: a success quicker than this halves the delay; default 100 ms */
  double multiplier;      /* EXPONENTIAL: 1 ... 1000; default 2 */
  double jitter_ratio;    /* PROPORTIONAL: 0 ... 1; default 0.5 */
} agr_backoff_config;

/* Fills in the defaults. config: NULL is a no-op. struct_size: sizeof(agr_backoff_config). */
void agr_backoff_config_init(agr_backoff_config *config, uint32_t struct_size);

/* The delay to wait after an attempt that failed.
 *
 * attempt        the number of the attempt that failed, 1 ... 2^32-1; it never overflows.
 * previous_ns    the delay before that attempt, 0 at the first; used by DECORRELATED and ADAPTIVE.
 * random         64 uniform bits, from agr_random or a stream of one's own.
 * out_delay_ns   0 ... max_delay_ns.
 * Answers        AGR_OK; AGR_EXHAUSTED when attempt >= max_attempts (0 is written).
 * Errors         AGR_ERR_ARGUMENT: a field of config, attempt 0, previous_ns out of range, NULL.
 * Complexity     O(log attempt) multiplications. */
agr_status agr_backoff_delay(const agr_backoff_config *config, uint32_t attempt,
                             int64_t previous_ns, uint64_t random, int64_t *out_delay_ns,
                             agr_error *error);

/* The next base of an ADAPTIVE backoff: half after a success quicker than fast_success_ns, the
 * same after a slower one or a neutral outcome, double after a failure or backpressure, within
 * min_delay_ns ... max_delay_ns.
 *
 * current_ns     the present delay, 0 ... AGR_TIME_MAX_NS; 0 means base_delay_ns.
 * outcome        AGR_OUTCOME_*.
 * latency_ns     how long the call took, 0 ... AGR_TIME_MAX_NS.
 * out_next_ns    min_delay_ns ... max_delay_ns.
 * Errors         AGR_ERR_ARGUMENT. */
agr_status agr_backoff_adapt(const agr_backoff_config *config, int64_t current_ns, int32_t outcome,
                             int64_t latency_ns, int64_t *out_next_ns, agr_error *error);

/* ---- Classes of error, and what each gets ---- */

enum {
  AGR_CLASS_SUCCESS = 1,
  AGR_CLASS_TRANSIENT = 2, /* retry, exponential: connection reset, 502 */
  AGR_CLASS_TEMPORARY = 3, /* retry, fixed delay: 429, 503; backpressure to the breaker */
  AGR_CLASS_PERMANENT = 4, /* never retry: 400; neutral to the breaker */
  AGR_CLASS_CANCELLED = 5, /* the caller gave up: never retry, neutral everywhere */
  AGR_CLASS_UNKNOWN = 6    /* sent, and no reply: retried only if the request carries a key (or the
                              configuration allows it); a failure to the breaker */
};

/* What a code is a code of. */
enum {
  AGR_DOMAIN_NONE = 0,  /* agr_outcome.error_class is given by the caller */
  AGR_DOMAIN_HTTP = 1,  /* status code, 100 ... 599 */
  AGR_DOMAIN_ERRNO = 2, /* errno of a system call */
  AGR_DOMAIN_USER = 3   /* the caller's own numbers; only its own rules match them */
};

#define AGR_RETRIES_DEFAULT UINT32_C(0xffffffff)
#define AGR_DELAY_DEFAULT INT64_C(-1)

/* One line of a table: the first line that matches decides. */
typedef struct agr_retry_rule {
  int32_t domain;         /* AGR_DOMAIN_* but NONE */
  int32_t code_min;       /* the codes code_min ... code_max match */
  int32_t code_max;
  int32_t error_class;    /* AGR_CLASS_* */
  uint32_t max_retries;   /* for this reason; AGR_RETRIES_DEFAULT: only max_attempts bounds it */
  uint32_t reserved;      /* 0 */
  int64_t first_delay_ns; /* TRANSIENT: replaces base_delay_ns; TEMPORARY: the fixed delay;
                             AGR_DELAY_DEFAULT: base_delay_ns, and temporary_delay_ns */
} agr_retry_rule;

/* Retry: a backoff, a table of rules, and how far a server's hint is followed. */
typedef struct agr_retry_config {
  uint32_t struct_size;
  uint32_t rule_count;              /* 0 ... 64; 0: the default table */
  const agr_retry_rule *rules;      /* copied by whoever keeps the configuration */
  agr_backoff_config backoff;
  int64_t temporary_delay_ns;       /* TEMPORARY without a hint; 0 ... ; default 1 s */
  int64_t max_server_delay_ns;      /* a longer hint means: give up; default 120 s */
  int64_t server_delay_spread_ns;   /* the most that is added to a hint; default 5 s */
  uint32_t retry_unknown;           /* 1: UNKNOWN is retried without a key too; default 0 */
  uint32_t reserved;                /* 0 */
} agr_retry_config;

void agr_retry_config_init(agr_retry_config *config, uint32_t struct_size);

/* Presets. Each sets every field of the configuration of the part it is given. */
enum {
  AGR_PRESET_DEVELOPMENT = 1, /* 2 retries from 100 ms, no breaker */
  AGR_PRESET_PRODUCTION = 2,  /* 3 retries from 200 ms, breaker */
  AGR_PRESET_EDGE = 3         /* 1 retry after 500 ms, breaker */
};

/* Sets a retry configuration to a preset. struct_size must be set.
 * Errors  AGR_ERR_ARGUMENT: preset, config, config->struct_size. */
agr_status agr_retry_config_preset(agr_retry_config *config, int32_t preset, agr_error *error);

/* The default table: errno ETIMEDOUT UNKNOWN 3 x 1 s; HTTP 503 TEMPORARY 2 x 2 s; 401 TRANSIENT 1 x 0 s;
 * 408 UNKNOWN 3 x 1 s; 429 TEMPORARY; 409, 425, 500, 502 ... 504, 507 ... 599 TRANSIENT; 400 ... 499,
 * 501, 505, 506 PERMANENT; 100 ... 399 SUCCESS; errno ECONNRESET, EPIPE UNKNOWN; ECANCELED CANCELLED;
 * every other errno TRANSIENT (ECONNREFUSED and its like come before anything was sent).
 *
 * rules      capacity elements; NULL with capacity 0 asks for the count.
 * out_count  how many there are.
 * Errors     AGR_ERR_CAPACITY: capacity is too small and not 0 (out_count is written). */
agr_status agr_retry_rules_default(agr_retry_rule *rules, uint32_t capacity, uint32_t *out_count,
                                   agr_error *error);

/* The rule which a code falls under.
 *
 * config    NULL: the default table.
 * domain    HTTP, ERRNO or USER.
 * out_rule  a copy of the first that matches.
 * Answers   AGR_OK; AGR_NOT_FOUND (out_rule is a TRANSIENT default).
 * Errors    AGR_ERR_ARGUMENT.
 * Complexity  O(rules). */
agr_status agr_retry_classify(const agr_retry_config *config, int32_t domain, int32_t code,
                              agr_retry_rule *out_rule, agr_error *error);

/* Whether to retry, and when.
 *
 * attempt           the attempt that failed, 1 ... 2^32-1.
 * reason_retries    how many retries were made for this same rule already.
 * rule              from agr_retry_classify, or the caller's own.
 * has_key           1: the upstream recognises a repeated request (UNKNOWN may be retried).
 * previous_ns       the last delay, 0 at first.
 * server_delay_ns   what the server asked for; -1: nothing; AGR_FOREVER: never retry.
 * random            64 uniform bits.
 * out_delay_ns      the delay; with a hint t it is t + U(0, the delay without a hint), at most
 *                   t + server_delay_spread_ns: never less than t.
 * Answers           AGR_OK: retry after the delay; AGR_EXHAUSTED: stop (class, attempts, the
 *                   rule's retries, or a hint beyond max_server_delay_ns).
 * Errors            AGR_ERR_ARGUMENT. */
agr_status agr_retry_decide(const agr_retry_config *config, uint32_t attempt,
                            uint32_t reason_retries, const agr_retry_rule *rule, uint32_t has_key,
                            int64_t previous_ns, int64_t server_delay_ns, uint64_t random,
                            int64_t *out_delay_ns, agr_error *error);

/* ---- What servers say ---- */

enum {
  AGR_HINT_RETRY_AFTER = 1,    /* RFC 9110: seconds (a fraction is allowed), or an HTTP date in any
                                  of its three formats, whose day of the week is not looked at */
  AGR_HINT_RETRY_AFTER_MS = 2, /* milliseconds, a fraction is allowed */
  AGR_HINT_DURATION = 3        /* "6m0s", "20ms", "1h2m3.5s"; units h m s ms us ns; x-ratelimit-reset-* */
};

/* Reads a server's hint. Rounds up to whole nanoseconds; a date that has passed gives 0.
 *
 * text, length   need not end with NUL; blanks around it are ignored; at most 128 bytes.
 * wall_now_ns    the time since 1970 (CLOCK_REALTIME), for dates; 0 ... AGR_TIME_MAX_NS.
 * out_delay_ns   0 ... AGR_TIME_MAX_NS; longer delays saturate.
 * Errors         AGR_ERR_PARSE: not in the format, or negative; AGR_ERR_ARGUMENT.
 * Complexity     O(length). */
agr_status agr_hint_parse(int32_t kind, const char *text, size_t length, int64_t wall_now_ns,
                          int64_t *out_delay_ns, agr_error *error);

/* ---- Retry budget: retries as a share of traffic, so that they cannot become the load ---- */

/* A token bucket in thousandths of a retry: `ratio` flows in with each request, min_per_second with
 * time, and a retry takes one out. Finagle's RetryBudget and gRPC's throttling, in one. */
typedef struct agr_retry_budget agr_retry_budget;

typedef struct agr_retry_budget_config {
  uint32_t struct_size;
  uint32_t min_per_second; /* retries that flow in without traffic, 0 ... 1,000,000; default 10 */
  double ratio;            /* retries per request, 0 ... 1000, in thousandths; default 0.2 */
  uint32_t quota;          /* the most retries that can be saved up, 1 ... 1,000,000; default 100 */
  uint32_t initial;        /* at the start, 0 ... quota; default 100 */
} agr_retry_budget_config;

void agr_retry_budget_config_init(agr_retry_budget_config *config, uint32_t struct_size);

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates. */
agr_status agr_retry_budget_create(const agr_retry_budget_config *config,
                                   agr_retry_budget **out_budget, agr_error *error);
agr_status agr_retry_budget_create_at(const agr_retry_budget_config *config, int64_t now_ns,
                                      agr_retry_budget **out_budget, agr_error *error);
void agr_retry_budget_destroy(agr_retry_budget *budget);

/* Takes the cost of a retry out. cost: whole retries, 0 ... quota; 1 is usual, more weighs a timeout.
 * out_retry_after_ns: nullable; with AGR_EXHAUSTED, when it will be there without traffic, or
 * AGR_FOREVER.
 * Answers  AGR_OK, AGR_EXHAUSTED.  Errors  AGR_ERR_ARGUMENT, AGR_ERR_NEVER_FITS. */
agr_status agr_retry_budget_withdraw(agr_retry_budget *budget, uint32_t cost,
                                     int64_t *out_retry_after_ns, agr_error *error);
agr_status agr_retry_budget_withdraw_at(agr_retry_budget *budget, uint32_t cost, int64_t now_ns,
                                        int64_t *out_retry_after_ns, agr_error *error);

/* Puts `ratio` in for each of `requests` first attempts, up to the quota.
 * Errors  AGR_ERR_ARGUMENT. */
agr_status agr_retry_budget_deposit(agr_retry_budget *budget, uint32_t requests, agr_error *error);
agr_status agr_retry_budget_deposit_at(agr_retry_budget *budget, uint32_t requests, int64_t now_ns,
                                       agr_error *error);

/* What is in it. out_thousandths: 0 ... 1000 * quota.  Errors  AGR_ERR_ARGUMENT. */
agr_status agr_retry_budget_balance(const agr_retry_budget *budget, int64_t *out_thousandths,
                                    agr_error *error);
agr_status agr_retry_budget_balance_at(const agr_retry_budget *budget, int64_t now_ns,
                                       int64_t *out_thousandths, agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
