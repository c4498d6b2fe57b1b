/* SPDX-License-Identifier: Apache-2.0
 * Shared memory in which the processes of a host find one limiter, breaker or retry budget by name. Conventions:
 * autoglm_reliability.h. */
#ifndef AUTOGLM_RELIABILITY_REGION_H
#define AUTOGLM_RELIABILITY_REGION_H

#include "backoff.h"
#include "breaker.h"
#include "common.h"
#include "limiter.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A region: memory that several processes map, and a directory of the objects in it.
 *
 * All that a decision needs is exchanged in place: there is no daemon, no lock and no file of a lock. A process may
 * be killed at any instruction. What it was about to create is created by the next one that asks for it; what it was
 * about to change is changed or is not; permits and reservations that it held expire by their time-out; a
 * permit that it was taking expires as much later as the table is full. (A process that is stopped in the
 * middle of taking a permit, and goes on after a permit's time-out, may end one permit that another holds.)
 *
 * All processes use one clock, CLOCK_MONOTONIC, or with _at one scale of their own; processes in different time
 * namespaces must not share a region. The state is gone with the machine's next start, as the clock is.
 *
 * What is in a region is not trusted: another user's, another version's, or a damaged one is refused when it is
 * opened, and whatever another process writes into it later may change answers, and nothing else. One thing
 * cannot be helped: a process that truncates the file of a named region which others have mapped ends
 * them by SIGBUS. It takes a process of the same user (or of those that the mode lets write).
 *
 * A handle is of one process; after fork the child may use it too, and shares the state with its parent. */
typedef struct agr_region agr_region;

/* The longest name of a region or of an object, in bytes, without the NUL. */
#define AGR_NAME_MAX 63

/* What to do about the region's file. */
enum {
  AGR_REGION_OPEN_OR_CREATE = 0,
  AGR_REGION_OPEN = 1,  /* AGR_ERR_SYSTEM (ENOENT) if there is none */
  AGR_REGION_CREATE = 2 /* AGR_ERR_SYSTEM (EEXIST) if there is one */
};

typedef struct agr_region_config {
  uint32_t struct_size;
  uint32_t mode;        /* permissions of the file that is created, and the most that one which is opened may
                           have: 0600, 0660 or 0666 and what lies between; default 0600 */
  int64_t owner;        /* whose file it must be, a user id; -1: the process's effective user; default -1 */
  uint32_t max_objects; /* that it has room for, also of those removed, 1 ... 65,536; default 64; 704 bytes each.
                           Of a region that is opened this is not looked at. */
  int32_t disposition;  /* AGR_REGION_*; default OPEN_OR_CREATE */
} agr_region_config;

void agr_region_config_init(agr_region_config *config, uint32_t struct_size);

/* Opens the region of a name, or creates it: /dev/shm/agr.NAME. However many processes do so at once, one
 * creates it, and it is seen when it is complete.
 *
 * name    1 ... AGR_NAME_MAX of A-Z a-z 0-9 . _ -, not beginning with a dot. NULL: a new region without a name
 *         (memfd, which nobody can truncate), for children of fork and for those who are given agr_region_fd.
 * bytes   its size, rounded up to whole pages: at least 8,192 and what max_objects needs, at most 2^40. All of it is
 *         taken at once. 0, where one is opened: whatever it has; where one is created: 1 MiB.
 * config  nullable: the defaults.
 * Errors  AGR_ERR_ARGUMENT (`bytes`: an existing one has another size); AGR_ERR_SYSTEM (ENOSPC, EACCES, ...);
 *         AGR_ERR_REGION: it is another user's, may be written by too many, or is not a region of this version;
 *         AGR_ERR_NO_MEMORY. */
agr_status agr_region_open(const char *name, uint64_t bytes, const agr_region_config *config,
                           agr_region **out_region, agr_error *error);

/* Opens the region that a descriptor refers to, which stays the caller's. `mode` and `owner` of the configuration
 * hold, the rest is not looked at.
 * Errors  as agr_region_open. */
agr_status agr_region_open_fd(int32_t fd, const agr_region_config *config, agr_region **out_region,
                              agr_error *error);

/* The region's descriptor, which is closed with the region (and on exec: duplicate it for a child).
 * Errors  AGR_ERR_ARGUMENT. */
agr_status agr_region_fd(const agr_region *region, int32_t *out_fd, agr_error *error);

/* Closes the handle; NULL is a no-op. The memory stays mapped until the last of the objects that this process
 * has of it is destroyed. What is in it stays for others, and for later. */
void agr_region_close(agr_region *region);

/* Takes a region's name away. Whoever has it open goes on with it; who opens the name next creates another.
 * Answers  AGR_OK, AGR_NOT_FOUND.  Errors  AGR_ERR_ARGUMENT, AGR_ERR_SYSTEM. */
agr_status agr_region_unlink(const char *name, agr_error *error);

/* What an object is. */
enum {
  AGR_OBJECT_LIMITER = 1,
  AGR_OBJECT_KEYED_LIMITER = 2,
  AGR_OBJECT_BREAKER = 3,
  AGR_OBJECT_RETRY_BUDGET = 4
};

/* ---- Objects: found by name, or created ----
 *
 * As the function of the same name without _in_region; the handle is used, and destroyed, as any other, which
 * leaves the object in the region. The first one to ask creates it, the others find it, whatever the order.
 *
 * name    1 ... AGR_NAME_MAX bytes, of the same characters as a region's name.
 * config  must be what the object was created with, or for what _reconfigure changes (capacity, refill and
 *         debt, refill as a reduced fraction), what holds now.
 * Errors  AGR_ERR_MISMATCH: it is there with another configuration, `field` names the first difference (`name`: it
 *         is of another kind); AGR_ERR_CAPACITY: no room (`bytes`), or too many objects (`max_objects`);
 *         AGR_ERR_STATE: others create objects without an end, try again; AGR_ERR_REGION: the
 *         directory is damaged; AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY. Allocates.
 * Complexity  O(objects). */
agr_status agr_limiter_create_in_region(agr_region *region, const char *name,
                                        const agr_limiter_config *config, agr_limiter **out_limiter,
                                        agr_error *error);
agr_status agr_limiter_create_in_region_at(agr_region *region, const char *name,
                                           const agr_limiter_config *config, int64_t now_ns,
                                           agr_limiter **out_limiter, agr_error *error);
agr_status agr_keyed_limiter_create_in_region(agr_region *region, const char *name,
                                              const agr_keyed_limiter_config *config,
                                              agr_keyed_limiter **out_limiter, agr_error *error);
agr_status agr_breaker_create_in_region(agr_region *region, const char *name,
                                        const agr_breaker_config *config, agr_breaker **out_breaker,
                                        agr_error *error);
agr_status agr_retry_budget_create_in_region(agr_region *region, const char *name,
                                             const agr_retry_budget_config *config,
                                             agr_retry_budget **out_budget, agr_error *error);
agr_status agr_retry_budget_create_in_region_at(agr_region *region, const char *name,
                                                const agr_retry_budget_config *config, int64_t now_ns,
                                                agr_retry_budget **out_budget, agr_error *error);

/* Takes an object's name away. Those who have it go on with it among themselves; who asks for the name next
 * creates another. Its memory comes back with the region only.
 * Answers  AGR_OK, AGR_NOT_FOUND.  Errors  AGR_ERR_ARGUMENT, AGR_ERR_REGION. */
agr_status agr_region_remove(agr_region *region, const char *name, agr_error *error);

typedef struct agr_region_object {
  uint32_t struct_size;
  int32_t kind;   /* AGR_OBJECT_* */
  uint64_t state_bytes; /* that it takes */
  char name[64];
} agr_region_object;

/* The objects, one a call, in the order in which they were created.
 *
 * cursor      0 for the first; moves on.
 * Answers     AGR_OK; AGR_EMPTY: there are no more.  Errors  AGR_ERR_ARGUMENT, AGR_ERR_REGION. */
agr_status agr_region_next_object(const agr_region *region, uint64_t *cursor,
                                  agr_region_object *out_object, agr_error *error);

typedef struct agr_region_snapshot {
  uint32_t struct_size;
  uint32_t objects;      /* that have a name */
  uint32_t max_objects;
  uint32_t used_objects; /* places of max_objects that are taken: by those, and by those removed */
  uint64_t bytes;
  uint64_t used_bytes;
  uint64_t free_bytes;   /* for further objects */
} agr_region_snapshot;

/* Errors  AGR_ERR_ARGUMENT, AGR_ERR_REGION.  Complexity  O(max_objects). */
agr_status agr_region_snapshot_read(const agr_region *region, agr_region_snapshot *out_snapshot,
                                    agr_error *error);

#ifdef __cplusplus
}
#endif
#endif
