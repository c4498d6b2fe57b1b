// SPDX-License-Identifier: Apache-2.0
#include "engines.hpp"
#include "policy_model.hpp"

#include <cstring>

namespace model {
namespace {

enum Field {
  kParts, kLimiters, kCapacity, kTokens, kInterval, kDebt, kLongest, kTotal, kRetryWhenOpen,
  kMaxCalls, kAttempts, kBase, kMostDelay, kMaxServer, kPerSecond, kRatio, kQuota, kFailures, kOpen,
  kProbes, kPermits, kTimeout, kKeep, kTtl, kLease, kEntries, kBytes, kPins, kStart
};
enum PartBit { kHasBreaker = 1, kHasCache = 2, kHasRetry = 4, kHasBudget = 8 };
enum Call { kBegin, kConclude, kResume, kCommit, kDestroy, kLate };

constexpr int64_t kKeyCount = 3;

std::string key_name(int64_t number) { return number ? "key" + std::to_string(number) : ""; }

class Run {
 public:
  explicit Run(const std::vector<int64_t>& values) : values_(values) {
    agr_policy_config_init(&config_, sizeof config_);
    make_parts();
    config_.max_calls = static_cast<uint32_t>(values[kMaxCalls]);
    config_.max_limiter_wait_ns = values[kLimiters] ? values[kLongest] : 0;
    config_.total_timeout_ns = values[kTotal];
    config_.retry_when_open = has(kHasBreaker) && has(kHasRetry) && values[kRetryWhenOpen];
    config_.seed = 77;
    agr_policy* policy = nullptr;
    if (agr_policy_create(&config_, &policy, nullptr) != AGR_OK) throw Refused();
    policy_.pointer = policy;
    model_ = std::make_unique<PolicyModel>(config_, config_.retry, values[kRatio], 77);
    model_parts();
  }

  ~Run() {
    for (auto& [id, call] : calls_) agr_call_destroy_at(call, last_);
  }

  void run(const History& history) {
    for (const Step& step : history.steps) {
      const int64_t now = last_ = step.values[0];
      settle(now);
      do_step(step, now);
      compare(now);
      current_step += 1;
    }
    // All are abandoned in the end, and nothing is left of them.
    while (!calls_.empty()) destroy(calls_.begin()->first, last_);
    compare(last_);
    leaks(last_);
  }

 private:
  bool has(PartBit part) const { return values_[kParts] & part; }
  bool has_budget() const { return has(kHasBudget) && has(kHasRetry); }

  void require(agr_status status) {
    if (status != AGR_OK) throw Refused();
  }

  void make_parts() {
    agr_breaker_config_init(&breaking_, sizeof breaking_);
    breaking_.window = AGR_WINDOW_NONE;
    breaking_.consecutive_failures = static_cast<uint32_t>(values_[kFailures]);
    breaking_.open_ns = values_[kOpen];
    breaking_.open_max_ns = std::max(values_[kOpen], breaking_.open_max_ns);
    breaking_.open_jitter = 0;
    breaking_.half_open_permits = static_cast<uint32_t>(values_[kProbes]);
    breaking_.max_permits = static_cast<uint32_t>(values_[kPermits]);
    breaking_.permit_timeout_ns = values_[kTimeout];
    if (has(kHasBreaker)) require(agr_breaker_create(&breaking_, &breaker_.pointer, nullptr));
    config_.breaker = breaker_;
    agr_idempotency_config_init(&caching_, sizeof caching_);
    caching_.max_entries = static_cast<uint32_t>(values_[kEntries]);
    caching_.max_bytes = static_cast<uint64_t>(values_[kBytes]);
    caching_.max_pins = static_cast<uint32_t>(values_[kPins]);
    caching_.on_failure = static_cast<int32_t>(values_[kKeep]);
    caching_.ttl_ns = values_[kTtl];
    caching_.lease_ns = values_[kLease];
    if (has(kHasCache)) require(agr_idempotency_create(&caching_, &cache_.pointer, nullptr));
    config_.idempotency = cache_;
    agr_retry_config_init(&retrying_, sizeof retrying_);
    retrying_.backoff.max_attempts = static_cast<uint32_t>(values_[kAttempts]);
    retrying_.backoff.max_delay_ns = values_[kMostDelay];
    retrying_.backoff.base_delay_ns = std::min(values_[kBase], values_[kMostDelay]);
    retrying_.max_server_delay_ns = values_[kMaxServer];
    if (has(kHasRetry)) config_.retry = &retrying_;
    agr_retry_budget_config budgeting;
    agr_retry_budget_config_init(&budgeting, sizeof budgeting);
    budgeting.min_per_second = static_cast<uint32_t>(values_[kPerSecond]);
    budgeting.ratio = static_cast<double>(values_[kRatio]) / 1000;
    budgeting.quota = static_cast<uint32_t>(values_[kQuota]);
    budgeting.initial = budgeting.quota;
    if (has_budget())
      require(agr_retry_budget_create_at(&budgeting, values_[kStart], &budget_.pointer, nullptr));
    config_.budget = budget_;
    if (values_[kLimiters] > 2) throw Refused();
    config_.limiter_count = static_cast<uint32_t>(values_[kLimiters]);
    for (size_t index = 0; index < config_.limiter_count; ++index) {
      agr_limiter_config limiting;
      agr_limiter_config_init(&limiting, sizeof limiting);
      limiting.capacity = values_[kCapacity] + static_cast<int64_t>(index) * 5;
      limiting.refill_tokens = values_[kTokens];
      limiting.refill_interval_ns = values_[kInterval];
      limiting.max_debt_tokens = values_[kDebt];
      limiting.reservation_timeout_ns = AGR_TIME_MAX_NS;
      require(agr_limiter_create_at(&limiting, values_[kStart], &limiters_[index].pointer, nullptr));
      config_.limiters[index] = limiters_[index];
    }
  }

