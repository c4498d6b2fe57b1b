// SPDX-License-Identifier: Apache-2.0
// A bucket for every key (limiter.h): the time at which each is full again. A request's cost is rounded up to
// whole nanoseconds of refill. Where keys go when there is no place for all of them is not promised; then
// only what is admitted at most is checked.
#include "bucket.hpp"
#include "engines.hpp"

#include <map>
#include <string>

namespace model {
namespace {

enum Field {
  kMaxKeys, kCapacity, kDebt, kTokens, kInterval, kReservations, kTimeout, kEvict, kObserve, kKeys,
  kStart
};
enum Call { kTry, kReserve, kCancel, kSettle, kAvailable, kReconfigure, kSnapshot, kComeBack };

/// What a bucket of time is: how long it takes to fill, and what a token costs.
struct Costs {
  int64_t capacity, tokens, interval;
  int64_t burst, debt;

  Costs(int64_t capacity, int64_t debt, int64_t tokens, int64_t interval)
      : capacity(capacity), tokens(tokens), interval(interval) {
    const Rate rate(capacity, debt, tokens, interval);
    burst = cost(capacity);
    this->debt = std::min(cost(rate.debt), 25 * kYear);
  }

  int64_t cost(int64_t count) const {
    const Wide time = (Wide(count) * interval + tokens - 1) / tokens;
    return time > 100 * kYear ? 100 * kYear : static_cast<int64_t>(time);
  }
  int64_t worth(int64_t time) const { return static_cast<int64_t>(Wide(time) * tokens / interval); }
};

struct Open {
  uint64_t permit = 0;
  int64_t key = 0, tokens = 0, level = 0, expires = 0;
  int changes = 0;
  size_t use = 0;
  std::vector<Costs> then;
  bool ended = false, doubtful = false;
};

class Run {
 public:
  explicit Run(const History& history)
      : history_(history),
        config_(history.config),
        scale_(0),
        costs_(std::max<int64_t>(1, config_[kCapacity]), config_[kDebt],
               std::max<int64_t>(1, config_[kTokens]), std::max<int64_t>(1, config_[kInterval])),
        windows_(static_cast<size_t>(std::max<int64_t>(1, config_[kKeys]))) {
    if (agr_config(config_[kCapacity], config_[kDebt], config_[kTokens], config_[kInterval]);
        config_[kKeys] < 1 || agr_keyed_limiter_create(&settings_, &limiter_.pointer, nullptr))
      throw Refused();
    // With room for every key nothing depends on where they lie.
    is_roomy_ = config_[kKeys] * 3 <= 2 * config_[kMaxKeys] && config_[kKeys] <= 16;
  }

  void run() {
    for (const Step& step : history_.steps) {
      do_step(step, later(step.values[0], shift_));
      current_step += 1;
    }
    for (Windows& windows : windows_) windows.check(rate());
  }

 private:
  void agr_config(int64_t capacity, int64_t debt, int64_t tokens, int64_t interval) {
    agr_keyed_limiter_config_init(&settings_, sizeof settings_);
    settings_.max_keys = static_cast<uint32_t>(config_[kMaxKeys]);
    settings_.capacity = capacity;
    settings_.max_debt_tokens = debt;
    settings_.refill_tokens = tokens;
    settings_.refill_interval_ns = interval;
    settings_.max_reservations = static_cast<uint32_t>(config_[kReservations]);
    settings_.reservation_timeout_ns = config_[kTimeout];
    settings_.when_full = config_[kEvict] ? AGR_WHEN_FULL_EVICT : AGR_WHEN_FULL_REFUSE;
    settings_.observe = config_[kObserve] != 0;
    settings_.seed = 7;
  }

  Rate rate() const { return Rate(costs_.capacity, 0, costs_.tokens, costs_.interval); }

