// SPDX-License-Identifier: Apache-2.0
// The model of a breaker, after breaker.h: a list of results, and the permits that are out.
#ifndef MODEL_BREAKER_MODEL_HPP
#define MODEL_BREAKER_MODEL_HPP

#include <algorithm>
#include <deque>
#include <map>

#include "harness.hpp"

namespace model {

struct BreakerPermit {
  uint64_t generation = 0;
  int64_t expires = 0;
  bool probe = false;
  bool ended = false;
  /// Its time was over once; with a clock that went back a little it may be void or not.
  bool doubtful = false;
};

struct BreakerModel {
  struct Result {
    int64_t step;
    bool failed, slow;
  };
  struct Counts {
    uint64_t total = 0, failures = 0, slow = 0;
  };

  explicit BreakerModel(const agr_breaker_config& config) : config(config), mode(config.mode) {}

  agr_breaker_config config;
  int32_t state = AGR_BREAKER_CLOSED;
  int32_t mode;
  uint64_t generation = 1;
  /// Since when it is closed or half-open, or until when it is open.
  int64_t when = 0;
  uint32_t trips_in_a_row = 0, successes = 0, streak = 0;
  std::deque<Result> results;
  std::map<int64_t, BreakerPermit> permits;
  uint64_t refused = 0, would_refuse = 0, stale = 0, trips = 0;
  /// How long it would open without jitter; the library's choice is put into `when`.
  int64_t open_least = 0, open_most = 0;

  uint32_t needed() const {
    return config.half_open_successes ? config.half_open_successes : config.half_open_permits;
  }

  int32_t state_at(int64_t time) const {
    if (mode == AGR_BREAKER_FORCED_OPEN) return AGR_BREAKER_OPEN;
    return state == AGR_BREAKER_OPEN && time >= when ? AGR_BREAKER_HALF_OPEN : state;
  }

  void move(int32_t to, int64_t time) {
    state = to;
    when = time;
    generation += 1;
    successes = streak = 0;
    results.clear();
  }

  struct Out {
    int64_t least = 0, most = 0;
    int64_t soonest = AGR_FOREVER;
  };

  /// The permits that are out: of half-open only those of this generation.
  Out out(bool probes, int64_t time) {
    Out out;
    for (auto& [id, one] : permits) {
      if (one.ended || one.probe != probes || (probes && one.generation != generation)) continue;
      if (one.expires <= time) one.doubtful = true;
      if (one.expires <= time) continue;
      out.least += !one.doubtful;
      out.most += 1;
      out.soonest = std::min(out.soonest, one.expires);
    }
    return out;
  }

  /// What an acquire may answer; `doubt` when either would do.
  struct Answer {
    agr_status status;
    int64_t retry_after = 0;
    bool probe = false;
    bool doubt = false;
    /// When to ask again hangs on permits that may be void.
    bool vague = false;
  };

  Answer acquire(int64_t time) {
    if (mode == AGR_BREAKER_FORCED_OPEN) {
      refused += 1;
      return {AGR_OPEN, AGR_FOREVER};
    }
    if (state == AGR_BREAKER_OPEN && time >= when) move(AGR_BREAKER_HALF_OPEN, time);
    if (state == AGR_BREAKER_CLOSED) return ordinary(time);
    int64_t retry_after = when - time;
    bool vague = false;
    if (state == AGR_BREAKER_HALF_OPEN) {
      const Out probes = out(true, time);
      if (probes.most < config.half_open_permits) return {AGR_OK, 0, true};
      if (probes.least < config.half_open_permits)
        return {AGR_OK, 0, true, true};
      retry_after = std::min(probes.soonest - time, config.open_ns);
      vague = probes.least < probes.most;
    }
    if (mode == AGR_BREAKER_OBSERVE) {
      would_refuse += 1;
      return ordinary(time);
    }
    refused += 1;
    return {AGR_OPEN, retry_after, false, false, vague};
  }

  Answer ordinary(int64_t time) {
    const Out all = out(false, time);
    if (all.least >= config.max_permits) return {AGR_ERR_CAPACITY};
    return {AGR_OK, 0, false, all.most >= config.max_permits};
  }

