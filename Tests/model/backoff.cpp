// SPDX-License-Identifier: Apache-2.0
// Backoff and retry decisions (backoff.h): every delay within its bounds, and what is retried at all.
#include <algorithm>
#include <cmath>

#include "engines.hpp"

namespace model {
namespace {

enum Field {
  kStrategy, kJitter, kAttempts, kBase, kMost, kLeast, kFast, kGrowthPercent, kRatioPercent,
  kTemporary, kMaxServer, kSpread, kUnknown
};
enum Call { kDelay, kAdapt, kDecide };

struct Range {
  double low, high;
};

class Run {
 public:
  explicit Run(const std::vector<int64_t>& values) {
    agr_retry_config_init(&retry_, sizeof retry_);
    agr_backoff_config& backoff = retry_.backoff;
    backoff.strategy = static_cast<int32_t>(values[kStrategy]);
    backoff.jitter = static_cast<int32_t>(values[kJitter]);
    backoff.max_attempts = static_cast<uint32_t>(values[kAttempts]);
    backoff.base_delay_ns = values[kBase];
    backoff.max_delay_ns = values[kMost];
    backoff.min_delay_ns = values[kLeast];
    backoff.fast_success_ns = values[kFast];
    backoff.multiplier = static_cast<double>(values[kGrowthPercent]) / 100;
    backoff.jitter_ratio = static_cast<double>(values[kRatioPercent]) / 100;
    retry_.temporary_delay_ns = values[kTemporary];
    retry_.max_server_delay_ns = values[kMaxServer];
    retry_.server_delay_spread_ns = values[kSpread];
    retry_.retry_unknown = values[kUnknown] != 0;
    int64_t unused;
    if (agr_backoff_delay(&backoff, 1, 0, 0, &unused, nullptr) < 0) throw Refused();
  }

  void run(const History& history) {
    for (const Step& step : history.steps) {
      if (step.operation == kDelay) delay(step);
      if (step.operation == kAdapt) adapt(step);
      if (step.operation == kDecide) decide(step);
      current_step += 1;
    }
  }

 private:
  /// Between what the delay lies, for a base, a number of failures and the delay before.
  Range range(double base, double attempt, double previous) const {
    const agr_backoff_config& config = retry_.backoff;
    const double most = static_cast<double>(config.max_delay_ns);
    double shape = base;
    if (config.jitter == AGR_JITTER_DECORRELATED || config.strategy == AGR_BACKOFF_DECORRELATED)
      return {std::min(base, most), std::min(3 * std::max(previous, base), most)};
    if (config.strategy == AGR_BACKOFF_LINEAR) shape = base * attempt;
    if (config.strategy == AGR_BACKOFF_EXPONENTIAL && base > 0)
      shape = base * std::pow(config.multiplier, attempt - 1);
    if (config.strategy == AGR_BACKOFF_ADAPTIVE)
      shape = std::max(previous > 0 ? 2 * previous : base,
                       static_cast<double>(config.min_delay_ns));
    if (config.strategy == AGR_BACKOFF_SMOOTH_DECORRELATED) return {0, most};
    shape = std::min(shape, most);
    switch (config.jitter) {
      case AGR_JITTER_FULL: return {0, shape};
      case AGR_JITTER_EQUAL: return {shape / 2, shape};
      case AGR_JITTER_PROPORTIONAL:
        return {shape * (1 - config.jitter_ratio),
                std::min(shape * (1 + config.jitter_ratio), most)};
      default: return {shape, shape};
    }
  }

  static void expect_in(int64_t seen, Range range, const char* what) {
    // Within what floating point and rounding down to nanoseconds leave.
    const double value = static_cast<double>(seen), slack = 2 + range.high * 1e-9;
    expect(value >= range.low - slack && value <= range.high + slack, what);
  }

  void delay(const Step& step) {
    const auto& values = step.values;
    const auto attempt = static_cast<uint32_t>(std::max<int64_t>(1, values[1]));
    int64_t seen = -7;
    const agr_status status = agr_backoff_delay(&retry_.backoff, attempt, values[2],
                                                static_cast<uint64_t>(values[3]), &seen, nullptr);
    const bool over = retry_.backoff.max_attempts && attempt >= retry_.backoff.max_attempts;
    expect_equal(status, over ? AGR_EXHAUSTED : AGR_OK, "delay");
    expect(seen >= 0 && seen <= retry_.backoff.max_delay_ns, "a delay beyond max_delay_ns");
    if (over) expect_equal(seen, 0, "the delay");
    else expect_in(seen, range(static_cast<double>(retry_.backoff.base_delay_ns), attempt, static_cast<double>(values[2])), "the delay is out of its bounds");
  }

  void adapt(const Step& step) {
    const auto& values = step.values;
    const agr_backoff_config& config = retry_.backoff;
    if (config.min_delay_ns > config.max_delay_ns) return;
    const auto outcome = static_cast<int32_t>(1 + values[1] % 4);
    int64_t seen = -7;
    expect_equal(agr_backoff_adapt(&config, values[2], outcome, values[3], &seen, nullptr), AGR_OK,
                 "adapt");
    const int64_t current = values[2] ? values[2] : config.base_delay_ns;
    int64_t wanted = current;
    if (outcome == AGR_OUTCOME_SUCCESS && values[3] < config.fast_success_ns) wanted /= 2;
    if (outcome == AGR_OUTCOME_FAILURE || outcome == AGR_OUTCOME_BACKPRESSURE)
      wanted = wanted > config.max_delay_ns / 2 ? config.max_delay_ns : wanted * 2;
    wanted = std::min(std::max(wanted, config.min_delay_ns), config.max_delay_ns);
    expect_equal(seen, wanted, "the next base");
  }

