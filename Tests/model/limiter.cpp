// SPDX-License-Identifier: Apache-2.0
// One bucket, and up to three as one (requests and tokens per minute).
#include "bucket.hpp"
#include "engines.hpp"

#include <algorithm>
#include <memory>

namespace model {
namespace {

enum Field {
  kBuckets, kCapacity, kDebt, kTokens, kInterval, kInitial, kReservations, kTimeout, kObserve, kStart
};
enum Call {
  kTry, kReserve, kCancel, kSettle, kAvailable, kReconfigure, kSnapshot, kComeBack, kTryAll,
  kReserveAll
};

struct Open {
  uint64_t permit = 0;
  size_t bucket = 0;
  Charge charge;
  int64_t expires = 0;
  bool ended = false;
  /// Its time was over once; with a clock that went back a little it may be void or not.
  bool doubtful = false;
};

/// One limiter of the library, and its model.
class Pair {
 public:
  Pair(const std::vector<int64_t>& config, size_t index) : scale_(config[kStart]) {
    agr_limiter_config_init(&config_, sizeof config_);
    // The buckets of a set differ in size and speed.
    config_.capacity = config[kCapacity] + static_cast<int64_t>(index) * 3;
    config_.max_debt_tokens = config[kDebt];
    config_.refill_tokens = config[kTokens];
    config_.refill_interval_ns = config[kInterval] * (index ? 2 : 1);
    config_.initial_tokens = std::min(config[kInitial], config_.capacity);
    config_.max_reservations = static_cast<uint32_t>(config[kReservations]);
    config_.reservation_timeout_ns = config[kTimeout];
    config_.observe = config[kObserve] != 0;
    if (agr_limiter_create_at(&config_, config[kStart], &handle_.pointer, nullptr) != AGR_OK)
      throw Refused();
    const int64_t initial = config_.initial_tokens < 0 ? config_.capacity : config_.initial_tokens;
    bucket_ = std::make_unique<Bucket>(rate(), initial, config[kStart]);
  }

  agr_limiter* handle() const { return handle_; }
  const Bucket& bucket() const { return *bucket_; }
  int64_t read(int64_t now) {
    const int64_t time = scale_.read(now);
    latest_ = std::max(latest_, time);
    return time;
  }
  int64_t read_onward(int64_t now) { return scale_.read_onward(now); }
  int64_t peek(int64_t now) const { return scale_.peek(now); }

  /// What an attempt should answer when nobody is refused for observation's sake.
  Grant decide(int64_t tokens, int64_t longest, int64_t time, bool ahead, Charge& charge) {
    Grant grant = ahead ? bucket_->reserve(tokens, longest, time, charge)
                        : bucket_->take(tokens, time);
    if (grant.status == AGR_LIMITED) {
      (config_.observe ? would_refuse_ : refused_) += 1;
      if (config_.observe) grant = {AGR_OK};
    } else if (grant.status == AGR_OK && !config_.observe && tokens > 0) {
      charge.use = windows_.add(later(time, grant.wait), tokens);
    }
    return grant;
  }

  /// How many permits are out for sure, and at the most.
  std::pair<uint32_t, uint32_t> open(int64_t time, std::map<int64_t, Open>& all, size_t index) {
    std::pair<uint32_t, uint32_t> count{0, 0};
    for (auto& [id, one] : all) {
      if (one.bucket != index || one.ended) continue;
      if (one.expires <= time) one.doubtful = true;
      if (one.expires > time) count.first += !one.doubtful, count.second += 1;
    }
    return count;
  }

  uint32_t most() const { return config_.max_reservations; }
  int64_t expiry(int64_t time) const { return later(time, config_.reservation_timeout_ns); }

  void refund(const Charge& charge, int64_t tokens, int64_t time,
              const std::vector<Charge*>& others) {
    bucket_->refund(charge, tokens, time, others);
    // limiter.h: given back at an older time, within 1 ms.
    if (time < latest_) windows_.allow(bucket_->rate(), kMillisecond);
    windows_.correct(charge.use, charge.tokens - tokens);
  }

  void settle(Open& one, int64_t actual, int64_t time, const std::vector<Charge*>& others) {
    if (actual < 0) return;
    if (actual < one.charge.tokens)
      refund(one.charge, one.charge.tokens - actual, time, others);
    if (actual > one.charge.tokens)
      forgiven_ += bucket_->charge(actual - one.charge.tokens, time);
  }