  void claim(int64_t id, bool probe, int64_t time) {
    permits[id] = {generation, later(time, config.permit_timeout_ns), probe, false, false};
  }

  /// Whether a report counts, or is stale.
  bool report(BreakerPermit* permit, int32_t outcome, int64_t latency, int64_t time) {
    const bool good = permit && !permit->ended && permit->expires > time &&
                      permit->generation == generation;
    if (permit) permit->ended = true;
    if (!good) {
      stale += 1;
      return false;
    }
    const bool failed = outcome == AGR_OUTCOME_FAILURE ||
                        (outcome == AGR_OUTCOME_BACKPRESSURE && config.backpressure_fails);
    if (!failed && outcome != AGR_OUTCOME_SUCCESS) return true;
    const bool slow = config.slow_rate > 0 && latency >= config.slow_call_ns;
    if (state == AGR_BREAKER_CLOSED) {
      if (mode != AGR_BREAKER_DISABLED) record(failed, slow, time);
    } else if (permit->probe) {
      if (failed || slow)
        open(time);
      else if (++successes >= needed())
        move(AGR_BREAKER_CLOSED, time);
    }
    return true;
  }

  int64_t step_of(int64_t time) const {
    return time / std::max<int64_t>(1, config.window_ns / 10);
  }

  Counts counts(int64_t time) const {
    Counts counts;
    if (config.window == AGR_WINDOW_NONE) return counts;
    const int64_t last = step_of(time);
    for (const Result& one : results) {
      if (config.window == AGR_WINDOW_TIME && (one.step < last - 10 || one.step > last)) continue;
      counts.total += 1;
      counts.failures += one.failed;
      counts.slow += one.slow;
    }
    return counts;
  }

  void record(bool failed, bool slow, int64_t time) {
    streak = failed ? streak + 1 : 0;
    results.push_back({step_of(time), failed, slow});
    const bool by_count = config.window == AGR_WINDOW_COUNT;
    if (by_count && results.size() > config.window_calls) results.pop_front();
    while (!by_count && !results.empty() && results.front().step < step_of(time) - 30)
      results.pop_front();
    bool trip = config.consecutive_failures && streak >= config.consecutive_failures;
    const Counts in = counts(time);
    // Looked at when it can have risen: at a failure, a slow call, or the call that makes them enough.
    if (in.total >= config.minimum_calls && (failed || slow || in.total == config.minimum_calls)) {
      const double total = static_cast<double>(in.total);
      trip |= config.failure_rate > 0 &&
              static_cast<double>(in.failures) >= config.failure_rate * total;
      trip |= config.slow_rate > 0 && static_cast<double>(in.slow) >= config.slow_rate * total;
    }
    if (trip && mode != AGR_BREAKER_FORCED_CLOSED) open(time);
  }

  void open(int64_t time) {
    if (state == AGR_BREAKER_CLOSED) {
      const int64_t healthy = std::max<int64_t>(0, time - when) / config.open_ns;
      trips_in_a_row -= static_cast<uint32_t>(std::min<int64_t>(trips_in_a_row, healthy));
    }
    trips_in_a_row = std::min(trips_in_a_row + 1, 255u);
    double length = static_cast<double>(config.open_ns);
    for (uint32_t trip = 1; trip < trips_in_a_row; ++trip)
      length = std::min(length * config.open_growth, 1e19);
    const auto most = static_cast<double>(config.open_max_ns);
    open_least = length >= most ? config.open_max_ns : static_cast<int64_t>(length);
    length *= 1 + config.open_jitter;
    open_most = length >= most ? config.open_max_ns : static_cast<int64_t>(length) + 1;
    open_most = std::min(open_most, config.open_max_ns);
    trips += 1;
    move(AGR_BREAKER_OPEN, later(time, open_least));
  }

  void force(int32_t to, int64_t time) {
    if (mode == to) return;
    mode = to;
    trips_in_a_row = 0;
    move(AGR_BREAKER_CLOSED, time);
  }
};

}  // namespace model
#endif