  void do_step(const Step& step, int64_t now) {
    switch (step.operation) {
      case kTry: attempt(step, now); break;
      case kReserve: reserve(step, now); break;
      case kCancel: end(step.values[1], 0, now, true); break;
      case kSettle: end(step.values[1], step.values[2], now, false); break;
      case kAvailable: available(step, now); break;
      case kReconfigure: reconfigure(step); break;
      case kSnapshot: snapshot(now); break;
      case kComeBack: come_back(step, now); break;
    }
  }

  std::string key(const Step& step) const {
    return "key" + std::to_string(step.values[1] % config_[kKeys]);
  }

  int64_t& full(int64_t key) { return full_[key % config_[kKeys]]; }

  Grant decide(int64_t key, int64_t tokens, int64_t longest, int64_t time, int64_t& level) {
    if (tokens > costs_.capacity) return {AGR_ERR_NEVER_FITS};
    const int64_t next = std::max(full(key), time) + costs_.cost(tokens);
    const int64_t wait = std::max<int64_t>(0, next - time - costs_.burst);
    const int64_t debt = longest == 0 ? 0 : costs_.debt;
    if (wait > longest || wait > debt) {
      const int64_t soon = wait > longest ? wait - longest : 0;
      return {AGR_LIMITED, 0, std::max(soon, wait - costs_.debt)};
    }
    level = next;
    return {AGR_OK, wait};
  }

  /// The time, on the limiter's scale. Once it steps back, a key that was full again at the later time may have
  /// lost its place, and be full now: by what flows in meanwhile more may be admitted.
  int64_t read(int64_t now) {
    const int64_t time = scale_.read(now);
    if (time < latest_) {
      is_roomy_ = false;
      for (Windows& windows : windows_) windows.allow(rate(), latest_ - time);
    }
    latest_ = std::max(latest_, time);
    return time;
  }

  /// Compares with what was answered, unless the key had no place.
  Grant settle_answer(const Step& step, agr_status status, int64_t retry_after, int64_t longest,
                      int64_t time, int64_t& level) {
    const int64_t key = step.values[1], tokens = step.values[2];
    level = 0;
    Grant wanted = decide(key, tokens, longest, time, level);
    if (!is_roomy_ && wanted.status >= 0) {
      // It may have been given up, and be full again.
      if (status != wanted.status) wanted.status = status, wanted.retry_after = retry_after;
      expect(status == AGR_OK || status == AGR_LIMITED || (status == AGR_ERR_CAPACITY && !config_[kEvict]),
             "no such answer");
      return wanted;
    }
    if (wanted.status == AGR_LIMITED) {
      (settings_.observe ? would_refuse_ : refused_) += 1;
      if (settings_.observe) wanted = {AGR_OK}, level = 0;
    } else if (wanted.status == AGR_OK && tokens > 0) {
      full(key) = level;
    }
    expect_equal(status, wanted.status, "the answer");
    expect_equal(retry_after, wanted.retry_after, "retry_after_ns");
    return wanted;
  }

  size_t use(const Step& step, agr_status status, int64_t time) {
    if (status != AGR_OK || settings_.observe || config_[kEvict]) return SIZE_MAX;
    return windows_[static_cast<size_t>(step.values[1] % config_[kKeys])].add(time,
                                                                             step.values[2]);
  }

  agr_status attempt(const Step& step, int64_t now) {
    const std::string name = key(step);
    int64_t retry_after = -7, level = 0;
    const agr_status status = agr_keyed_limiter_try_acquire_at(
        limiter_, name.data(), name.size(), step.values[2], now, &retry_after, nullptr);
    if (status == AGR_ERR_NEVER_FITS) {
      expect(step.values[2] > costs_.capacity, "it would fit");
      return status;
    }
    const int64_t time = read(now);
    settle_answer(step, status, retry_after, 0, time, level);
    use(step, status, time);
    last_retry_ = retry_after;
    return status;
  }

