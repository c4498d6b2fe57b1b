// SPDX-License-Identifier: Apache-2.0
#include "policy_model.hpp"

namespace model {

void PolicyModel::begin(GuardedCall& call, const std::string& key, int64_t deadline, int64_t now) {
  counters.calls += 1;
  call.now = now;
  call.deadline = deadline ? deadline
                  : config.total_timeout_ns == AGR_FOREVER ? AGR_FOREVER
                                                           : later(now, config.total_timeout_ns);
  call.has_key = !key.empty();
  call.charges.resize(parts.buckets.size());
  if (call.remaining() == 0) return finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_DEADLINE);
  if (parts.budget) parts.budget->deposit(std::min(ratio, parts.budget->rate().capacity), time(kBudget, now));
  if (!call.has_key || !parts.cache) return attempt(call);
  told(call, parts.cache->ask(call.id, key, 0, true, cache_time(call)), AGR_REASON_FIRST);
}

/// What the cache said about the key, at the beginning or when a joined run was polled.
void PolicyModel::told(GuardedCall& call, const Told& told, int32_t why) {
  switch (told.status) {
    case AGR_OK:
      call.holds_ticket = false;
      call.holds_lease = true;
      call.unknown = told.unknown;
      call.why = why;
      if (call.remaining() == 0) return finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_DEADLINE);
      return attempt(call);
    case AGR_REPLAY:
      call.holds_ticket = false;
      return finish(call,
                    told.block->state == AGR_KEY_SUCCESS ? AGR_REASON_REPLAYED
                                                         : AGR_REASON_REPLAYED_FAILURE,
                    AGR_COMPONENT_IDEMPOTENCY, 0, told.block);
    case AGR_IN_PROGRESS:
      if (!call.holds_ticket) counters.joined += 1;
      call.holds_ticket = true;
      if (call.remaining() == 0)
        return finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_IDEMPOTENCY, told.expires_in);
      call.phase = GuardedCall::kJoined;
      call.step = {AGR_STEP_JOIN, AGR_REASON_JOINED, AGR_COMPONENT_IDEMPOTENCY,
                   std::min(std::max<int64_t>(told.expires_in, 1), call.remaining())};
      return;
    case AGR_MISMATCH: return finish(call, AGR_REASON_MISMATCH, AGR_COMPONENT_IDEMPOTENCY);
    default: return finish(call, AGR_REASON_CAPACITY, AGR_COMPONENT_IDEMPOTENCY);
  }
}

void PolicyModel::attempt(GuardedCall& call) {
  if (call.remaining() == 0) return finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_DEADLINE);
  if (parts.buckets.empty() || reserve(call)) ask_breaker(call);
}

/// Charges every limiter, or none. True: the tokens are there.
bool PolicyModel::reserve(GuardedCall& call) {
  const int64_t most = config.max_limiter_wait_ns;
  // A wait that ends at the deadline is one too many.
  const bool is_cut = most >= call.remaining();
  const int64_t longest =
      !is_cut ? most : call.remaining() == AGR_FOREVER ? AGR_FOREVER : call.remaining() - 1;
  int64_t wait = 0, retry_after = -1;
  call.run += 1;
  for (size_t index = 0; index < parts.buckets.size(); ++index) {
    Charge charge;
    const int64_t now = time(kBuckets + static_cast<int>(index), call.now);
    const Grant grant = parts.buckets[index].reserve(call.costs[index], longest, now, charge);
    if (grant.status == AGR_ERR_NEVER_FITS) {
      cancel_reservations(call);
      finish(call, AGR_REASON_NEVER_FITS, AGR_COMPONENT_LIMITER, AGR_FOREVER);
      return false;
    }
    if (grant.status == AGR_OK) call.charges[index] = charge, wait = std::max(wait, grant.wait);
    else retry_after = std::max(retry_after, grant.retry_after);
  }
  if (retry_after >= 0) {
    cancel_reservations(call);
    const int64_t needed = retry_after == AGR_FOREVER || longest == AGR_FOREVER
                               ? AGR_FOREVER
                               : later(retry_after, longest);
    if (is_cut && needed <= most && needed != AGR_FOREVER)
      finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_LIMITER, needed);
    else
      finish(call, AGR_REASON_LIMITED, AGR_COMPONENT_LIMITER, retry_after);
    return false;
  }
  if (wait == 0) return true;
  pause(call, GuardedCall::kForLimiter, wait, AGR_REASON_WAIT_LIMITER, AGR_COMPONENT_LIMITER);
  return false;
}

