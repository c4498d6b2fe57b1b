// SPDX-License-Identifier: Apache-2.0
#include "../model/breaker_model.hpp"
#include "linear.hpp"

#include <set>
#include <tuple>

namespace linear {
namespace {

/// A report is up to four steps (breaker.h): the permit's place is free; the result is counted, or the probe
/// judged; the rates are looked at; it trips.
enum { kAcquire, kReport, kState, kJudge, kLook, kTrip };
constexpr int64_t kStart = 1'000'000, kOpen = 1000;

struct State {
  model::BreakerModel breaker;
  /// Reports whose permit has ended, with the permit, and whether it was of the present generation then.
  std::map<int, std::pair<model::BreakerPermit, bool>> ended{};
  std::set<int> judged{}, looked{};
  /// Results that were counted: the generation, whether failed, whether the streak was long enough.
  std::map<int, std::tuple<uint64_t, bool, bool>> counted{};
  /// There were enough results once.
  bool is_warm = false;

  bool apply(const Call& call) {
    switch (call.operation) {
      case kAcquire: {
        const model::BreakerModel::Answer answer = breaker.acquire(call.now);
        if (call.status != answer.status) return false;
        if (call.status == AGR_OK) breaker.claim(call.number, answer.probe, call.now);
        return true;
      }
      case kReport: {
        const auto found = breaker.permits.find(call.of);
        const bool is_out = found != breaker.permits.end() && !found->second.ended;
        if (is_out) ended[call.number] = {found->second, found->second.generation == breaker.generation};
        if (is_out) found->second.ended = true;
        return is_out || call.status == AGR_STALE;
      }
      case kJudge: {
        const auto found = ended.find(call.number);
        // Not before the first step; nothing to judge where there was no permit.
        if (found == ended.end()) return call.status == AGR_STALE;
        auto [permit, was_current] = found->second;
        judged.insert(call.number);
        if (breaker.state == AGR_BREAKER_CLOSED && permit.generation == breaker.generation) {
          if (call.value != AGR_OUTCOME_NEUTRAL) count(call);
          return call.status == AGR_OK;
        }
        const bool counted =
            breaker.report(&permit, static_cast<int32_t>(call.value), 0, call.now);
        // In the instant of a trip a result may be told OK and count no more.
        return call.status == (counted ? AGR_OK : AGR_STALE) ||
               (call.status == AGR_OK && was_current);
      }
      case kLook: return look(call);
      case kTrip: return trip(call);
      default: return call.answer == breaker.state_at(call.now);
    }
  }

  void count(const Call& call) {
    const bool failed = call.value == AGR_OUTCOME_FAILURE;
    breaker.streak = failed ? breaker.streak + 1 : 0;
    breaker.results.push_back({0, failed, false});
    if (breaker.results.size() > breaker.config.window_calls) breaker.results.pop_front();
    const uint32_t most = breaker.config.consecutive_failures;
    counted[call.number] = {breaker.generation, failed, most && breaker.streak >= most};
  }

  bool look(const Call& call) {
    if (call.status == AGR_OK && !judged.count(call.number)) return false;
    const auto found = counted.find(call.number);
    if (found == counted.end()) return true;
    auto& [generation, failed, trip] = found->second;
    looked.insert(call.number);
    if (generation != breaker.generation) return true;
    const model::BreakerModel::Counts in = breaker.counts(call.now);
    if (in.total >= breaker.config.minimum_calls && (failed || !is_warm)) {
      is_warm = true;
      trip |= static_cast<double>(in.failures) >=
              breaker.config.failure_rate * static_cast<double>(in.total);
    }
    return true;
  }

  bool trip(const Call& call) {
    const auto found = counted.find(call.number);
    if (found == counted.end()) return judged.count(call.number) > 0;
    if (!looked.count(call.number)) return false;
    const auto [generation, failed, trips] = found->second;
    counted.erase(found);
    if (trips && generation == breaker.generation) breaker.open(call.now);
    return true;
  }

