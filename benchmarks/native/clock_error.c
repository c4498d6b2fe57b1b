/* SPDX-License-Identifier: Apache-2.0
 * How far the library's clock is from CLOCK_MONOTONIC, looked at in bursts, at random moments, for minutes.
 *
 *   clock_error [SECONDS]
 *
 * A reading lies between two of CLOCK_MONOTONIC, so its error is known as exactly as they are apart: `behind`
 * and `ahead` are what is certain, `typical` is from the middle of the two where they are close together. */
#include <autoglm_reliability.h>

#include "bench.h"

enum { BURST = 20, CLOSE_NS = 300, BUCKETS = 40000 };

/* How often a lag of so many nanoseconds was seen, rounded down; the last is all that is more. */
static int64_t lags[BUCKETS + 1];

static int64_t quantile(int64_t total, double part) {
  int64_t seen = 0;
  for (int i = 0; i <= BUCKETS; ++i)
    if ((double)(seen += lags[i]) >= part * (double)total) return i;
  return BUCKETS;
}

int main(int count, char **arguments) {
  const int64_t seconds = count > 1 ? atoll(arguments[1]) : 300;
  const int64_t end = bench_now() + seconds * 1000000000;
  while (agr_clock_source() != AGR_CLOCK_COUNTER && bench_now() < end - seconds * 900000000)
    (void)agr_now_ns();
  uint64_t state = (uint64_t)end;
  int64_t readings = 0, close = 0, behind = 0, ahead = 0, back = 0, latest = 0;
  while (bench_now() < end) {
    for (int i = 0; i < BURST; ++i) {
      const int64_t before = bench_now(), now = agr_now_ns(), after = bench_now();
      ++readings;
      back += now < latest;
      latest = now;
      if (before - now > behind) behind = before - now;
      if (now - after > ahead) ahead = now - after;
      if (after - before > CLOSE_NS) continue;
      const int64_t lag = (before + after) / 2 - now;
      ++lags[lag < 0 ? 0 : lag < BUCKETS ? lag : BUCKETS];
      ++close;
    }
    const struct timespec pause = {0, (long)(bench_random(&state) % 3000000)};
    nanosleep(&pause, NULL);
  }
  printf("{\"name\": \"clock_error\", \"source\": \"%s\", \"seconds\": %lld, \"readings\": %lld, "
         "\"typical_ns\": %lld, \"p99_ns\": %lld, \"behind_ns\": %lld, \"ahead_ns\": %lld, "
         "\"back\": %lld, \"promised_ns\": %d}\n",
         agr_clock_source() == AGR_CLOCK_COUNTER ? "counter" : "system", (long long)seconds,
         (long long)readings, (long long)quantile(close, 0.5), (long long)quantile(close, 0.99),
         (long long)behind, (long long)ahead, (long long)back, AGR_CLOCK_LAG_NS);
  return 0;
}