  void decide(const Step& step) {
    const auto& values = step.values;
    const auto attempt = static_cast<uint32_t>(std::max<int64_t>(1, values[1] & 0xff));
    const auto made = static_cast<uint32_t>(values[1] >> 8 & 7);
    const bool has_key = values[1] >> 12 & 1;
    agr_retry_rule rule{};
    rule.domain = AGR_DOMAIN_USER;
    rule.error_class = static_cast<int32_t>(1 + values[2] % 6);
    rule.max_retries = values[2] & 64 ? static_cast<uint32_t>(values[2] >> 7 & 3) : AGR_RETRIES_DEFAULT;
    rule.first_delay_ns = values[3];
    int64_t seen = -7;
    const agr_status status =
        agr_retry_decide(&retry_, attempt, made, &rule, has_key, values[4], values[5],
                         static_cast<uint64_t>(step.id) * UINT64_C(0x9E3779B97F4A7C15), &seen,
                         nullptr);
    const bool retried = rule.error_class == AGR_CLASS_TRANSIENT ||
                         rule.error_class == AGR_CLASS_TEMPORARY ||
                         (rule.error_class == AGR_CLASS_UNKNOWN && (has_key || retry_.retry_unknown));
    const bool left = (!retry_.backoff.max_attempts || attempt < retry_.backoff.max_attempts) &&
                      (rule.max_retries == AGR_RETRIES_DEFAULT || made < rule.max_retries) &&
                      values[5] <= retry_.max_server_delay_ns;
    expect_equal(status, retried && left ? AGR_OK : AGR_EXHAUSTED, "decide");
    if (status != AGR_OK) return;
    Range own = own_delay(rule, attempt, made, static_cast<double>(values[4]));
    const int64_t hint = values[5];
    if (hint >= 0) {
      expect(seen >= hint, "earlier than the server said");
      const double spread = std::min(own.high, static_cast<double>(retry_.server_delay_spread_ns));
      own = {static_cast<double>(hint),
             std::min(static_cast<double>(hint) + spread, static_cast<double>(AGR_TIME_MAX_NS))};
    }
    expect_in(seen, own, "the delay is out of its bounds");
  }

  Range own_delay(const agr_retry_rule& rule, uint32_t attempt, uint32_t made,
                  double previous) const {
    const int64_t first = rule.first_delay_ns;
    if (rule.error_class == AGR_CLASS_TEMPORARY) {
      const auto fixed = static_cast<double>(first < 0 ? retry_.temporary_delay_ns : first);
      return {fixed, fixed};
    }
    if (first < 0)
      return range(static_cast<double>(retry_.backoff.base_delay_ns), attempt, previous);
    return range(static_cast<double>(std::min(first, retry_.backoff.max_delay_ns)), made + 1.0,
                 previous);
  }

  agr_retry_config retry_{};
};

class BackoffEngine : public Engine {
 public:
  BackoffEngine()
      : Engine("backoff",
               {"strategy", "jitter", "attempts", "base", "most", "least", "fast",
                "growth_percent", "ratio_percent", "temporary", "max_server", "spread", "unknown"},
               {{"delay", {"attempt", "previous", "random"}},
                {"adapt", {"outcome", "current", "latency"}},
                {"decide", {"attempt", "rule", "first", "previous", "hint"}}}) {}

  void generate(Random& random, History& history) const override {
    const auto time = [&] { return random.skewed(AGR_TIME_MAX_NS); };
    const int64_t most = time(), strategy = 1 + random.below(6);
    const bool is_random = strategy == AGR_BACKOFF_DECORRELATED ||
                           strategy == AGR_BACKOFF_SMOOTH_DECORRELATED;
    history.config = {strategy, is_random ? 0 : random.below(5), random.skewed(100),
                      random.skewed(most), most, random.skewed(most), time(),
                      100 + random.skewed(random.chance(4) ? 99'900 : 300), random.below(101),
                      time(), time(), time(), random.below(2)};
    for (int64_t id = 1; id <= 100; ++id) {
      Step step;
      step.id = id;
      step.operation = static_cast<int>(random.below(3));
      auto& values = step.values;
      if (step.operation == kDelay) {
        values[1] = 1 + random.skewed(UINT32_MAX - 1);
        values[2] = time();
        values[3] = static_cast<int64_t>(random.next());
      } else if (step.operation == kAdapt) {
        values[1] = random.below(4);
        values[2] = time();
        values[3] = time();
      } else {
        values[1] = random.below(1 << 13);
        values[2] = random.below(1 << 9);
        values[3] = random.chance(2) ? AGR_DELAY_DEFAULT : time();
        values[4] = time();
        values[5] = random.chance(2) ? -1 : random.chance(8) ? AGR_FOREVER : time();
      }
      history.steps.push_back(step);
    }
  }

  void run(const History& history) const override { Run(history.config).run(history); }
};

}  // namespace

const Engine& backoff_engine() {
  static const BackoffEngine engine;
  return engine;
}

}  // namespace model
