/* SPDX-License-Identifier: Apache-2.0
 * What the groups of the conformance suite have in common. */
#ifndef CONFORMANCE_TOOLS_H
#define CONFORMANCE_TOOLS_H

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../c/check.h"
#include "conformance.h"

static agr_store_driver first, second;

static const int64_t timeout = 10000000000, hour = 3600000000000, moment = 30000000;
enum { MOST_BYTES = 1 << 16 };

static agr_error last_error;

static agr_error *fresh_error(void) {
  memset(&last_error, 0, sizeof last_error);
  return &last_error;
}

/* An error is said in words. */
#define CHECK_STATUS(call, wanted)                                                        \
  do {                                                                                    \
    const agr_status status_ = (call);                                                    \
    CHECK_EQUAL(status_, wanted, #call);                                                  \
    if (status_ < 0) CHECK(memchr(last_error.message, 0, sizeof last_error.message) &&    \
                           last_error.message[0]);                                        \
    if (status_ < 0 && status_ != (wanted)) fprintf(stderr, "  %s\n", last_error.message); \
  } while (0)
#define CHECK_OK(call) CHECK_STATUS(call, AGR_OK)

static uint64_t draw(void) {
  static uint64_t state;
  struct timespec now;
  if (!state) {
    clock_gettime(CLOCK_REALTIME, &now);
    state = (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
  }
  /* SplitMix64. */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* A space of this run of the suite. */
static const char *space(void) {
  static char name[32];
  if (!name[0]) snprintf(name, sizeof name, "suite-%016llx", (unsigned long long)draw());
  return name;
}

static agr_store_key key_in(const char *in, const void *data, size_t length) {
  return (agr_store_key){in, strlen(in), data, length};
}

/* A key that nobody has used. It lives until the next 64 were made. */
static agr_store_key new_key(void) {
  static char names[64][24];
  static int next;
  char *name = names[next++ % 64];
  snprintf(name, 24, "k%016llx", (unsigned long long)draw());
  return key_in(space(), name, strlen(name));
}

/* Waits for what the store's clock alone can bring about, and gives up after ten seconds. */
struct patience {
  struct timespec start;
};
static struct patience be_patient(void) {
  struct patience patience;
  clock_gettime(CLOCK_MONOTONIC, &patience.start);
  return patience;
}
static int has_patience(const struct patience *patience) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  return now.tv_sec - patience->start.tv_sec < 10;
}

#endif
