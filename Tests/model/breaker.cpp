// SPDX-License-Identifier: Apache-2.0
#include "breaker_model.hpp"
#include "engines.hpp"

namespace model {
namespace {

enum Field {
  kConsecutive, kWindow, kCalls, kLength, kMinimum, kProbes, kSuccesses, kMost, kFailurePercent,
  kSlowPercent, kSlowCall, kOpen, kOpenMost, kGrowthPercent, kJitterPercent, kTimeout,
  kBackpressure, kMode, kSeed
};
enum Call { kAcquire, kReport, kState, kForce, kSnapshot };

agr_breaker_config settings(const std::vector<int64_t>& values) {
  agr_breaker_config config;
  agr_breaker_config_init(&config, sizeof config);
  const auto number = [&](Field field) { return static_cast<uint32_t>(values[field]); };
  const auto share = [&](Field field) { return static_cast<double>(values[field]) / 100; };
  config.consecutive_failures = number(kConsecutive);
  config.window = static_cast<int32_t>(values[kWindow]);
  config.window_calls = number(kCalls);
  config.window_ns = values[kLength];
  config.minimum_calls = number(kMinimum);
  config.half_open_permits = number(kProbes);
  config.half_open_successes = number(kSuccesses);
  config.max_permits = number(kMost);
  config.failure_rate = share(kFailurePercent);
  config.slow_rate = share(kSlowPercent);
  config.slow_call_ns = values[kSlowCall];
  config.open_ns = values[kOpen];
  config.open_max_ns = values[kOpenMost];
  config.open_growth = share(kGrowthPercent);
  config.open_jitter = share(kJitterPercent);
  config.permit_timeout_ns = values[kTimeout];
  config.backpressure_fails = number(kBackpressure);
  config.mode = static_cast<int32_t>(values[kMode]);
  config.seed = static_cast<uint64_t>(values[kSeed]);
  return config;
}

class Run {
 public:
  explicit Run(const std::vector<int64_t>& values)
      : config_(settings(values)), model_(config_), scale_(0) {
    if (agr_breaker_create(&config_, &breaker_.pointer, nullptr) != AGR_OK) throw Refused();
  }

  void run(const History& history) {
    for (const Step& step : history.steps) {
      const auto& values = step.values;
      const int64_t now = values[0];
      // Where the state does not depend on the time, nobody looks at it.
      const bool looks = step.operation != kState ||
                         (model_.state == AGR_BREAKER_OPEN && model_.mode != AGR_BREAKER_FORCED_OPEN);
      const int64_t time = looks ? scale_.read(now) : scale_.peek(now);
      const uint64_t generation = model_.generation;
      switch (step.operation) {
        case kAcquire: acquire(step.id, now, time); break;
        case kReport: report(step, now, time); break;
        case kForce:
          expect_equal(agr_breaker_force_at(breaker_, static_cast<int32_t>(values[1]), now, nullptr),
                       AGR_OK, "force");
          model_.force(static_cast<int32_t>(values[1]), time);
          break;
        case kState: break;
        case kSnapshot: snapshot(now, time); break;
      }
      if (model_.generation != generation) events(generation, now, time);
      int32_t state = -7;
      expect_equal(agr_breaker_state_at(breaker_, now, &state, nullptr), AGR_OK, "state");
      expect_equal(state, model_.state_at(time), "state");
      current_step += 1;
    }
  }

 private:
  void acquire(int64_t id, int64_t now, int64_t time) {
    uint64_t permit = 7;
    int64_t retry_after = -7;
    agr_error error{};
    const agr_status status =
        agr_breaker_acquire_at(breaker_, now, &permit, &retry_after, &error);
    BreakerModel::Answer wanted = model_.acquire(time);
    if (wanted.doubt && status != AGR_OK) {
      // The permits whose time was over, until the clock went back, count as out.
      expect(status == AGR_ERR_CAPACITY || (wanted.probe && status == AGR_OPEN), "acquire");
      if (status == AGR_OPEN) model_.refused += 1;
      if (status == AGR_ERR_CAPACITY && wanted.probe) model_.would_refuse += 1;
      return;
    }
    if (wanted.doubt && wanted.probe && model_.mode == AGR_BREAKER_OBSERVE &&
        read(now).would_refuse > model_.would_refuse) {
      // Not a probe, but one that would have been refused.
      model_.would_refuse += 1;
      wanted.probe = false;
    }
    expect_equal(status, wanted.status, "acquire");
    if (!wanted.vague) expect_equal(retry_after, wanted.retry_after, "retry_after_ns");
    expect((permit != 0) == (status == AGR_OK), "a permit without a call, or the reverse");
    if (status != AGR_OK) return;
    model_.claim(id, wanted.probe, time);
    permits_[id] = permit;
  }