void PolicyModel::ask_breaker(GuardedCall& call) {
  if (!parts.breaker) return hand_out(call);
  const int64_t now = time(kBreaker, call.now);
  const BreakerModel::Answer answer = parts.breaker->acquire(now);
  if (answer.status == AGR_OK) {
    call.run += 1;
    call.holds_permit = true;
    parts.breaker->claim(call.id * 1000 + call.run, answer.probe, now);
    return hand_out(call);
  }
  if (answer.status == AGR_ERR_CAPACITY)
    return finish(call, AGR_REASON_CAPACITY, AGR_COMPONENT_BREAKER);
  const bool waits = config.retry_when_open && retry && answer.retry_after < call.remaining() &&
                     (!retry->backoff.max_attempts ||
                      call.attempt + 1 < retry->backoff.max_attempts);
  if (!waits) return finish(call, AGR_REASON_OPEN, AGR_COMPONENT_BREAKER, answer.retry_after);
  cancel_reservations(call);
  call.attempt += 1;
  pause(call, GuardedCall::kForBreaker, std::max<int64_t>(1, answer.retry_after),
        AGR_REASON_WAIT_BREAKER, AGR_COMPONENT_BREAKER);
}

void PolicyModel::hand_out(GuardedCall& call) {
  if (!keep_lease(call, 0)) return lose_lease(call);
  counters.attempts += 1;
  call.attempt += 1;
  call.phase = GuardedCall::kAttempting;
  call.step = {AGR_STEP_ATTEMPT, call.why, AGR_COMPONENT_NONE, 0, 0, call.unknown};
}

/// The lease is extended to the deadline, or over a wait.
bool PolicyModel::keep_lease(GuardedCall& call, int64_t wait) {
  if (!call.holds_lease) return true;
  const int64_t usual = parts.cache->lease(), left = call.remaining();
  const int64_t length = left == AGR_FOREVER ? later(wait, usual) : std::max(left, usual);
  return parts.cache->renew(call.id, length, cache_time(call)).status == AGR_OK;
}

void PolicyModel::lose_lease(GuardedCall& call) {
  call.holds_lease = false;
  if (call.holds_permit)
    parts.breaker->report(&parts.breaker->permits[call.id * 1000 + call.run], AGR_OUTCOME_NEUTRAL,
                          0, time(kBreaker, call.now));
  call.holds_permit = false;
  finish(call, AGR_REASON_LEASE_LOST, AGR_COMPONENT_IDEMPOTENCY);
}

void PolicyModel::pause(GuardedCall& call, GuardedCall::Phase phase, int64_t wait, int32_t reason,
                        int32_t component) {
  if (!keep_lease(call, wait)) return lose_lease(call);
  call.phase = phase;
  call.until = later(call.now, wait);
  call.step = {AGR_STEP_WAIT, reason, component, wait};
}

void PolicyModel::resume(GuardedCall& call, int64_t now) {
  call.now = std::max(call.now, now);
  if (call.phase == GuardedCall::kJoined)
    return told(call, parts.cache->poll(call.id, call.id, cache_time(call)), AGR_REASON_PROMOTED);
  const int64_t left = call.until - call.now;
  if (left > 0 && call.remaining() > 0) {
    call.step.wait = std::min(left, call.remaining());
    return;
  }
  if (call.phase != GuardedCall::kForLimiter) return attempt(call);
  if (call.remaining() == 0) return finish(call, AGR_REASON_DEADLINE, AGR_COMPONENT_DEADLINE);
  ask_breaker(call);
}

