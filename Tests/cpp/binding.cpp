// SPDX-License-Identifier: Apache-2.0
// The C++ binding: nothing is lost when it is dropped, moved or fails.
#include <autoglm_reliability.hpp>

#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../c/check.h"

using namespace std::chrono_literals;

static void permits() {
  auto config = agr::breaker_config();
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 2;
  config.max_permits = 1;
  auto breaker = agr::Breaker::create(config);
  CHECK(static_cast<bool>(breaker));
  for (int i = 0; i < 3; ++i) {
    auto permit = breaker->acquire();
    CHECK(static_cast<bool>(permit));
    CHECK(breaker->acquire().status() == AGR_ERR_CAPACITY);
    auto moved = *std::move(permit);
    CHECK(!breaker->acquire());
  }
  CHECK(breaker->snapshot().window_total == 0);
  for (int i = 0; i < 2; ++i) {
    auto permit = breaker->acquire();
    CHECK(permit->failure() == AGR_OK);
    CHECK(permit->failure() == AGR_STALE);
  }
  CHECK(breaker->state() == AGR_BREAKER_OPEN);
  uint64_t cursor = 0;
  const auto event = breaker->next_event(cursor);
  CHECK(event && event->to_state == AGR_BREAKER_OPEN && !breaker->next_event(cursor));
  auto refused = breaker->acquire();
  CHECK(refused.status() == AGR_OPEN && refused.status().is_answer());
  CHECK(refused.retry_after() > 0s && refused.retry_after() <= 6s);
  config.failure_rate = 7;
  auto bad = agr::Breaker::create(config);
  CHECK(!bad && bad.status().is_error() && bad.field() == "failure_rate");
}

static void reservations() {
  auto limiter = agr::Limiter::create(agr::limiter_config(10, 1, 1h));
  CHECK(limiter->try_acquire(4) == AGR_OK);
  {
    auto dropped = limiter->reserve(6, 0s);
    CHECK(static_cast<bool>(dropped) && limiter->available() == 0);
  }
  CHECK(limiter->available() == 6);
  auto settled = limiter->reserve(6, 0s);
  CHECK(settled->settle(2) == AGR_OK && settled->settle(2) == AGR_STALE);
  CHECK(limiter->available() == 4);
  agr::Duration wait{};
  CHECK(limiter->try_acquire(5, &wait) == AGR_LIMITED && wait > 0s && wait <= 1h);
  CHECK(limiter->acquire(5, 1s) == AGR_LIMITED);
  CHECK(limiter->try_acquire(11) == AGR_ERR_NEVER_FITS);

  auto keyed_config = agr::keyed_limiter_config();
  keyed_config.capacity = 1;
  keyed_config.refill_tokens = 1;
  auto keyed = agr::KeyedLimiter::create(keyed_config);
  CHECK(keyed->try_acquire("a") == AGR_OK && keyed->try_acquire("a") == AGR_LIMITED);
  {
    auto dropped = keyed->reserve("b", 1, 0s);
    CHECK(static_cast<bool>(dropped) && keyed->try_acquire("b") == AGR_LIMITED);
  }
  CHECK(keyed->try_acquire("b") == AGR_OK);
}

static void leases() {
  auto cache = agr::Idempotency::create(agr::idempotency_config());
  {
    auto dropped = cache->begin("key", "body");
    CHECK(dropped.lease && !dropped.lease->outcome_unknown());
    CHECK(cache->begin("key", "body").status == AGR_IN_PROGRESS);
    CHECK(cache->begin("key", "other").status == AGR_MISMATCH);
  }
  auto again = cache->begin("key", "body");
  CHECK(again.lease && again.lease->outcome_unknown());
  std::vector<std::thread> threads;
  int replayed[4] = {};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      auto answer = cache->begin_or_wait("key", "body", 60s);
      replayed[i] = answer.result && answer.result->data() == "answer";
    });
  }
  CHECK(again.lease->complete("answer") == AGR_OK);
  for (auto& thread : threads) thread.join();
  for (int one : replayed) CHECK(one == 1);
}