  void come_back(const Step& step, int64_t now) {
    if (settings_.observe || attempt(step, now) != AGR_LIMITED) return;
    const int64_t wait = last_retry_;
    if (wait > kYear / 2 || wait == 0 || wait > AGR_TIME_MAX_NS - now) return;
    const agr_status early = wait > 1 ? attempt(step, now + wait - 1) : AGR_LIMITED;
    const agr_status due = attempt(step, now + wait);
    shift_ = later(shift_, wait);
    if (!is_roomy_) return;
    expect_equal(early, AGR_LIMITED, "1 ns too early");
    expect_equal(due, AGR_OK, "at the time that was said");
  }

  void reserve(const Step& step, int64_t now) {
    const std::string name = key(step);
    agr_reservation seen{};
    int64_t retry_after = -7, level = 0;
    const agr_status status =
        agr_keyed_limiter_reserve_at(limiter_, name.data(), name.size(), step.values[2],
                                     step.values[3], now, &seen, &retry_after, nullptr);
    const int64_t time = read(now);
    if (status == AGR_ERR_NEVER_FITS) {
      count(time);
      expect(step.values[2] > costs_.capacity, "it would fit");
      return;
    }
    // Whoever asks takes the place of a permit whose time is over, also when it is refused then.
    count(time);
    Open open;
    if (status == AGR_ERR_CAPACITY && (is_roomy_ || count(time).second >= config_[kReservations])) {
      // The permits are wanting; the tokens are given back.
      expect(count(time).second >= config_[kReservations], "there was a permit left");
      open.tokens = step.values[2];
      const Grant grant = decide(step.values[1], open.tokens, step.values[3], time, open.level);
      if (grant.status == AGR_LIMITED) (settings_.observe ? would_refuse_ : refused_) += 1;
      if (grant.status != AGR_OK || open.tokens == 0) return;
      open.key = step.values[1] % config_[kKeys];
      open.then.push_back(costs_);
      full(open.key) = open.level;
      settle(open, 0, scale_.read_onward(now), time);
      return;
    }
    const Grant wanted = settle_answer(step, status, retry_after, step.values[3], time, level);
    if (status != AGR_OK) return;
    expect(count(time).first < config_[kReservations], "too many permits");
    if (is_roomy_) expect_equal(seen.wait_ns, wanted.wait, "wait_ns");
    open.permit = seen.permit;
    open.key = step.values[1] % config_[kKeys];
    open.tokens = settings_.observe && level == 0 ? 0 : step.values[2];
    open.level = level;
    open.expires = later(time, config_[kTimeout]);
    open.then.push_back(costs_);
    open.use = use(step, status, later(time, seen.wait_ns));
    open_[step.id] = open;
  }

  std::pair<int64_t, int64_t> count(int64_t time) {
    std::pair<int64_t, int64_t> count{0, 0};
    for (auto& [id, one] : open_) {
      if (one.ended) continue;
      if (one.expires <= time) one.doubtful = true;
      if (one.expires > time) count.first += !one.doubtful, count.second += 1;
    }
    return count;
  }

  void end(int64_t reference, int64_t actual, int64_t now, bool cancel) {
    const auto found = open_.find(reference);
    Open* one = found == open_.end() ? nullptr : &found->second;
    const uint64_t permit = one ? one->permit : static_cast<uint64_t>(reference);
    const agr_status status =
        cancel ? agr_keyed_limiter_cancel_at(limiter_, permit, now, nullptr)
               : agr_keyed_limiter_settle_at(limiter_, permit, actual, now, nullptr);
    const int64_t time = read(now);
    if (!one || one->ended || one->expires <= time || !one->doubtful)
      expect_equal(status, one && !one->ended && one->expires > time ? AGR_OK : AGR_STALE,
                   cancel ? "cancel" : "settle");
    if (!one || one->ended) return;
    one->ended = true;
    if (status == AGR_OK && actual >= 0) settle(*one, actual, scale_.read_onward(now), time);
  }

