// SPDX-License-Identifier: Apache-2.0
#include "../model/bucket.hpp"
#include "linear.hpp"

namespace linear {
namespace {

enum { kTry, kReserve, kCancel, kSettle, kAvailable };
constexpr int64_t kStart = 1'000'000, kToken = 1000;

/// Exact where nothing flows in. Else less may come back where threads meet (limiter.h), so that the model has
/// at least what there is: what is admitted must have been there, and a refusal says nothing.
struct State {
  model::Bucket bucket;
  bool is_exact;
  std::map<int, model::Charge> charges{};

  bool is_refused(const Call& call) const { return !is_exact && call.status == AGR_LIMITED; }

  bool apply(const Call& call) {
    const auto found = charges.find(call.of);
    switch (call.operation) {
      case kTry:
        return is_refused(call) || call.status == bucket.take(call.value, call.now).status;
      case kReserve: {
        model::Charge charge;
        if (is_refused(call)) return true;
        if (call.status != bucket.reserve(call.value, 0, call.now, charge).status) return false;
        if (call.status == AGR_OK) charges[call.number] = charge;
        return true;
      }
      case kAvailable: {
        const int64_t most = bucket.available(call.now);
        return is_exact ? call.answer == most : call.answer <= most;
      }
      default: break;
    }
    // The end of a reservation.
    if (call.status != (found == charges.end() ? AGR_STALE : AGR_OK)) return false;
    if (found == charges.end()) return true;
    const model::Charge charge = found->second;
    charges.erase(found);
    std::vector<model::Charge*> others;
    for (auto& [number, other] : charges) others.push_back(&other);
    const int64_t real = call.operation == kCancel ? 0 : call.value;
    if (real < charge.tokens) bucket.refund(charge, charge.tokens - real, call.now, others);
    if (real > charge.tokens) bucket.charge(real - charge.tokens, call.now);
    return true;
  }

  std::string key() const {
    std::string key = std::to_string(static_cast<int64_t>(bucket.level(kStart)));
    for (const auto& [number, charge] : charges)
      key += "," + std::to_string(number) + ":" + std::to_string(static_cast<int64_t>(charge.level));
    return key;
  }
};

class Single : public History {
 public:
  Single(int threads, Random random) {
    agr_limiter_config_init(&config_, sizeof config_);
    config_.capacity = random.between(3, 10);
    config_.refill_tokens = random.below(2);
    config_.refill_interval_ns = kToken;
    config_.max_debt_tokens = 20;
    config_.max_reservations = 64;
    config_.initial_tokens = random.between(0, config_.capacity);
    if (agr_limiter_create_at(&config_, kStart, &object_.pointer, nullptr) != AGR_OK) abort();
    calls = plan(threads, random);
    const bool moves = random.chance(2);
    for (Call& call : calls) {
      call.operation = static_cast<int>(random.below(5));
      call.value = random.below(config_.capacity + 1);
      // Times a little apart, as threads read them.
      call.now = kStart + (moves ? random.below(4 * kToken) : 0);
      if (call.operation == kCancel || call.operation == kSettle)
        call.of = last_of(calls, call, kReserve, kReserve);
    }
  }

  void make(Call& call) override {
    const uint64_t permit = call.of < 0 ? 0 : calls[static_cast<size_t>(call.of)].id;
    agr_reservation reservation{};
    switch (call.operation) {
      case kTry:
        call.status = agr_limiter_try_acquire_at(object_, call.value, call.now, nullptr, nullptr);
        break;
      case kReserve:
        call.status = agr_limiter_reserve_at(object_, call.value, 0, call.now, &reservation,
                                             nullptr, nullptr);
        call.id = reservation.permit;
        break;
      case kCancel: call.status = agr_limiter_cancel_at(object_, permit, call.now, nullptr); break;
      case kSettle:
        call.status = agr_limiter_settle_at(object_, permit, call.value, call.now, nullptr);
        break;
      default: call.status = agr_limiter_available_at(object_, call.now, &call.answer, nullptr);
    }
  }

  bool has_order() override {
    const model::Rate rate(config_.capacity, config_.max_debt_tokens, config_.refill_tokens, kToken);
    const State start{model::Bucket(rate, config_.initial_tokens, kStart),
                      config_.refill_tokens == 0};
    return Search<State>(calls).run(start);
  }

 private:
  agr_limiter_config config_;
  model::Handle<agr_limiter, agr_limiter_destroy> object_;
};

/// Two buckets as one. While a demand is decided another's tokens are held (limiter.h), so that a refusal says
/// nothing; what is admitted must have been there.
struct Both {
  int64_t left[2];

  bool apply(const Call& call) {
    if (call.status == AGR_LIMITED) return true;
    if (call.status != AGR_OK) return false;
    for (int index = 0; index < 2; ++index) {
      if (call.operation != 2 && call.operation != index) continue;
      if (left[index] < call.value) return false;
      left[index] -= call.value;
    }
    return true;
  }
  std::string key() const { return std::to_string(left[0]) + "," + std::to_string(left[1]); }
};

class Pair : public History {
 public:
  Pair(int threads, Random random) {
    agr_limiter_config config;
    agr_limiter_config_init(&config, sizeof config);
    config.refill_tokens = 0;
    for (int index = 0; index < 2; ++index) {
      config.capacity = start_.left[index] = random.between(3, 10);
      if (agr_limiter_create_at(&config, kStart, &objects_[index].pointer, nullptr) != AGR_OK)
        abort();
    }
    calls = plan(threads, random);
    for (Call& call : calls) {
      call.operation = static_cast<int>(random.below(3));
      call.value = random.between(1, 3);
      call.now = kStart;
    }
  }

  void make(Call& call) override {
    const agr_limiter_demand demands[] = {{objects_[0], call.value}, {objects_[1], call.value}};
    call.status =
        call.operation == 2
            ? agr_limiter_try_acquire_all_at(demands, 2, call.now, nullptr, nullptr, nullptr)
            : agr_limiter_try_acquire_at(objects_[call.operation], call.value, call.now, nullptr,
                                         nullptr);
  }

  bool has_order() override {
    // In the end nothing is held any more: what is left is what was not admitted.
    for (int index = 0; index < 2; ++index) {
      int64_t wanted = start_.left[index], left = -1;
      for (const Call& call : calls)
        if (call.status == AGR_OK && (call.operation == 2 || call.operation == index))
          wanted -= call.value;
      if (agr_limiter_available_at(objects_[index], kStart, &left, nullptr) != AGR_OK) return false;
      if (left != wanted) return false;
    }
    return Search<Both>(calls).run(start_);
  }

 private:
  Both start_{};
  model::Handle<agr_limiter, agr_limiter_destroy> objects_[2];
};

}  // namespace

const Subject limiter{"limiter", create<Single>, {"try", "reserve", "cancel", "settle", "available"}};
const Subject several{"several", create<Pair>, {"first", "second", "both"}};

}  // namespace linear
