// SPDX-License-Identifier: Apache-2.0
//
// The C++ binding in a small LLM gateway: several threads call a model that fails at times.
//
//   1. The parts by hand. A permit and a reservation are move-only values: an early return, a
//      `continue` or an exception gives back what they hold.
//   2. A policy, which composes the parts and retries within a budget.
//   3. An outage: the breaker opens, callers are refused without a call, and it closes again.
//
// Exits 0 if the books balance: what the model says it was asked is what the library counted.
#include <autoglm_reliability.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

constexpr int threads = 4;
constexpr int calls_each = 250;
constexpr int64_t estimate = 100;  // tokens that a call is taken to cost before it is made

int failures = 0;
void expect(bool held, const char* what) {
  std::printf("  %s: %s\n", held ? "yes" : "NO ", what);
  if (!held) ++failures;
}

/// A value, or the end of the program with the reason.
template <typename T>
T must(agr::Result<T> result) {
  if (result) return *std::move(result);
  std::fprintf(stderr, "%s: %s: %s\n", result.status().name(), result.field().data(),
               result.message().data());
  std::exit(2);
}

/// Stands for a remote model. It keeps books of its own.
class Model {
 public:
  std::atomic<bool> down{false};
  std::atomic<int64_t> calls{0}, tokens{0};

  /// Returns the tokens that the reply cost, of which nobody knew before. Throws on failure.
  int64_t generate() {
    ++calls;
    if (down || agr_random() % 5 == 0) throw std::runtime_error("connection reset");
    const auto cost = static_cast<int64_t>(20 + agr_random() % 160);
    tokens += cost;
    return cost;
  }
};

void in_threads(const std::function<void()>& body) {
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) running.emplace_back(body);
  for (auto& thread : running) thread.join();
}

/// A bucket that never refills is an allowance, which makes its balance easy to check.
agr::Limiter allowance(int64_t tokens) {
  return must(agr::Limiter::create(agr::limiter_config(tokens, 0, 1s)));
}

/// Opens when half of the last 100 calls failed.
agr::Breaker by_rate() {
  auto config = agr::breaker_config();
  config.minimum_calls = config.window_calls;
  return must(agr::Breaker::create(config));
}

void by_hand() {
  std::printf("permits and reservations\n");
  Model model;
  auto breaker = by_rate();
  auto limiter = allowance(1'000'000);
  std::atomic<int> failed{0}, refused{0};

  in_threads([&] {
    for (int i = 0; i < calls_each; ++i) {
      auto tokens = limiter.reserve(estimate, 0s);
      auto permit = breaker.acquire();
      if (!tokens || !permit) {  // the one that was granted, if any, is given back here
        ++refused;
        continue;
      }
      try {
        const int64_t cost = model.generate();
        tokens->settle(cost);
        permit->success();
      } catch (const std::runtime_error&) {
        permit->failure();  // and the reservation, dropped, is cancelled: a failure costs nothing
        ++failed;
      }
    }
  });

  const auto seen = breaker.snapshot();
  std::printf("  %d calls failed, %d were refused, %lld tokens were used\n", failed.load(),
              refused.load(), static_cast<long long>(model.tokens.load()));
  expect(limiter.available() == 1'000'000 - model.tokens, "the allowance went down by the real cost");
  expect(model.calls + refused == threads * calls_each, "every call was made or refused");
  expect(seen.stale == 0, "no permit was reported twice or late");
}

void with_a_policy() {
  std::printf("a policy\n");
  Model model;
  auto breaker = by_rate();
  auto limiter = allowance(1'000'000);
  auto budget = must(agr::RetryBudget::create(agr::retry_budget_config()));
  auto retry = agr::retry_config();
  retry.backoff.base_delay_ns = 1'000'000;
  auto config = agr::policy_config();
  config.breaker = breaker.get();
  config.budget = budget.get();
  config.retry = &retry;
  config.limiters[0] = limiter.get();
  config.limiter_count = 1;
  auto policy = must(agr::Policy::create(config));
  std::atomic<uint64_t> good{0}, bad{0};

  in_threads([&] {
    for (int i = 0; i < calls_each; ++i) {
      auto request = agr::request();
      request.costs[0] = estimate;
      auto call = policy.execute(request, [&](const agr_step&) {
        auto outcome = agr::outcome();
        try {  // thrown on, it would end the call: this is to be retried
          outcome.costs[0] = model.generate();
        } catch (const std::runtime_error&) {
          outcome.error_class = AGR_CLASS_TRANSIENT;
          outcome.costs[0] = 0;
        }
        return outcome;
      });
      ++(call && call->succeeded() ? good : bad);
    }
  });

  const auto seen = policy.snapshot();
  std::printf("  %llu calls: %llu succeeded, with %llu retries\n",
              static_cast<unsigned long long>(seen.calls),
              static_cast<unsigned long long>(seen.succeeded),
              static_cast<unsigned long long>(seen.retries));
  expect(seen.calls == threads * calls_each && good + bad == seen.calls, "every call ended");
  expect(seen.succeeded == good, "the policy counted the successes");
  expect(seen.attempts == static_cast<uint64_t>(model.calls.load()), "and the attempts");
  expect(seen.retries > 0 && good > seen.calls * 9 / 10, "retries made nearly all succeed");
  expect(limiter.available() == 1'000'000 - model.tokens, "every attempt was settled by its real cost");
}

void outage() {
  std::printf("an outage\n");
  Model model;
  model.down = true;
  auto config = agr::breaker_config();
  config.consecutive_failures = 5;
  config.half_open_permits = config.half_open_successes = 1;
  config.open_ns = 50'000'000;
  config.open_growth = 1;  // the same time at each trip in a row
  auto breaker = must(agr::Breaker::create(config));
  auto attempt = [&] {
    auto permit = breaker.acquire();
    if (!permit) return permit.retry_after();
    try {
      model.generate();
      permit->success();
    } catch (const std::runtime_error&) {
      permit->failure();
    }
    return agr::Duration{0};
  };

  agr::Duration wait{0};
  for (int i = 0; i < 100 && wait == 0s; ++i) wait = attempt();
  std::printf("  open after %lld failures, for another %.1f ms\n",
              static_cast<long long>(model.calls.load()), static_cast<double>(wait.count()) / 1e6);
  expect(model.calls == 5 && wait > 0s && wait <= 55ms, "five failures in a row opened the breaker");

  model.down = false;
  for (int i = 0; i < 60 && breaker.state() != AGR_BREAKER_CLOSED; ++i)
    std::this_thread::sleep_for(attempt());  // as long as it says, and not before
  expect(breaker.state() == AGR_BREAKER_CLOSED, "a probe that succeeded closed it");

  uint64_t cursor = 0;
  agr_breaker_event event{};
  event.struct_size = sizeof event;
  const char* const names[] = {"", "closed", "open", "half-open"};
  while (agr_breaker_next_event(breaker.get(), &cursor, &event, nullptr, nullptr) == AGR_OK)
    std::printf("  %s -> %s\n", names[event.from_state], names[event.to_state]);
}

}  // namespace

int main() {
  by_hand();
  with_a_policy();
  outage();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