  void report(const Step& step, int64_t now, int64_t time) {
    const auto& values = step.values;
    const auto found = permits_.find(values[1]);
    const uint64_t permit =
        found == permits_.end() ? static_cast<uint64_t>(values[1]) : found->second;
    BreakerPermit* one = found == permits_.end() ? nullptr : &model_.permits[values[1]];
    const auto outcome = static_cast<int32_t>(std::max<int64_t>(values[2], AGR_OUTCOME_SUCCESS));
    const agr_status status =
        agr_breaker_report_at(breaker_, permit, outcome, values[3], now, nullptr);
    if (one && one->doubtful && status == AGR_STALE) one->ended = true;
    const bool counted = model_.report(one, outcome, values[3], time);
    expect_equal(status, counted ? AGR_OK : AGR_STALE, "report");
  }

  /// The changes of state since a generation: the events tell of each, once, in order.
  void events(uint64_t generation, int64_t now, int64_t time) {
    while (generation < model_.generation) {
      agr_breaker_event event{};
      event.struct_size = sizeof event;
      uint64_t lost = 0;
      if (agr_breaker_next_event(breaker_, &cursor_, &event, &lost, nullptr) != AGR_OK) break;
      generation += 1;
      expect_equal(event.generation, generation, "the event's generation");
      expect_equal(event.time_ns, now, "the event's time");
      expect_equal(event.mode, model_.mode, "the event's mode");
      expect_equal(event.to_state, model_.state, "the event's state");
      expect_equal(lost, 0, "events lost");
      if (event.to_state == AGR_BREAKER_OPEN) {
        expect(event.open_for_ns >= model_.open_least && event.open_for_ns <= model_.open_most,
               "the open time is out of its bounds");
        model_.when = later(time, event.open_for_ns);
      }
    }
    expect_equal(generation, model_.generation, "changes of state");
  }

  agr_breaker_snapshot read(int64_t now) {
    agr_breaker_snapshot seen{};
    seen.struct_size = sizeof seen;
    expect_equal(agr_breaker_snapshot_read_at(breaker_, now, &seen, nullptr), AGR_OK, "snapshot");
    return seen;
  }

  void snapshot(int64_t now, int64_t time) {
    const agr_breaker_snapshot seen = read(now);
    expect_equal(seen.state, model_.state_at(time), "state");
    expect_equal(seen.mode, model_.mode, "mode");
    expect_equal(seen.generation, model_.generation, "generation");
    expect_equal(seen.trips_in_a_row, model_.trips_in_a_row, "trips_in_a_row");
    const BreakerModel::Counts counts = model_.counts(time);
    expect_equal(seen.window_total, counts.total, "window_total");
    expect_equal(seen.window_failures, counts.failures, "window_failures");
    expect_equal(seen.window_slow, counts.slow, "window_slow");
    if (config_.consecutive_failures)
      expect_equal(seen.consecutive_failures, model_.streak, "consecutive_failures");
    expect_equal(seen.trips, model_.trips, "trips");
    expect_equal(seen.stale, model_.stale, "stale");
    expect_equal(seen.refused, model_.refused, "refused");
    expect_equal(seen.would_refuse, model_.would_refuse, "would_refuse");
    if (seen.state == AGR_BREAKER_OPEN && model_.mode != AGR_BREAKER_FORCED_OPEN)
      expect_equal(seen.retry_after_ns, model_.when - time, "retry_after_ns");
    expect(seen.half_open_in_flight <= config_.half_open_permits, "too many probes");
    if (model_.state == AGR_BREAKER_HALF_OPEN) {
      const BreakerModel::Out probes = model_.out(true, time);
      expect(seen.half_open_in_flight >= probes.least && seen.half_open_in_flight <= probes.most,
             "half_open_in_flight is wrong");
    }
  }