  void settle(const Open& one, int64_t actual, int64_t time, int64_t told) {
    int64_t& full = this->full(one.key);
    Windows& windows = windows_[static_cast<size_t>(one.key)];
    if (actual > one.tokens) {
      const int64_t start = std::max(full, time), cost = costs_.cost(actual - one.tokens);
      full = std::min(start + cost, std::max(start, time + costs_.burst + costs_.debt));
    } else if (actual < one.tokens && one.changes <= 2) {
      windows.correct(one.use, actual);
      if (told < time || time < latest_) windows.allow(rate(), kMillisecond);
      // What has refilled since does not come back, nor what others reserved behind it.
      const int64_t back = one.then[0].cost(one.tokens - actual);
      const int64_t kept = std::min(back, std::max<int64_t>(0, one.level - time));
      const int64_t empty = time + costs_.burst;
      const int64_t given = kept - std::max<int64_t>(0, full - std::max(one.level, empty));
      if (given <= 0 || full <= time) return;
      full -= given;
      // The bucket is nearer to full than it was since the others' charges.
      for (auto& [id, other] : open_)
        if (other.key == one.key && !other.ended) other.level = std::min(other.level, full);
    }
  }

  void available(const Step& step, int64_t now) {
    const std::string name = key(step);
    int64_t tokens = -7;
    expect_equal(agr_keyed_limiter_available_at(limiter_, name.data(), name.size(), now, &tokens,
                                                nullptr),
                 AGR_OK, "available");
    const int64_t time = read(now);
    expect(tokens <= costs_.capacity, "more than the capacity");
    if (!is_roomy_) return;
    const int64_t left = costs_.burst - std::max<int64_t>(0, full(step.values[1]) - time);
    const int64_t wanted = left >= 0 ? std::min(costs_.capacity, costs_.worth(left))
                                     : -costs_.worth(-left);
    expect_equal(tokens, wanted, "available");
  }

  void reconfigure(const Step& step) {
    for (Windows& windows : windows_) {
      windows.check(rate());
      windows.clear();
    }
    for (auto& [id, one] : open_) one.changes += 1, one.use = SIZE_MAX;
    const auto& values = step.values;
    agr_config(values[2], values[3], values[4], values[5]);
    const agr_status status = agr_keyed_limiter_reconfigure(limiter_, &settings_, nullptr);
    expect_equal(status, AGR_OK, "reconfigure");
    costs_ = Costs(values[2], values[3], values[4], values[5]);
    // Keys keep the time they still have to refill, which can be more than the new capacity.
    changed_ = true;
  }

  void snapshot(int64_t now) {
    agr_keyed_limiter_snapshot seen{};
    seen.struct_size = sizeof seen;
    expect_equal(agr_keyed_limiter_snapshot_read_at(limiter_, now, &seen, nullptr), AGR_OK,
                 "snapshot");
    const int64_t time = read(now);
    const auto [least, most] = count(time);
    expect(seen.open_reservations >= least && seen.open_reservations <= most,
           "open_reservations is wrong");
    expect(seen.busy_keys <= seen.slots, "more keys than places");
    if (!is_roomy_) return;
    int64_t busy = 0;
    for (const auto& [key, full] : full_) busy += full > time;
    expect_equal(seen.busy_keys, busy, "busy_keys");
    expect_equal(seen.refused, refused_, "refused");
    expect_equal(seen.would_refuse, would_refuse_, "would_refuse");
    expect_equal(seen.evicted, 0, "evicted");
    expect_equal(seen.no_place, 0, "no_place");
  }