  void model_parts() {
    PolicyParts& parts = model_->parts;
    const int64_t start = values_[kStart];
    parts.scales = {Scale(0), Scale(start), Scale(0), Scale(start), Scale(start)};
    if (has(kHasBreaker)) parts.breaker = std::make_unique<BreakerModel>(breaking_);
    if (has(kHasCache)) parts.cache = std::make_unique<IdempotencyModel>(caching_);
    const int64_t quota = values_[kQuota] * 1000;
    if (has_budget())
      parts.budget = std::make_unique<Bucket>(Rate(quota, 0, values_[kPerSecond] * 1000, kSecond),
                                              quota, start);
    for (size_t index = 0; index < config_.limiter_count; ++index) {
      const Rate rate(values_[kCapacity] + static_cast<int64_t>(index) * 5, values_[kDebt],
                      values_[kTokens], values_[kInterval]);
      parts.buckets.emplace_back(rate, rate.capacity, start);
    }
  }

  /// As in the engine `idempotency`: keys are looked after when somebody comes by.
  void settle(int64_t now) {
    if (!has(kHasCache)) return;
    const int64_t time = std::min(model_->time(PolicyModel::kCache, now), AGR_TIME_MAX_NS - 1);
    for (int64_t number = 1; number <= kKeyCount; ++number) {
      const std::string name = key_name(number);
      int32_t state = -7;
      agr_idempotency_state_at(cache_, name.data(), name.size(), now, &state, nullptr);
      model_->parts.cache->advance(name, time);
      const auto found = model_->parts.cache->keys.find(name);
      expect_equal(state, found == model_->parts.cache->keys.end() ? 0 : found->second.state,
                   "the key's state");
    }
  }

  void do_step(const Step& step, int64_t now) {
    const auto& values = step.values;
    if (step.operation == kBegin) return begin(step, now);
    const auto found = calls_.find(values[1]);
    if (found == calls_.end()) return;
    GuardedCall& call = model_->calls[values[1]];
    const bool attempting = call.phase == GuardedCall::kAttempting;
    agr_step seen{};
    seen.struct_size = sizeof seen;
    switch (step.operation) {
      case kConclude: conclude(step, call, now); break;
      case kResume: {
        const bool waits = !attempting && call.phase != GuardedCall::kDone;
        expect_equal(agr_call_advance_at(found->second, nullptr, now, &seen, nullptr),
                     waits ? AGR_OK : AGR_ERR_STATE, "advance after a wait");
        if (waits) model_->resume(call, now);
        check(seen, call);
        break;
      }
      case kCommit:
        expect_equal(agr_call_commit(found->second, nullptr), attempting ? AGR_OK : AGR_ERR_STATE,
                     "commit");
        if (attempting) call.committed = true;
        break;
      case kDestroy: destroy(values[1], now); break;
      case kLate: {
        // The outcome of another attempt changes nothing.
        agr_outcome outcome;
        agr_outcome_init(&outcome, sizeof outcome);
        outcome.attempt_id = UINT64_MAX;
        expect_equal(agr_call_advance_at(found->second, &outcome, now, &seen, nullptr), AGR_STALE,
                     "a late outcome");
        check(seen, call);
        break;
      }
    }
  }