  std::string key() const {
    std::string key = std::to_string(breaker.state) + "," + std::to_string(breaker.generation) +
                      "," + std::to_string(breaker.when) + "," + std::to_string(breaker.streak) +
                      "," + std::to_string(breaker.successes) + ",";
    for (const auto& result : breaker.results) key += result.failed ? 'f' : 's';
    for (const auto& [number, permit] : breaker.permits)
      key += std::to_string(number) + (permit.ended ? "e" : "o") +
             std::to_string(permit.generation);
    for (const auto& [number, one] : ended)
      key += "," + std::to_string(number) + (one.second ? "c" : "");
    for (int number : judged) key += ";" + std::to_string(number);
    for (int number : looked) key += ":" + std::to_string(number);
    for (const auto& [number, one] : counted)
      key += "." + std::to_string(number) + (std::get<2>(one) ? "t" : "");
    key += is_warm ? "w" : "";
    return key;
  }
};

class Breaker : public History {
 public:
  Breaker(int threads, Random random) : start_(settings(random)) {
    if (agr_breaker_create(&start_.breaker.config, &object_.pointer, nullptr) != AGR_OK) abort();
    // Half of the histories begin when it is open, and about to be half-open.
    int64_t now = kStart;
    if (random.chance(2)) now = open();
    calls = plan(threads, random);
    for (Call& call : calls) {
      call.operation = random.chance(6) ? kState : static_cast<int>(random.below(2));
      call.value = random.between(AGR_OUTCOME_SUCCESS, AGR_OUTCOME_NEUTRAL);
      // At one moment: a trip's time is that of the call which made it.
      call.now = now;
      if (call.operation == kReport) call.of = last_of(calls, call, kAcquire, kAcquire);
    }
  }

  void make(Call& call) override {
    int32_t state = 0;
    switch (call.operation) {
      case kAcquire:
        call.status = agr_breaker_acquire_at(object_, call.now, &call.id, nullptr, nullptr);
        break;
      case kReport:
        call.status = agr_breaker_report_at(
            object_, call.of < 0 ? 0 : calls[static_cast<size_t>(call.of)].id,
            static_cast<int32_t>(call.value), 0, call.now, nullptr);
        break;
      default:
        call.status = agr_breaker_state_at(object_, call.now, &state, nullptr);
        call.answer = state;
    }
  }

  bool has_order() override {
    Calls steps = calls;
    for (Call call : calls) {
      if (call.operation != kReport || call.of < 0) continue;
      for (int step : {kJudge, kLook, kTrip}) {
        call.operation = step;
        // Of one that was not counted there is nothing to look at.
        if (step == kJudge || (call.status == AGR_OK && call.value != AGR_OUTCOME_NEUTRAL))
          steps.push_back(call);
      }
    }
    return Search<State>(steps).run(start_);
  }

 private:
  static State settings(Random& random) {
    agr_breaker_config config;
    agr_breaker_config_init(&config, sizeof config);
    if (random.chance(2)) {
      config.window = AGR_WINDOW_NONE;
      config.consecutive_failures = static_cast<uint32_t>(random.between(1, 3));
    } else {
      config.window_calls = 4;
      config.minimum_calls = static_cast<uint32_t>(random.between(1, 4));
    }
    config.half_open_permits = static_cast<uint32_t>(random.between(1, 3));
    config.half_open_successes = static_cast<uint32_t>(random.between(0, 2));
    config.open_ns = config.open_max_ns = kOpen;
    config.open_jitter = 0;
    return State{model::BreakerModel(config)};
  }

  int64_t open() {
    model::BreakerModel& model = start_.breaker;
    for (int count = 0; model.state == AGR_BREAKER_CLOSED && count < 4; ++count) {
      uint64_t permit = 0;
      if (agr_breaker_acquire_at(object_, kStart, &permit, nullptr, nullptr) != AGR_OK ||
          agr_breaker_report_at(object_, permit, AGR_OUTCOME_FAILURE, 0, kStart, nullptr) != AGR_OK)
        abort();
      model.acquire(kStart);
      model.claim(-2, false, kStart);
      model.report(&model.permits[-2], AGR_OUTCOME_FAILURE, 0, kStart);
    }
    model.permits.clear();
    return kStart + kOpen;
  }

  State start_;
  model::Handle<agr_breaker, agr_breaker_destroy> object_;
};

}  // namespace

const Subject breaker{"breaker", create<Breaker>, {"acquire", "report", "state"}};

}  // namespace linear