  const History& history_;
  const std::vector<int64_t>& config_;
  agr_keyed_limiter_config settings_{};
  Handle<agr_keyed_limiter, agr_keyed_limiter_destroy> limiter_;
  Scale scale_;
  Costs costs_;
  bool is_roomy_ = false, changed_ = false;
  std::map<int64_t, int64_t> full_;
  std::map<int64_t, Open> open_;
  std::vector<Windows> windows_;
  int64_t shift_ = 0, last_retry_ = 0, refused_ = 0, would_refuse_ = 0, latest_ = 0;
};

class KeyedEngine : public Engine {
 public:
  KeyedEngine()
      : Engine("keyed",
               {"max_keys", "capacity", "debt", "tokens", "interval", "reservations", "timeout",
                "evict", "observe", "keys", "start"},
               {{"try", {"key", "tokens"}},
                {"reserve", {"key", "tokens", "longest"}},
                {"cancel", {"of"}},
                {"settle", {"of", "actual"}},
                {"available", {"key"}},
                {"reconfigure", {"key", "capacity", "debt", "tokens", "interval"}},
                {"snapshot", {"key"}},
                {"come_back", {"key", "tokens"}}}) {}

  void generate(Random& random, History& history) const override {
    auto& config = history.config;
    config.assign(this->config.size(), 0);
    config[kMaxKeys] = random.chance(4) ? 1 + random.below(16) : 64;
    config[kKeys] = random.chance(4) ? 100 : 1 + random.below(8);
    any_rate(random, config[kCapacity], config[kDebt], config[kTokens], config[kInterval]);
    config[kReservations] = random.chance(2) ? random.below(4) : 64;
    const int64_t token = std::max<int64_t>(1, config[kInterval] / config[kTokens]);
    config[kTimeout] = 1 + random.skewed(token * 40);
    config[kEvict] = random.chance(2);
    config[kObserve] = random.chance(10);
    config[kStart] = random.skewed(kYear);
    Clock clock(random, static_cast<Clock::Kind>(random.below(3)), config[kStart], token);
    const int64_t count = random.between(20, random.chance(4) ? 800 : 150);
    for (int64_t id = 1; id <= count; ++id)
      history.steps.push_back(any_step(random, history, id, clock.next(), token));
  }

  void run(const History& history) const override { Run(history).run(); }

 private:
  static void any_rate(Random& random, int64_t& capacity, int64_t& debt, int64_t& tokens,
                       int64_t& interval) {
    capacity = 1 + random.skewed(random.chance(8) ? 1 << 20 : 100);
    tokens = 1 + random.skewed(100);
    interval = tokens * (1 + random.skewed(10 * kSecond)) + random.below(tokens);
    if (random.chance(2)) interval -= interval % tokens;
    debt = random.chance(2) ? -1 : random.skewed(capacity * 2);
  }

  static Step any_step(Random& random, const History& history, int64_t id, int64_t now,
                       int64_t token) {
    const auto& config = history.config;
    const int64_t capacity = config[kCapacity];
    const auto amount = [&] { return random.skewed(random.chance(20) ? capacity + 2 : capacity); };
    Step step;
    step.id = id;
    auto& values = step.values;
    values[0] = now;
    values[1] = random.below(config[kKeys]);
    const int64_t reference = std::max<int64_t>(0, id - 1 - random.skewed(40));
    const int64_t which = random.below(17);
    if (which < 6) {
      step.operation = kTry;
      values[2] = amount();
    } else if (which < 9) {
      step.operation = kReserve;
      values[2] = amount();
      values[3] = random.chance(3) ? 0 : random.chance(8) ? AGR_FOREVER : random.skewed(token * 8);
    } else if (which < 11) {
      step.operation = kCancel;
      values[1] = reference;
    } else if (which < 13) {
      step.operation = kSettle;
      values[1] = reference;
      values[2] = random.chance(6) ? -1 : random.skewed(capacity * 2);
    } else if (which < 14) {
      step.operation = kAvailable;
    } else if (which < 15) {
      step.operation = kSnapshot;
      if (random.chance(6)) {
        step.operation = kReconfigure;
        any_rate(random, values[2], values[3], values[4], values[5]);
      }
    } else {
      step.operation = kComeBack;
      values[2] = amount();
    }
    return step;
  }
};

}  // namespace

const Engine& keyed_engine() {
  static const KeyedEngine engine;
  return engine;
}

}  // namespace model