  void reconfigure(int64_t capacity, int64_t debt, int64_t tokens, int64_t interval, int64_t now,
                   const std::vector<Charge*>& charges) {
    windows_.check(bucket_->rate());
    windows_.clear();
    config_.capacity = capacity;
    config_.max_debt_tokens = debt;
    config_.refill_tokens = tokens;
    config_.refill_interval_ns = interval;
    expect_equal(agr_limiter_reconfigure_at(handle_, &config_, now, nullptr), AGR_OK,
                 "reconfigure");
    bucket_->change(rate(), read(now), charges);
    for (Charge* charge : charges) charge->use = SIZE_MAX;
  }

  void check(int64_t now, std::map<int64_t, Open>& all, size_t index) {
    agr_limiter_snapshot seen{};
    seen.struct_size = sizeof seen;
    expect_equal(agr_limiter_snapshot_read_at(handle_, now, &seen, nullptr), AGR_OK, "snapshot");
    const int64_t time = read(now);
    const auto [least, most] = open(time, all, index);
    expect(seen.open_reservations >= least && seen.open_reservations <= most,
           "open_reservations is wrong");
    expect_equal(seen.available, bucket_->available(time), "available");
    expect_equal(seen.capacity, bucket_->rate().capacity, "capacity");
    expect_equal(seen.refill_tokens, bucket_->rate().tokens, "refill_tokens");
    expect_equal(seen.refill_interval_ns, bucket_->rate().interval, "refill_interval_ns");
    expect_equal(seen.refused, refused_, "refused");
    expect_equal(seen.would_refuse, would_refuse_, "would_refuse");
    expect_equal(seen.forgiven, forgiven_, "forgiven");
  }

  void check_windows() { windows_.check(bucket_->rate()); }

  agr_limiter_config config_{};

 private:
  Rate rate() const {
    return Rate(config_.capacity, config_.max_debt_tokens, config_.refill_tokens,
                config_.refill_interval_ns);
  }

  Handle<agr_limiter, agr_limiter_destroy> handle_;
  Scale scale_;
  int64_t latest_ = 0;
  std::unique_ptr<Bucket> bucket_;
  Windows windows_;
  int64_t refused_ = 0, would_refuse_ = 0, forgiven_ = 0;
};

class Run {
 public:
  explicit Run(const History& history) : history_(history) {
    for (int64_t index = 0; index < history.config[kBuckets]; ++index)
      pairs_.push_back(std::make_unique<Pair>(history.config, static_cast<size_t>(index)));
    if (pairs_.empty() || pairs_.size() > AGR_DIMENSIONS_MAX) throw Refused();
  }

  void run() {
    for (const Step& step : history_.steps) {
      do_step(step, later(step.values[0], shift_));
      current_step += 1;
    }
    for (auto& pair : pairs_) pair->check_windows();
  }

 private:
  Pair& pair(const Step& step) { return *pairs_[bucket(step)]; }
  size_t bucket(const Step& step) const {
    return static_cast<size_t>(step.values[1]) % pairs_.size();
  }

  void do_step(const Step& step, int64_t now) {
    switch (step.operation) {
      case kTry: attempt(step, now); break;
      case kReserve: reserve(step, now); break;
      case kCancel: end(step.values[1], 0, now, true); break;
      case kSettle: end(step.values[1], step.values[2], now, false); break;
      case kAvailable: available(step, now); break;
      case kReconfigure: reconfigure(step, now); break;
      case kSnapshot: pair(step).check(now, open_, bucket(step)); break;
      case kComeBack: come_back(step, now); break;
      case kTryAll: try_all(step, now); break;
      case kReserveAll: reserve_all(step, now); break;
    }
  }

  agr_status attempt(const Step& step, int64_t now) {
    Pair& one = pair(step);
    int64_t retry_after = -7;
    const agr_status status =
        agr_limiter_try_acquire_at(one.handle(), step.values[2], now, &retry_after, nullptr);
    Charge charge;
    const Grant wanted = one.decide(step.values[2], 0, one.read(now), false, charge);
    expect_equal(status, wanted.status, "try_acquire");
    expect_equal(retry_after, wanted.retry_after, "retry_after_ns");
    last_retry_ = retry_after;
    return status;
  }

  /// The charges of a bucket's open reservations.
  std::vector<Charge*> charges_of(size_t bucket) {
    std::vector<Charge*> charges;
    for (auto& [id, one] : open_)
      if (one.bucket == bucket && !one.ended) charges.push_back(&one.charge);
    return charges;
  }