static int32_t seen_by_breaker(int32_t error_class) {
  switch (error_class) {
    case AGR_CLASS_SUCCESS: return AGR_OUTCOME_SUCCESS;
    case AGR_CLASS_TRANSIENT:
    case AGR_CLASS_UNKNOWN: return AGR_OUTCOME_FAILURE;
    case AGR_CLASS_TEMPORARY: return AGR_OUTCOME_BACKPRESSURE;
    default: return AGR_OUTCOME_NEUTRAL;
  }
}

void PolicyModel::conclude(GuardedCall& call, int32_t error_class, const agr_retry_rule& rule,
                           int64_t hint, int64_t latency, const std::vector<int64_t>& actual,
                           const std::string& result, int64_t now) {
  call.now = std::max(call.now, now);
  if (call.holds_permit)
    parts.breaker->report(&parts.breaker->permits[call.id * 1000 + call.run],
                          seen_by_breaker(error_class), latency, time(kBreaker, call.now));
  call.holds_permit = false;
  // Settled once, by the real cost.
  for (size_t index = 0; index < parts.buckets.size(); ++index) {
    if (!call.charges[index]) continue;
    const int64_t reserved = call.charges[index]->tokens, real = actual[index];
    if (real >= 0 && real < reserved) refund(call, index, reserved - real);
    if (real > reserved) {
      Scale& scale = parts.scales[kBuckets + index];
      parts.buckets[index].charge(real - reserved, scale.read_onward(call.now));
    }
    call.charges[index].reset();
  }
  if (error_class == AGR_CLASS_SUCCESS) {
    if (call.holds_lease) {
      const agr_status kept =
          parts.cache->complete(call.id, result, AGR_KEY_SUCCESS, cache_time(call)).status;
      if (kept < 0) parts.cache->abandon(call.id, cache_time(call));
    }
    call.holds_lease = false;
    return finish(call, AGR_REASON_SUCCEEDED, AGR_COMPONENT_NONE);
  }
  if (error_class == AGR_CLASS_UNKNOWN || error_class == AGR_CLASS_CANCELLED)
    call.may_have_run = true;
  if (call.committed)
    return fail(call,
                error_class == AGR_CLASS_CANCELLED ? AGR_REASON_CANCELLED : AGR_REASON_COMMITTED,
                AGR_COMPONENT_RETRY, result);
  retry_or_stop(call, error_class, rule, hint, result);
}

void PolicyModel::retry_or_stop(GuardedCall& call, int32_t error_class, const agr_retry_rule& rule,
                                int64_t hint, const std::string& result) {
  int32_t without = AGR_REASON_ATTEMPTS_EXHAUSTED;
  if (error_class == AGR_CLASS_PERMANENT) without = AGR_REASON_FAILED_PERMANENT;
  if (error_class == AGR_CLASS_CANCELLED) without = AGR_REASON_CANCELLED;
  if (error_class == AGR_CLASS_UNKNOWN) without = AGR_REASON_OUTCOME_UNKNOWN;
  if (!retry) return fail(call, without, AGR_COMPONENT_NONE, result);
  // Class, attempts left, the rule's own count, the hint; the model of that is `backoff`.
  uint32_t& made = call.retries[rule.domain == AGR_DOMAIN_USER ? -1 : rule.code_min];
  int64_t delay = 0;
  const agr_status decided =
      agr_retry_decide(retry, call.attempt, made, &rule, call.has_key, call.previous, hint,
                       stream.next(), &delay, nullptr);
  if (decided != AGR_OK) {
    const bool by_class = error_class == AGR_CLASS_PERMANENT || error_class == AGR_CLASS_CANCELLED ||
                          (error_class == AGR_CLASS_UNKNOWN && !call.has_key && !retry->retry_unknown);
    const int32_t reason = by_class ? without
                           : hint > retry->max_server_delay_ns ? AGR_REASON_HINT_TOO_LONG
                                                               : AGR_REASON_ATTEMPTS_EXHAUSTED;
    return fail(call, reason, AGR_COMPONENT_RETRY, result, std::max<int64_t>(0, hint));
  }
  if (delay >= call.remaining())
    return fail(call, AGR_REASON_DEADLINE, AGR_COMPONENT_DEADLINE, result, delay);
  if (parts.budget) {
    const Grant grant = parts.budget->take(1000, time(kBudget, call.now));
    if (grant.status == AGR_LIMITED)
      return fail(call, AGR_REASON_BUDGET_EXHAUSTED, AGR_COMPONENT_BUDGET, result,
                  grant.retry_after);
  }
  made += 1;
  call.previous = delay;
  call.why = AGR_REASON_RETRY;
  counters.retries += 1;
  counters.backoff += static_cast<uint64_t>(delay);
  if (delay == 0) return attempt(call);
  pause(call, GuardedCall::kForBackoff, delay,
        hint >= 0 ? AGR_REASON_SERVER_HINT : AGR_REASON_BACKOFF, AGR_COMPONENT_RETRY);
}