  void begin(const Step& step, int64_t now) {
    const auto& values = step.values;
    agr_request request;
    agr_request_init(&request, sizeof request);
    const std::string key = key_name(values[1] % (kKeyCount + 1));
    request.key = key.data();
    request.key_length = key.size();
    request.costs[0] = values[2];
    request.costs[1] = values[3];
    request.deadline_ns = values[4];
    agr_step seen{};
    seen.struct_size = sizeof seen;
    agr_call* handle = nullptr;
    const bool fits = calls_.size() < config_.max_calls;
    expect_equal(agr_call_begin_at(policy_, &request, now, &handle, &seen, nullptr),
                 fits ? AGR_OK : AGR_ERR_CAPACITY, "begin");
    if (!fits) return;
    calls_[step.id] = handle;
    GuardedCall& call = model_->calls[step.id];
    call.id = step.id;
    call.costs = {values[2], values[3]};
    model_->begin(call, key, values[4], now);
    check(seen, call);
  }

  void conclude(const Step& step, GuardedCall& call, int64_t now) {
    const auto& values = step.values;
    static const int32_t codes[] = {200, 400, 401, 408, 429, 500, 503, 0};
    agr_outcome outcome;
    agr_outcome_init(&outcome, sizeof outcome);
    outcome.code = codes[values[2] & 7];
    agr_retry_rule rule{};
    rule.domain = AGR_DOMAIN_USER;
    rule.max_retries = AGR_RETRIES_DEFAULT;
    rule.first_delay_ns = AGR_DELAY_DEFAULT;
    if (outcome.code) {
      outcome.domain = AGR_DOMAIN_HTTP;
      expect_equal(agr_retry_classify(nullptr, AGR_DOMAIN_HTTP, outcome.code, &rule, nullptr),
                   AGR_OK, "classify");
    } else {
      rule.error_class = static_cast<int32_t>(1 + (values[2] >> 3) % 6);
      outcome.error_class = rule.error_class;
    }
    outcome.server_delay_ns = values[3];
    outcome.costs[0] = values[4];
    outcome.costs[1] = values[5];
    outcome.latency_ns = 5;
    const std::string result = "result of " + std::to_string(step.id);
    outcome.result = result.data();
    outcome.result_length = result.size();
    agr_step seen{};
    seen.struct_size = sizeof seen;
    const bool due = call.phase == GuardedCall::kAttempting;
    expect_equal(agr_call_advance_at(calls_[values[1]], &outcome, now, &seen, nullptr),
                 due ? AGR_OK : AGR_ERR_STATE, "advance");
    if (due)
      model_->conclude(call, rule.error_class, rule, values[3], 5, {values[4], values[5]}, result,
                       now);
    check(seen, call);
  }

  void destroy(int64_t id, int64_t now) {
    agr_call_destroy_at(calls_[id], now);
    calls_.erase(id);
    model_->destroy(model_->calls[id], now);
  }

  void check(const agr_step& seen, const GuardedCall& call) {
    const ToldStep& wanted = call.step;
    // What is promised whatever the model says.
    expect(seen.wait_ns <= seen.remaining_ns, "a wait that overruns the deadline");
    if (config_.retry && retrying_.backoff.max_attempts)
      expect(seen.attempt <= retrying_.backoff.max_attempts, "more attempts than max_attempts");
    expect_equal(seen.kind, wanted.kind, "the step");
    expect_equal(seen.reason, wanted.reason, "the reason");
    expect_equal(seen.component, wanted.component, "the component");
    expect_equal(seen.wait_ns, wanted.wait, "wait_ns");
    expect_equal(seen.retry_after_ns, wanted.retry_after, "retry_after_ns");
    expect_equal(seen.attempt, call.attempt, "attempt");
    expect_equal(seen.remaining_ns, call.remaining(), "remaining_ns");
    expect_equal(seen.outcome_unknown, wanted.unknown, "outcome_unknown");
    if (seen.kind == AGR_STEP_ATTEMPT) {
      expect((seen.fence != 0) == call.holds_lease, "the fence is wrong");
      expect(seen.connect_timeout_ns <= seen.remaining_ns &&
                 seen.first_byte_timeout_ns <= seen.remaining_ns &&
                 seen.idle_timeout_ns <= seen.remaining_ns &&
                 seen.attempt_timeout_ns <= seen.remaining_ns,
             "a timeout beyond the deadline");
    }
    if (wanted.result) {
      expect_equal(seen.result_length, wanted.result->data.size(), "the result's length");
      expect(memcmp(seen.result, wanted.result->data.data(), seen.result_length) == 0,
             "another result");
    }
  }

