// SPDX-License-Identifier: Apache-2.0
// The model of a policy, after policy.h and docs/semantics/policy.md: deadline, idempotency, retry and its
// budget, limiters, breaker, composed of the models of its parts.
#ifndef MODEL_POLICY_MODEL_HPP
#define MODEL_POLICY_MODEL_HPP

#include <memory>
#include <optional>

#include "breaker_model.hpp"
#include "bucket.hpp"
#include "idempotency_model.hpp"

namespace model {

/// What a call is told to do.
struct ToldStep {
  int32_t kind = AGR_STEP_DONE, reason = AGR_REASON_NONE, component = AGR_COMPONENT_NONE;
  int64_t wait = 0, retry_after = 0;
  bool unknown = false;
  BlockPointer result{};
};

struct GuardedCall {
  enum Phase { kAttempting, kForLimiter, kForBackoff, kForBreaker, kJoined, kDone };
  int64_t id = 0;
  Phase phase = kDone;
  ToldStep step;
  int64_t now = 0, deadline = 0, until = 0, previous = 0;
  uint32_t attempt = 0;
  int32_t why = AGR_REASON_FIRST;
  bool has_key = false, may_have_run = false, committed = false, unknown = false, holds_lease = false,
       holds_ticket = false, holds_permit = false, alive = true;
  std::vector<int64_t> costs;
  std::map<int32_t, uint32_t> retries;
  /// The number of the present run: ids of permits, reservations and pins are made of it.
  int64_t run = 0;
  std::vector<std::optional<Charge>> charges;

  int64_t remaining() const {
    if (deadline == AGR_FOREVER) return AGR_FOREVER;
    return deadline > now ? deadline - now : 0;
  }
};

struct PolicyParts {
  std::vector<Bucket> buckets;
  std::unique_ptr<BreakerModel> breaker;
  std::unique_ptr<Bucket> budget;
  std::unique_ptr<IdempotencyModel> cache;
  /// The scale of each part; the buckets' come last.
  std::vector<Scale> scales;
};

class PolicyModel {
 public:
  struct Counters {
    uint64_t calls = 0, attempts = 0, retries = 0, succeeded = 0, replayed = 0, joined = 0,
             abandoned = 0, backoff = 0;
  };

  PolicyModel(const agr_policy_config& config, const agr_retry_config* retry, int64_t budget_ratio,
              uint64_t seed)
      : config(config), retry(retry), ratio(budget_ratio), stream{seed} {}

  const agr_policy_config config;
  const agr_retry_config* const retry;
  const int64_t ratio;
  Random stream;
  PolicyParts parts;
  std::map<int64_t, GuardedCall> calls;
  Counters counters;

  uint64_t alive() const {
    uint64_t count = 0;
    for (const auto& [id, call] : calls) count += call.alive;
    return count;
  }

  void begin(GuardedCall& call, const std::string& key, int64_t deadline, int64_t now);
  /// An outcome: its class, rule, hint and real costs.
  void conclude(GuardedCall& call, int32_t error_class, const agr_retry_rule& rule, int64_t hint,
                int64_t latency, const std::vector<int64_t>& actual, const std::string& result,
                int64_t now);
  void resume(GuardedCall& call, int64_t now);
  void destroy(GuardedCall& call, int64_t now);

  enum Part { kBreaker, kBudget, kCache, kBuckets };
  int64_t time(int part, int64_t now) { return parts.scales[static_cast<size_t>(part)].read(now); }

 private:
  void attempt(GuardedCall& call);
  bool reserve(GuardedCall& call);
  void ask_breaker(GuardedCall& call);
  void hand_out(GuardedCall& call);
  bool keep_lease(GuardedCall& call, int64_t wait);
  void lose_lease(GuardedCall& call);
  void pause(GuardedCall& call, GuardedCall::Phase phase, int64_t wait, int32_t reason,
             int32_t component);
  void finish(GuardedCall& call, int32_t reason, int32_t component, int64_t retry_after = 0,
              BlockPointer result = nullptr);
  void fail(GuardedCall& call, int32_t reason, int32_t component, const std::string& result,
            int64_t retry_after = 0);
  void retry_or_stop(GuardedCall& call, int32_t error_class, const agr_retry_rule& rule,
                     int64_t hint, const std::string& result);
  void told(GuardedCall& call, const Told& told, int32_t why);
  void give_back(GuardedCall& call);
  void cancel_reservations(GuardedCall& call);
  void refund(GuardedCall& call, size_t index, int64_t tokens);
  int64_t cache_time(GuardedCall& call) {
    return std::min(time(kCache, call.now), AGR_TIME_MAX_NS - 1);
  }
};

}  // namespace model
#endif