/// Ends the key's run with its failure, and the call.
void PolicyModel::fail(GuardedCall& call, int32_t reason, int32_t component,
                       const std::string& result, int64_t retry_after) {
  if (call.holds_lease) {
    const int64_t now = cache_time(call);
    if (call.may_have_run) parts.cache->abandon(call.id, now);
    else if (parts.cache->fail(call.id, result, now).status < 0) parts.cache->give_back(call.id, now);
    call.holds_lease = false;
  }
  finish(call, reason, component, retry_after);
}

void PolicyModel::finish(GuardedCall& call, int32_t reason, int32_t component, int64_t retry_after,
                         BlockPointer result) {
  give_back(call);
  call.phase = GuardedCall::kDone;
  call.step = {AGR_STEP_DONE, reason, component, 0, retry_after, false, std::move(result)};
  counters.succeeded += reason == AGR_REASON_SUCCEEDED;
  counters.replayed += reason == AGR_REASON_REPLAYED || reason == AGR_REASON_REPLAYED_FAILURE;
}

/// All that a call still holds.
void PolicyModel::give_back(GuardedCall& call) {
  if (call.holds_ticket) parts.cache->leave(call.id, cache_time(call));
  call.holds_ticket = false;
  cancel_reservations(call);
  if (!call.holds_lease) return;
  if (call.may_have_run) parts.cache->abandon(call.id, cache_time(call));
  else parts.cache->give_back(call.id, cache_time(call));
  call.holds_lease = false;
}

void PolicyModel::cancel_reservations(GuardedCall& call) {
  for (size_t index = 0; index < parts.buckets.size(); ++index) {
    if (call.charges[index]) refund(call, index, call.charges[index]->tokens);
    call.charges[index].reset();
  }
}

void PolicyModel::refund(GuardedCall& call, size_t index, int64_t tokens) {
  std::vector<Charge*> others;
  for (auto& [id, other] : calls)
    if (id != call.id && other.alive && index < other.charges.size() && other.charges[index])
      others.push_back(&*other.charges[index]);
  Scale& scale = parts.scales[kBuckets + index];
  scale.read(call.now);
  if (tokens > 0)
    parts.buckets[index].refund(*call.charges[index], tokens, scale.read_onward(call.now), others);
}

/// Before its end: an abandonment, neutral everywhere.
void PolicyModel::destroy(GuardedCall& call, int64_t now) {
  call.now = std::max(call.now, now);
  if (call.phase != GuardedCall::kDone) {
    counters.abandoned += 1;
    if (call.holds_permit)
      parts.breaker->report(&parts.breaker->permits[call.id * 1000 + call.run],
                            AGR_OUTCOME_NEUTRAL, 0, time(kBreaker, call.now));
    call.holds_permit = false;
    if (call.phase == GuardedCall::kAttempting) call.may_have_run = true;
    give_back(call);
    call.phase = GuardedCall::kDone;
  }
  if (parts.cache) parts.cache->pins.erase(call.id);
  call.alive = false;
}

}  // namespace model