  void compare(int64_t now) {
    const PolicyModel::Counters& counters = model_->counters;
    agr_policy_snapshot seen{};
    seen.struct_size = sizeof seen;
    expect_equal(agr_policy_snapshot_read(policy_, &seen, nullptr), AGR_OK, "snapshot");
    expect_equal(seen.calls_alive, model_->alive(), "calls_alive");
    expect_equal(seen.calls, counters.calls, "calls");
    expect_equal(seen.attempts, counters.attempts, "attempts");
    expect_equal(seen.retries, counters.retries, "retries");
    expect_equal(seen.succeeded, counters.succeeded, "succeeded");
    expect_equal(seen.replayed, counters.replayed, "replayed");
    expect_equal(seen.joined, counters.joined, "joined");
    expect_equal(seen.abandoned, counters.abandoned, "abandoned");
    expect_equal(seen.backoff_ns, counters.backoff, "backoff_ns");
    PolicyParts& parts = model_->parts;
    for (size_t index = 0; index < parts.buckets.size(); ++index) {
      int64_t tokens = -7;
      expect_equal(agr_limiter_available_at(limiters_[index], now, &tokens, nullptr), AGR_OK,
                   "available");
      const int64_t time = model_->time(PolicyModel::kBuckets + static_cast<int>(index), now);
      expect_equal(tokens, parts.buckets[index].available(time), "available");
    }
    if (parts.budget) {
      int64_t balance = -7;
      expect_equal(agr_retry_budget_balance_at(budget_, now, &balance, nullptr), AGR_OK, "balance");
      expect_equal(balance, parts.budget->available(model_->time(PolicyModel::kBudget, now)),
                   "balance");
    }
    if (parts.breaker) {
      int32_t state = -7;
      expect_equal(agr_breaker_state_at(breaker_, now, &state, nullptr), AGR_OK, "state");
      // As in the engine `breaker`: only while it is open anybody looks at the time.
      const bool looks = parts.breaker->state == AGR_BREAKER_OPEN;
      Scale& scale = parts.scales[PolicyModel::kBreaker];
      expect_equal(state, parts.breaker->state_at(looks ? scale.read(now) : scale.peek(now)), "state");
    }
    if (parts.cache) {
      agr_idempotency_snapshot cache{};
      cache.struct_size = sizeof cache;
      expect_equal(agr_idempotency_snapshot_read(cache_, &cache, nullptr), AGR_OK, "snapshot");
      expect_equal(cache.entries, parts.cache->keys.size(), "entries");
      expect_equal(cache.waiters, parts.cache->tickets.size(), "waiters");
      expect_equal(cache.pins, parts.cache->pins.size(), "pins");
      expect_equal(cache.executed, parts.cache->counters.executed, "executed");
    }
  }

  /// No permit, reservation, ticket or pin outlives its call.
  void leaks(int64_t now) {
    for (size_t index = 0; index < config_.limiter_count; ++index) {
      agr_limiter_snapshot seen{};
      seen.struct_size = sizeof seen;
      expect_equal(agr_limiter_snapshot_read_at(limiters_[index], now, &seen, nullptr), AGR_OK,
                   "snapshot");
      expect_equal(seen.open_reservations, 0, "reservations that leaked");
    }
    if (breaker_) {
      expect_equal(agr_breaker_force_at(breaker_, AGR_BREAKER_DISABLED, now, nullptr), AGR_OK,
                   "force");
      for (uint32_t count = 0; count < breaking_.max_permits; ++count) {
        uint64_t permit = 0;
        expect_equal(agr_breaker_acquire_at(breaker_, now, &permit, nullptr, nullptr), AGR_OK,
                     "a permit that leaked: acquire");
      }
    }
    if (cache_) {
      expect(model_->parts.cache->tickets.empty() && model_->parts.cache->pins.empty(),
             "the model leaks");
    }
  }

  const std::vector<int64_t>& values_;
  agr_policy_config config_{};
  agr_breaker_config breaking_{};
  agr_idempotency_config caching_{};
  agr_retry_config retrying_{};
  Handle<agr_breaker, agr_breaker_destroy> breaker_;
  Handle<agr_idempotency, agr_idempotency_destroy> cache_;
  Handle<agr_retry_budget, agr_retry_budget_destroy> budget_;
  std::array<Handle<agr_limiter, agr_limiter_destroy>, 2> limiters_;
  Handle<agr_policy, agr_policy_destroy> policy_;
  std::unique_ptr<PolicyModel> model_;
  std::map<int64_t, agr_call*> calls_;
  int64_t last_ = 0;
};

class PolicyEngine : public Engine {
 public:
  PolicyEngine()
      : Engine("policy",
               {"parts", "limiters", "capacity", "tokens", "interval", "debt", "longest", "total",
                "retry_when_open", "max_calls", "attempts", "base", "most_delay", "max_server",
                "per_second", "ratio", "quota", "failures", "open", "probes", "permits", "timeout",
                "keep", "ttl", "lease", "entries", "bytes", "pins", "start"},
               {{"begin", {"key", "a", "b", "deadline"}},
                {"conclude", {"of", "code", "hint", "a", "b"}},
                {"resume", {"of"}},
                {"commit", {"of"}},
                {"destroy", {"of"}},
                {"late", {"of"}}}) {}