  /// A refusal is honest: one nanosecond before its time nothing has changed, then it is admitted.
  void come_back(const Step& step, int64_t now) {
    if (pair(step).config_.observe || attempt(step, now) != AGR_LIMITED) return;
    const int64_t wait = last_retry_;
    if (wait > kYear / 2 || wait == 0 || wait > AGR_TIME_MAX_NS - now) return;
    if (wait > 1) expect_equal(attempt(step, now + wait - 1), AGR_LIMITED, "1 ns too early");
    expect_equal(attempt(step, now + wait), AGR_OK, "at the time that was said");
    shift_ = later(shift_, wait);
  }

  /// Takes a permit of the model, after the library has or has not given one.
  void claim(const Step& step, size_t index, size_t part, int64_t now, agr_status status,
             const agr_reservation& seen, const Grant& wanted, Charge charge) {
    Pair& one = *pairs_[index];
    const int64_t time = one.read(now);
    const auto [least, most] = one.open(time, open_, index);
    if (least >= one.most()) expect_equal(status, AGR_ERR_CAPACITY, "reserve");
    if (most < one.most()) expect_equal(status, AGR_OK, "reserve");
    if (status == AGR_ERR_CAPACITY) {
      one.refund(charge, charge.tokens, one.read_onward(now), charges_of(index));
      return;
    }
    expect_equal(seen.wait_ns, wanted.wait, "wait_ns");
    expect(seen.permit != 0, "there is no permit");
    Open open;
    open.permit = seen.permit;
    open.bucket = index;
    open.charge = charge;
    open.expires = one.expiry(time);
    open_[step.id * AGR_DIMENSIONS_MAX + static_cast<int64_t>(part)] = open;
  }

  void reserve(const Step& step, int64_t now) {
    Pair& one = pair(step);
    agr_reservation seen{};
    int64_t retry_after = -7;
    const agr_status status = agr_limiter_reserve_at(one.handle(), step.values[2], step.values[3],
                                                     now, &seen, &retry_after, nullptr);
    Charge charge;
    const int64_t time = one.read(now);
    // Whoever asks takes the place of a permit whose time is over, also when it is refused then.
    one.open(time, open_, bucket(step));
    const Grant wanted = one.decide(step.values[2], step.values[3], time, true, charge);
    expect_equal(retry_after, wanted.retry_after, "retry_after_ns");
    if (wanted.status == AGR_OK) {
      claim(step, bucket(step), 0, now, status, seen, wanted, charge);
      if (status == AGR_OK) expect_equal(seen.tokens, step.values[2], "tokens");
    } else {
      expect_equal(status, wanted.status, "reserve");
      expect(seen.permit == 0 && seen.tokens == 0 && seen.wait_ns == 0, "a refusal left a trace");
    }
  }

  void end(int64_t reference, int64_t actual, int64_t now, bool cancel) {
    const auto found = open_.find(reference);
    Open* one = found == open_.end() ? nullptr : &found->second;
    const uint64_t permit = one ? one->permit : static_cast<uint64_t>(reference);
    Pair& pair = *pairs_[one ? one->bucket : 0];
    const agr_status status =
        cancel ? agr_limiter_cancel_at(pair.handle(), permit, now, nullptr)
               : agr_limiter_settle_at(pair.handle(), permit, actual, now, nullptr);
    const int64_t time = pair.read(now);
    if (!one || one->ended || one->expires <= time || !one->doubtful)
      expect_equal(status, one && !one->ended && one->expires > time ? AGR_OK : AGR_STALE,
                   cancel ? "cancel" : "settle");
    if (!one || one->ended) return;
    one->ended = true;
    if (status == AGR_OK) pair.settle(*one, actual, pair.read_onward(now), charges_of(one->bucket));
  }

  void available(const Step& step, int64_t now) {
    int64_t tokens = -7;
    Pair& one = pair(step);
    expect_equal(agr_limiter_available_at(one.handle(), now, &tokens, nullptr), AGR_OK,
                 "available");
    expect_equal(tokens, one.bucket().available(one.read(now)), "available");
  }

  void reconfigure(const Step& step, int64_t now) {
    const std::vector<Charge*> charges = charges_of(bucket(step));
    pair(step).reconfigure(std::max<int64_t>(1, step.values[2]), step.values[3],
                           std::min(step.values[4], std::max<int64_t>(1, step.values[5])),
                           std::max<int64_t>(1, step.values[5]), now, charges);
  }

  struct All {
    std::array<agr_limiter_demand, AGR_DIMENSIONS_MAX> demands{};
    uint32_t refused = 99;
    int64_t retry_after = -7;
  };

  All demands(const Step& step) {
    All all;
    for (size_t index = 0; index < pairs_.size(); ++index)
      all.demands[index] = {pairs_[index]->handle(), step.values[1 + index]};
    return all;
  }

