// SPDX-License-Identifier: Apache-2.0
// What an attempt throws reaches the caller, and leaves nothing behind.
#include <autoglm_reliability.hpp>

#include <pthread.h>
#include <stdexcept>

#include "../c/check.h"

static agr::Policy make_policy(agr::Breaker &breaker) {
  auto config = agr::policy_config();
  const auto retry = agr::retry_config();
  config.max_calls = 4;
  config.breaker = breaker.get();
  config.retry = &retry;
  auto policy = agr::Policy::create(config);
  CHECK(bool(policy));
  return std::move(*policy);
}

/// More often than there may be calls at a time.
static void throw_often(agr::Policy &policy, agr::Breaker &breaker) {
  int caught = 0;
  for (int i = 0; i < 100; ++i) {
    try {
      auto call = policy.execute(agr::request(), [&](const agr_step &) -> agr_outcome {
        throw std::runtime_error("no network");
      });
      CHECK(!call);
    } catch (const std::runtime_error &error) {
      caught += std::string_view(error.what()) == "no network";
    }
  }
  CHECK(caught == 100);
  const auto seen = policy.snapshot();
  CHECK(seen.calls == 100 && seen.attempts == 100 && seen.calls_alive == 0 && seen.retries == 0);
  const auto window = breaker.snapshot();
  CHECK(window.window_total == 0 && window.state == AGR_BREAKER_CLOSED);
  auto call = policy.execute(agr::request(), [](const agr_step &) { return agr::outcome(); });
  CHECK(call && call->step().reason == AGR_REASON_SUCCEEDED);
}

/// A thread that ends inside of an attempt ends alone.
static void *end_thread(void *policy) {
  auto call = static_cast<agr::Policy *>(policy)->execute(
      agr::request(), [](const agr_step &) -> agr_outcome { pthread_exit(nullptr); });
  CHECK(!call);
  return nullptr;
}

int main() {
  auto breaker = agr::Breaker::create(agr::breaker_config());
  CHECK(bool(breaker));
  auto policy = make_policy(*breaker);
  throw_often(policy, *breaker);
  pthread_t thread;
  CHECK(pthread_create(&thread, nullptr, end_thread, &policy) == 0);
  CHECK(pthread_join(thread, nullptr) == 0);
  CHECK(policy.snapshot().calls_alive == 1);
  return finish();
}