  void generate(Random& random, History& history) const override {
    auto& config = history.config;
    config.assign(this->config.size(), 0);
    const int64_t grain = INT64_C(1) << random.between(4, 34);
    config[kParts] = random.below(16);
    config[kLimiters] = random.below(3);
    config[kCapacity] = 1 + random.skewed(60);
    config[kTokens] = random.skewed(10);
    config[kInterval] = std::max(config[kTokens], INT64_C(1)) * (1 + random.skewed(grain * 4));
    config[kDebt] = random.chance(2) ? -1 : random.skewed(60);
    config[kLongest] = random.chance(3) ? 0 : random.chance(8) ? AGR_FOREVER : random.skewed(grain * 20);
    config[kTotal] = random.chance(8) ? AGR_FOREVER : 1 + random.skewed(grain * 200);
    config[kRetryWhenOpen] = random.below(2);
    config[kMaxCalls] = random.chance(4) ? 1 + random.below(4) : 64;
    config[kAttempts] = random.below(6);
    config[kMostDelay] = random.skewed(grain * 40);
    config[kBase] = random.skewed(config[kMostDelay]);
    config[kMaxServer] = random.skewed(grain * 40);
    config[kPerSecond] = random.skewed(10);
    config[kRatio] = random.skewed(2000);
    config[kQuota] = 1 + random.skewed(10);
    config[kFailures] = 1 + random.skewed(6);
    config[kOpen] = 1 + random.skewed(grain * 30);
    config[kProbes] = 1 + random.skewed(4);
    config[kPermits] = random.chance(4) ? 1 + random.skewed(4) : 64;
    config[kTimeout] = 1 + random.skewed(grain * 400);
    config[kKeep] = random.below(2);
    config[kTtl] = 1 + random.skewed(grain * 300);
    config[kLease] = 1 + random.skewed(grain * 60);
    config[kEntries] = random.chance(4) ? 1 + random.below(3) : 64;
    config[kBytes] = random.chance(4) ? 4 + random.below(60) : 1 << 20;
    config[kPins] = random.chance(4) ? 1 + random.below(3) : 64;
    config[kStart] = any_start(random);
    Clock clock(random, Clock::kOnward, config[kStart], grain);
    const int64_t count = random.between(20, random.chance(4) ? 500 : 100);
    for (int64_t id = 1; id <= count; ++id) {
      Step step;
      step.id = id;
      auto& values = step.values;
      const int64_t now = values[0] = clock.next();
      values[1] = std::max<int64_t>(0, id - 1 - random.skewed(16));
      const int64_t which = random.below(16);
      if (which < 5) {
        step.operation = kBegin;
        values[1] = random.below(kKeyCount + 1);
        values[2] = random.skewed(config[kCapacity] + (random.chance(20) ? 3 : 0));
        values[3] = random.skewed(config[kCapacity]);
        if (random.chance(8)) values[4] = random.chance(4) ? AGR_FOREVER : later(now, random.skewed(grain * 50));
      } else if (which < 10) {
        step.operation = kConclude;
        values[2] = random.chance(3) ? 0 : random.below(64);
        values[3] = random.chance(2) ? -1 : random.chance(30) ? AGR_FOREVER : random.skewed(grain * 20);
        values[4] = random.chance(2) ? -1 : random.skewed(config[kCapacity] * 2);
        values[5] = random.chance(2) ? -1 : random.skewed(config[kCapacity] * 2);
      } else if (which < 13) {
        step.operation = kResume;
      } else {
        static const Call calls[] = {kDestroy, kDestroy, kLate};
        step.operation = random.chance(12) ? kCommit : calls[which - 13];
      }
      history.steps.push_back(step);
    }
  }

  void run(const History& history) const override { Run(history.config).run(history); }
};

}  // namespace

const Engine& policy_engine() {
  static const PolicyEngine engine;
  return engine;
}

}  // namespace model
