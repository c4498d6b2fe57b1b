/* SPDX-License-Identifier: Apache-2.0
 * A fuzzer's bytes as numbers, times and texts. Whatever the bytes, the library must answer with a status;
 * an invariant that does not hold ends the process, which the fuzzer reports. */
#ifndef BYTES_H
#define BYTES_H

#include <autoglm_reliability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const uint8_t *data; size_t size; } bytes;

#define HOLDS(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                              \
    }                                                                       \
  } while (0)

static inline uint64_t take(bytes *in, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count && in->size > 0; ++i, ++in->data, --in->size)
    value |= (uint64_t)*in->data << (8 * i);
  return value;
}

static inline uint8_t u8(bytes *in) { return (uint8_t)take(in, 1); }
static inline uint32_t u32(bytes *in) { return (uint32_t)take(in, 4); }

/* Small numbers, extreme ones, and any. */
static inline int64_t i64(bytes *in) {
  static const int64_t extremes[] = {0,         1,         -1,        INT64_MIN,           INT64_MAX,
                                     1 << 20,   INT64_C(1) << 50, (INT64_C(1) << 50) + 1, AGR_TIME_MAX_NS,
                                     AGR_TIME_MAX_NS + 1, 1000000000, INT64_C(1) << 40};
  uint8_t kind = u8(in);
  if (kind < 160) return kind;
  if (kind < 200) return extremes[kind % (sizeof extremes / sizeof *extremes)];
  if (kind < 230) return (int64_t)take(in, 4);
  return (int64_t)take(in, 8);
}

static inline double real(bytes *in) {
  uint8_t kind = u8(in);
  double value;
  if (kind < 200) return kind / 100.0;
  uint64_t raw = take(in, 8);
  memcpy(&value, &raw, sizeof value);
  return value; /* NaN and infinity among them */
}

/* A clock that mostly goes forward, and at times anywhere. */
static inline int64_t clock_step(bytes *in, int64_t *now) {
  uint8_t kind = u8(in);
  if (kind < 200) *now += (int64_t)kind * kind * 100000;
  else if (kind < 230) *now -= (int64_t)take(in, 3) * 1000;
  else if (kind < 240) *now = i64(in);
  if (kind != 239 && (*now < 0 || *now > AGR_TIME_MAX_NS)) *now = 0;
  return *now;
}

static inline void check_status(agr_status status, const agr_error *error) {
  HOLDS(strcmp(agr_status_name(status), "AGR_UNKNOWN") != 0);
  HOLDS(status >= 0 || (error->status == status && error->message[0] != 0));
}

/* Sometimes a size that is none. */
static inline void spoil(bytes *in, uint32_t *struct_size) {
  if (u8(in) > 250) *struct_size = u32(in);
}

#endif
