/* SPDX-License-Identifier: Apache-2.0
 * Statuses, errors, outcomes, time, randomness. Conventions: autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_COMMON_H
#define AUTOGLM_RELIABILITY_COMMON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. agr_version() tells the library's. */
#define AGR_VERSION_MAJOR 0
#define AGR_VERSION_MINOR 1
#define AGR_VERSION_PATCH 0

/* The largest timestamp or finite duration, 2^62 - 1 ns. */
#define AGR_TIME_MAX_NS INT64_C(4611686018427387903)
/* "No limit", "never clears". */
#define AGR_FOREVER INT64_C(9223372036854775807)
/* The most cost dimensions that one request can have. */
#define AGR_DIMENSIONS_MAX 4

typedef int32_t agr_status;

/* Values of agr_status. A number is never reused. */
enum {
  AGR_OK = 0,
  /* Answers. */
  AGR_LIMITED = 1,     /* not enough tokens now; retry_after_ns says when there are */
  AGR_OPEN = 2,        /* the breaker admits nobody now */
  AGR_IN_PROGRESS = 3, /* another caller is executing this key */
  AGR_REPLAY = 4,      /* the key has a result; here it is */
  AGR_STALE = 5,       /* late, duplicate or unknown permit, lease, ticket or pin: nothing changed */
  AGR_MISMATCH = 6,    /* the key is in use with another fingerprint */
  AGR_EXHAUSTED = 7,   /* no attempt, or no retry budget, is left */
  AGR_TIMED_OUT = 8,   /* the time given ran out; nothing changed */
  AGR_EMPTY = 9,       /* there is no event to read */
  AGR_NOT_FOUND = 10,  /* the key is not known */
  /* Errors. */
  AGR_ERR_ARGUMENT = -1,    /* a value is out of its range; error->field names it */
  AGR_ERR_NO_MEMORY = -2,   /* an allocation failed; the handle is as it was */
  AGR_ERR_CAPACITY = -3,    /* a bound that the configuration set is reached */
  AGR_ERR_STORE = -4,       /* a store failed */
  AGR_ERR_STATE = -5,       /* the call is out of order */
  AGR_ERR_NEVER_FITS = -6,  /* larger than the bucket or the cache can ever hold */
  AGR_ERR_PARSE = -7,       /* the text is not in the format */
  AGR_ERR_SYSTEM = -8,      /* the operating system refused; error->system_errno says why */
  AGR_ERR_REGION = -9,      /* the shared memory is not one that can be used; error->message says why */
  AGR_ERR_MISMATCH = -10    /* it is there with another configuration; error->field names the difference */
};

/* What went wrong. Owned by the caller; both texts end with NUL. Never grows. */
typedef struct agr_error {
  agr_status status;
  int32_t system_errno; /* with AGR_ERR_SYSTEM, else 0 */
  char field[56];       /* the field, argument or component; may be empty */
  char message[192];    /* one sentence */
} agr_error;

/* How a call ended, as a breaker sees it. */
enum {
  AGR_OUTCOME_SUCCESS = 1,
  AGR_OUTCOME_FAILURE = 2,
  AGR_OUTCOME_NEUTRAL = 3,     /* cancelled, or the caller's own mistake: counts nowhere */
  AGR_OUTCOME_BACKPRESSURE = 4 /* the upstream is alive and asks for less (429, 503) */
};

/* The library's version, "major.minor.patch". Static; never NULL. */
const char *agr_version(void);

/* The name of a status, such as "AGR_LIMITED"; "AGR_UNKNOWN" for any other number. Static. */
const char *agr_status_name(agr_status status);

/* The time, as every function without _at reads it, on the scale of CLOCK_MONOTONIC. [ns]
 *
 * Where the kernel itself takes its time from the processor's counter (x86: an invariant TSC, and clocksource
 * tsc; ARM: the generic timer), the library reads that counter itself, from
 * 20 ms after it was first asked for the time on. This clock never steps back, in no thread, and is
 * never ahead of CLOCK_MONOTONIC; it is behind it by less than AGR_CLOCK_LAG_NS, as it is set by it again
 * after every millisecond. (While the system's clock is slewed by more than 500 ppm it may be ahead, by what
 * that makes in a millisecond.) It is right after a suspension and in the child of a fork. Elsewhere it is
 * CLOCK_MONOTONIC. Functions that block read CLOCK_MONOTONIC for their deadlines. */
int64_t agr_now_ns(void);

#define AGR_CLOCK_LAG_NS 20000

/* Where the time is taken from. */
enum {
  AGR_CLOCK_AUTO = 0,   /* the counter where the kernel trusts it, else the system; the default */
  AGR_CLOCK_SYSTEM = 1, /* clock_gettime(CLOCK_MONOTONIC) */
  AGR_CLOCK_COUNTER = 2 /* the processor's counter */
};

/* Chooses, for the whole process. COUNTER is AUTO that is refused where AUTO would mean the system. The time
 * may step back by AGR_CLOCK_LAG_NS for threads that read it during the call.
 * Errors  AGR_ERR_ARGUMENT; AGR_ERR_SYSTEM (ENOTSUP): the kernel does not trust the counter, or
 *         forbids it. */
agr_status agr_clock_select(int32_t source, agr_error *error);

/* What the next reading takes: AGR_CLOCK_SYSTEM or AGR_CLOCK_COUNTER. */
int32_t agr_clock_source(void);

/* The next number of the process's random stream: uniform 64 bits, seeded by the kernel, another
 * stream after fork. Not for secrets. Lock-free. */
uint64_t agr_random(void);

/* The next number of a stream of one's own: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
 *
 * state       in and out; any value is a valid seed, and the same seed gives the same stream.
 * out_random  64 uniform bits.
 * Errors      AGR_ERR_ARGUMENT: a NULL pointer.
 * Threads     one thread at a time for one state. */
agr_status agr_random_next(uint64_t *state, uint64_t *out_random, agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