static void policies() {
  auto retry = agr::retry_config();
  retry.backoff.base_delay_ns = 1000;
  auto config = agr::policy_config();
  config.retry = &retry;
  std::optional<agr::Policy> policy;
  {
    auto breaker = agr::Breaker::create(agr::breaker_config());
    config.breaker = breaker->get();
    policy = *agr::Policy::create(config);
  }  // The policy holds the breaker alive.
  int attempts = 0;
  auto call = policy->execute(agr::request(), [&](const agr_step& step) {
    ++attempts;
    auto outcome = agr::outcome();
    outcome.domain = AGR_DOMAIN_HTTP;
    outcome.code = step.attempt < 3 ? 502 : 200;
    return outcome;
  });
  CHECK(call && call->succeeded() && attempts == 3);
  auto driven = policy->begin(agr::request());
  CHECK(driven->step().kind == AGR_STEP_ATTEMPT && driven->commit() == AGR_OK);
  auto outcome = agr::outcome();
  outcome.error_class = AGR_CLASS_TRANSIENT;
  CHECK(driven->advance(outcome) == AGR_OK && driven->done());
  CHECK(std::string(driven->reason()) == "committed");
  uint64_t cursor = 0;
  const auto event = policy->next_event(cursor);
  CHECK(event && event->kind == AGR_EVENT_ATTEMPT && event->code == 502);
  CHECK(policy->set_fallback(AGR_FALLBACK_CACHED) == AGR_ERR_ARGUMENT);
  { auto abandoned = policy->begin(agr::request()); }
  CHECK(policy->snapshot().abandoned == 1);
}

static void regions() {
  auto region = agr::Region::open(nullptr);
  CHECK(static_cast<bool>(region));
  auto again = agr::Region::open_fd(region->fd());
  CHECK(static_cast<bool>(again));
  const auto config = agr::limiter_config(10, 0, 1s);
  auto one = agr::Limiter::create(*region, "tokens", config);
  auto other = agr::Limiter::create(*again, "tokens", config);
  CHECK(one && other && one->try_acquire(7) == AGR_OK && other->try_acquire(7) == AGR_LIMITED);
  auto mismatch = agr::Limiter::create(*region, "tokens", agr::limiter_config(11, 0, 1s));
  CHECK(!mismatch && mismatch.status() == AGR_ERR_MISMATCH && mismatch.field() == "capacity");
  auto keys = agr::keyed_limiter_config();
  keys.capacity = keys.refill_tokens = 5;
  keys.max_keys = 16;
  CHECK(agr::KeyedLimiter::create(*region, "keys", keys));
  CHECK(agr::Breaker::create(*region, "upstream", agr::breaker_config()));
  CHECK(agr::RetryBudget::create(*region, "retries", agr::retry_budget_config()));
  uint64_t cursor = 0;
  std::string names;
  while (const auto object = again->next_object(cursor)) names += object->name;
  CHECK(names == "tokenskeysupstreamretries" && region->snapshot().objects == 4);
  CHECK(again->remove("keys") == AGR_OK && region->remove("keys") == AGR_NOT_FOUND);
  CHECK(agr::Region::open("a/b").status() == AGR_ERR_ARGUMENT);
  CHECK(agr::Region::unlink("not-there-at-all") == AGR_NOT_FOUND);
}

// A driver that begins every run, and keeps nothing.
struct Stub {
  int calls = 0, destroyed = 0;

  static agr_status count(void* self) {
    ++static_cast<Stub*>(self)->calls;
    return AGR_OK;
  }

  static agr_store_api api() {
    agr_store_api api{};
    api.struct_size = sizeof api;
    api.name = "stub";
    api.ping = [](void* self, int64_t, agr_error*) { return count(self); };
    api.destroy = [](void* self) { ++static_cast<Stub*>(self)->destroyed; };
    api.begin = [](void* self, const agr_store_run* run, int64_t, const agr_store_sink*,
                   agr_store_run_state* out, agr_error*) {
      out->fence = 1;
      out->remaining_ns = run->lease_ns;
      return count(self);
    };
    api.read = [](void*, const agr_store_key*, int64_t, const agr_store_sink*, agr_store_run_state*,
                  agr_error*) -> agr_status { return AGR_NOT_FOUND; };
    api.renew = [](void* self, const agr_store_key*, uint64_t, int64_t, int64_t, int64_t,
                   agr_error*) { return count(self); };
    api.complete = [](void* self, const agr_store_key*, uint64_t, int32_t, const void*, size_t,
                      int64_t, int64_t, agr_error*) { return count(self); };
    api.give_back = [](void* self, const agr_store_key*, uint64_t, uint32_t, int64_t, int64_t,
                       agr_error*) { return count(self); };
    return api;
  }
};

static void stores() {
  Stub state;
  const agr_store_api api = Stub::api();
  const agr_store_driver driver{&api, &state};
  {
    auto store = agr::Store::create(driver);
    CHECK(store && std::string_view(store->name()) == "stub");
    CHECK(store->ping() && state.calls == 1);
    auto cache = agr::Idempotency::create(*store, "jobs", agr::idempotency_config());
    CHECK(cache);
    CHECK(!agr::Idempotency::create(*store, "a b", agr::idempotency_config()));
    auto answer = cache->begin("key");
    CHECK(answer.lease && answer.lease->fence() == 1);
    CHECK(answer.lease->complete("result"));
    CHECK(state.destroyed == 0);
  }
  CHECK(state.destroyed == 1);
}

int main() {
  permits();
  regions();
  reservations();
  leases();
  stores();
  policies();
  return finish();
}