  /// What all of them together should answer; what was taken stays taken only if all give.
  agr_status decide_all(const Step& step, int64_t longest, int64_t now, All& all,
                        std::array<Charge, AGR_DIMENSIONS_MAX>& charges,
                        std::array<Grant, AGR_DIMENSIONS_MAX>& grants) {
    const size_t count = pairs_.size();
    all.refused = static_cast<uint32_t>(count);
    all.retry_after = 0;
    agr_status status = AGR_OK;
    size_t asked = 0;
    for (; asked < count; ++asked) {
      Pair& one = *pairs_[asked];
      grants[asked] = one.decide(step.values[1 + asked], longest, one.read(now), true,
                                 charges[asked]);
      const Grant& grant = grants[asked];
      if (grant.status == AGR_ERR_NEVER_FITS) {
        status = grant.status;
        all.refused = static_cast<uint32_t>(asked);
        all.retry_after = 0;
        break;
      }
      if (grant.status == AGR_LIMITED && (status == AGR_OK || grant.retry_after > all.retry_after)) {
        status = AGR_LIMITED;
        all.refused = static_cast<uint32_t>(asked);
        all.retry_after = grant.retry_after;
      }
    }
    if (status == AGR_OK) return status;
    for (size_t index = 0; index < asked; ++index) {
      if (grants[index].status == AGR_OK)
        pairs_[index]->refund(charges[index], charges[index].tokens,
                              pairs_[index]->read_onward(now), charges_of(index));
    }
    return status;
  }

  void try_all(const Step& step, int64_t now) {
    All seen = demands(step), wanted;
    const agr_status status = agr_limiter_try_acquire_all_at(
        seen.demands.data(), static_cast<uint32_t>(pairs_.size()), now, &seen.refused,
        &seen.retry_after, nullptr);
    std::array<Charge, AGR_DIMENSIONS_MAX> charges;
    std::array<Grant, AGR_DIMENSIONS_MAX> grants;
    expect_equal(status, decide_all(step, 0, now, wanted, charges, grants), "try_acquire_all");
    expect_equal(seen.refused, wanted.refused, "refused_index");
    expect_equal(seen.retry_after, wanted.retry_after, "retry_after_ns");
  }

  void reserve_all(const Step& step, int64_t now) {
    // Whether there is a place for each permit is left to the single buckets.
    for (size_t index = 0; index < pairs_.size(); ++index) {
      const int64_t time = pairs_[index]->peek(now);
      if (pairs_[index]->open(time, open_, index).second >= pairs_[index]->most()) return;
    }
    All seen = demands(step), wanted;
    std::array<agr_reservation, AGR_DIMENSIONS_MAX> reservations{};
    const agr_status status = agr_limiter_reserve_all_at(
        seen.demands.data(), static_cast<uint32_t>(pairs_.size()), step.values[5], now,
        reservations.data(), &seen.refused, &seen.retry_after, nullptr);
    std::array<Charge, AGR_DIMENSIONS_MAX> charges;
    std::array<Grant, AGR_DIMENSIONS_MAX> grants;
    expect_equal(status, decide_all(step, step.values[5], now, wanted, charges, grants),
                 "reserve_all");
    expect_equal(seen.refused, wanted.refused, "refused_index");
    expect_equal(seen.retry_after, wanted.retry_after, "retry_after_ns");
    for (size_t index = 0; index < pairs_.size(); ++index) {
      if (status == AGR_OK)
        claim(step, index, index, now, status, reservations[index],
              grants[index], charges[index]);
      else
        expect(reservations[index].permit == 0, "a refusal left a reservation");
    }
  }

  const History& history_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::map<int64_t, Open> open_;
  int64_t shift_ = 0;
  int64_t last_retry_ = 0;
};

class LimiterEngine : public Engine {
 public:
  LimiterEngine()
      : Engine("limiter",
               {"buckets", "capacity", "debt", "tokens", "interval", "initial", "reservations",
                "timeout", "observe", "start"},
               {{"try", {"bucket", "tokens"}},
                {"reserve", {"bucket", "tokens", "longest"}},
                {"cancel", {"of"}},
                {"settle", {"of", "actual"}},
                {"available", {"bucket"}},
                {"reconfigure", {"bucket", "capacity", "debt", "tokens", "interval"}},
                {"snapshot", {"bucket"}},
                {"come_back", {"bucket", "tokens"}},
                {"try_all", {"a", "b", "c", "d"}},
                {"reserve_all", {"a", "b", "c", "d", "longest"}}}) {}