  const agr_breaker_config config_;
  BreakerModel model_;
  Scale scale_;
  Handle<agr_breaker, agr_breaker_destroy> breaker_;
  std::map<int64_t, uint64_t> permits_;
  uint64_t cursor_ = 0;
};

class BreakerEngine : public Engine {
 public:
  BreakerEngine()
      : Engine("breaker",
               {"consecutive", "window", "calls", "length", "minimum", "probes", "successes",
                "permits", "failure_percent", "slow_percent", "slow_call", "open", "open_most",
                "growth_percent", "jitter_percent", "timeout", "backpressure", "mode", "seed"},
               {{"acquire", {}},
                {"report", {"of", "outcome", "latency"}},
                {"state", {}},
                {"force", {"mode"}},
                {"snapshot", {}}}) {}

  void generate(Random& random, History& history) const override {
    auto& config = history.config;
    config.assign(this->config.size(), 0);
    const int64_t grain = INT64_C(1) << random.below(34);
    config[kWindow] = random.below(3);
    config[kCalls] = 1 + random.skewed(random.chance(8) ? 300 : 40);
    config[kLength] = std::min(10 + random.skewed(grain * 100), 24 * 3600 * kSecond);
    config[kMinimum] = 1 + random.skewed(config[kWindow] == AGR_WINDOW_COUNT ? config[kCalls] - 1 : 30);
    config[kProbes] = 1 + random.skewed(random.chance(8) ? 63 : 5);
    config[kSuccesses] = random.chance(2) ? 0 : random.skewed(12);
    config[kMost] = random.chance(4) ? 1 + random.skewed(8) : 512;
    config[kFailurePercent] = random.chance(4) ? 0 : 1 + random.below(100);
    config[kSlowPercent] = random.chance(2) ? 0 : 1 + random.below(100);
    config[kConsecutive] = random.chance(2) ? 0 : 1 + random.skewed(10);
    if (!config[kConsecutive] && (!config[kWindow] || !(config[kFailurePercent] | config[kSlowPercent])))
      config[kConsecutive] = 3;
    config[kSlowCall] = random.skewed(kSecond);
    config[kOpen] = 1 + random.skewed(grain * 20);
    config[kOpenMost] = config[kOpen] + random.skewed(random.chance(8) ? kYear : grain * 100);
    config[kGrowthPercent] = 100 + random.skewed(random.chance(8) ? 9900 : 200);
    config[kJitterPercent] = random.chance(2) ? 0 : random.below(101);
    config[kTimeout] = 1 + random.skewed(grain * 200);
    config[kBackpressure] = random.below(2);
    config[kMode] = random.chance(4) ? random.below(5) : 0;
    config[kSeed] = random.below(3);
    // A time window is told apart from the steps before and behind it where a second is few of them.
    auto kind = static_cast<Clock::Kind>(random.below(3));
    if (config[kWindow] == AGR_WINDOW_TIME && config[kLength] < 20 * kSecond) kind = Clock::kOnward;
    // With a clock that goes back, and no place for all, which permit an observed call gets is not told.
    const int64_t modes = kind == Clock::kOnward ? 5 : 4;
    config[kMode] = std::min(config[kMode], modes - 1);
    Clock clock(random, kind, any_start(random), grain);
    const int64_t count = random.between(20, random.chance(4) ? 1200 : 200);
    const int64_t bad = 1 + random.below(8);
    for (int64_t id = 1; id <= count; ++id) {
      Step step;
      step.id = id;
      step.values[0] = clock.next();
      const int64_t which = random.below(24);
      if (which < 10) {
        step.operation = kAcquire;
      } else if (which < 21) {
        step.operation = kReport;
        step.values[1] = std::max<int64_t>(0, id - 1 - random.skewed(random.chance(8) ? 200 : 12));
        step.values[2] = random.chance(bad) ? INT64_C(2) : random.between(1, random.chance(3) ? 4 : 1);
        step.values[3] = random.chance(3) ? config[kSlowCall] : random.skewed(config[kSlowCall] + 2);
      } else if (which == 21 && random.chance(4)) {
        step.operation = kForce;
        step.values[1] = random.chance(2) ? 0 : random.below(modes);
      } else {
        step.operation = random.chance(4) ? kState : kSnapshot;
      }
      history.steps.push_back(step);
    }
  }

  void run(const History& history) const override { Run(history.config).run(history); }
};

}  // namespace

const Engine& breaker_engine() {
  static const BreakerEngine engine;
  return engine;
}

}  // namespace model