  void generate(Random& random, History& history) const override {
    auto& config = history.config;
    config.assign(this->config.size(), 0);
    config[kBuckets] = random.chance(2) ? 1 : random.between(2, 3);
    // As it would be used, or anything at all.
    const bool extreme = random.chance(8);
    const int64_t most = INT64_C(1) << (extreme ? 50 : 10);
    config[kCapacity] = 1 + random.skewed(most - 16);
    config[kInterval] = 1 + random.skewed(extreme ? kYear / 2 - 1 : 100 * kSecond);
    config[kTokens] = random.skewed(std::min(most, config[kInterval]));
    if (random.chance(2)) {
      // A token takes a whole number of nanoseconds.
      config[kTokens] = 1 + random.skewed(20);
      config[kInterval] = config[kTokens] * (1 + random.skewed(kSecond));
    }
    config[kDebt] = random.chance(2) ? -1 : random.skewed(most);
    config[kInitial] = random.chance(2) ? -1 : random.skewed(config[kCapacity]);
    config[kReservations] = random.chance(2) ? random.below(4) : 64;
    config[kObserve] = random.chance(10);
    config[kStart] = any_start(random);
    const int64_t token =
        config[kTokens] ? std::max<int64_t>(1, config[kInterval] / config[kTokens]) : kSecond;
    config[kTimeout] = 1 + random.skewed(std::min(kYear, later(0, token) / 4 * 40 + 1));
    const auto kind = static_cast<Clock::Kind>(random.below(3));
    Clock clock(random, kind, config[kStart], std::min(token, kYear / 1000));
    const int64_t count = random.between(20, random.chance(4) ? 800 : 150);
    for (int64_t id = 1; id <= count; ++id) history.steps.push_back(any_step(random, history, id, clock.next(), token));
  }

  void run(const History& history) const override { Run(history).run(); }

 private:
  static int64_t amount(Random& random, int64_t capacity) {
    return random.skewed(random.chance(20) ? capacity + 2 : capacity);
  }

  static Step any_step(Random& random, const History& history, int64_t id, int64_t now,
                       int64_t token) {
    const auto& config = history.config;
    const int64_t capacity = config[kCapacity];
    const int64_t longest = random.chance(8) ? AGR_FOREVER
                                             : random.skewed(std::min(kYear, later(token, token)) * 4);
    Step step;
    step.id = id;
    auto& values = step.values;
    values[0] = now;
    values[1] = random.below(config[kBuckets]);
    // One of the last few; seldom one that was never given.
    const int64_t reference = std::max<int64_t>(0, id - 1 - random.skewed(40)) * AGR_DIMENSIONS_MAX +
                              (random.chance(2) ? 0 : random.below(config[kBuckets]));
    switch (random.below(20)) {
      case 0: case 1: case 2: case 3: case 4:
        step.operation = kTry;
        values[2] = amount(random, capacity);
        break;
      case 5: case 6: case 7: case 8:
        step.operation = kReserve;
        values[2] = amount(random, capacity);
        values[3] = random.chance(3) ? 0 : longest;
        break;
      case 9: case 10:
        step.operation = kCancel;
        values[1] = reference;
        break;
      case 11: case 12:
        step.operation = kSettle;
        values[1] = reference;
        values[2] = random.chance(6) ? -1 : random.skewed(std::min(capacity * (random.chance(4) ? 2 : 1), INT64_C(1) << 50));
        break;
      case 13: step.operation = kAvailable; break;
      case 14:
        if (random.chance(4)) {
          step.operation = kReconfigure;
          values[2] = 1 + random.skewed(std::min(capacity * 2, (INT64_C(1) << 50) - 1));
          values[3] = random.chance(2) ? -1 : random.skewed(capacity);
          values[4] = random.skewed(20);
          values[5] = 1 + random.skewed(std::min(kYear - 1, later(token, token) * 10));
          break;
        }
        [[fallthrough]];
      case 15: step.operation = kSnapshot; break;
      case 16: case 17:
        step.operation = kComeBack;
        values[2] = amount(random, capacity);
        break;
      case 18:
        step.operation = kTryAll;
        for (int index = 0; index < 4; ++index) values[static_cast<size_t>(1 + index)] = amount(random, capacity);
        break;
      default:
        step.operation = kReserveAll;
        for (int index = 0; index < 4; ++index) values[static_cast<size_t>(1 + index)] = amount(random, capacity);
        values[5] = random.chance(3) ? 0 : longest;
    }
    return step;
  }
};

}  // namespace

const Engine& limiter_engine() {
  static const LimiterEngine engine;
  return engine;
}

}  // namespace model
