// SPDX-License-Identifier: Apache-2.0
// The C++ binding in a store, on a Redis server: two stores on it are two processes.
#include <autoglm_reliability.hpp>
#include <autoglm_reliability/redis.h>

#include <string>

#include "../c/check.h"
#include "redis_server_cpp.h"

using namespace std::chrono_literals;

static agr::Result<agr::Store> open(const std::string& address) {
  agr_redis_config config;
  agr_redis_config_init(&config, sizeof config);
  config.address = address.c_str();
  agr_store_config limits;
  agr_store_config_init(&limits, sizeof limits);
  limits.timeout_ns = agr::Duration{30s}.count();
  agr_store_driver driver{};
  agr_error error{};
  const agr::Status status{agr_redis_open(&config, &driver, &error)};
  if (!status) return {status, error};
  return agr::Store::create(driver, &limits);
}

static void limiters(const agr::Store& first, const agr::Store& second) {
  const auto config = agr::limiter_config(10, 1, 1h);
  auto one = agr::Limiter::create(first, "tokens", config);
  auto two = agr::Limiter::create(second, "tokens", config);
  CHECK(one && two);
  CHECK(one->try_acquire(6) == AGR_OK && two->try_acquire(5) == AGR_LIMITED);
  {
    auto dropped = two->reserve(4, 0s);
    CHECK(static_cast<bool>(dropped) && one->available() == 0);
  }
  CHECK(one->available() == 4);
  auto options = agr::store_options();
  options.lease_tokens = 11;
  CHECK(agr::Limiter::create(first, "tokens", config, &options).field() == "lease_tokens");

  auto keyed_config = agr::keyed_limiter_config();
  keyed_config.capacity = 1;
  keyed_config.refill_tokens = 1;
  keyed_config.refill_interval_ns = agr::Duration{1h}.count();
  auto keyed = agr::KeyedLimiter::create(first, "keys", keyed_config);
  auto keyed_too = agr::KeyedLimiter::create(second, "keys", keyed_config);
  CHECK(keyed->try_acquire("a") == AGR_OK && keyed_too->try_acquire("a") == AGR_LIMITED);
  CHECK(keyed_too->try_acquire("b") == AGR_OK);
}

static void breakers(const agr::Store& first, const agr::Store& second) {
  auto config = agr::breaker_config();
  config.window = AGR_WINDOW_NONE;
  config.consecutive_failures = 1;
  config.open_ns = config.open_max_ns = agr::Duration{1h}.count();
  auto one = agr::Breaker::create(first, "upstream", config);
  CHECK(one->acquire()->failure() == AGR_OK && one->state() == AGR_BREAKER_OPEN);
  // What is new looks at the shared state before its first call.
  auto two = agr::Breaker::create(second, "upstream", config);
  CHECK(two->acquire().status() == AGR_OPEN);
}

static void locks(const agr::Store& first, const agr::Store& second) {
  auto one = agr::DistributedLock::create(first, "lock");
  auto two = agr::DistributedLock::create(second, "lock");
  CHECK(one && two);
  uint64_t fence = 0;
  {
    auto hold = one->acquire("key");
    CHECK(static_cast<bool>(hold) && hold->fence() != 0);
    fence = hold->fence();
    auto held = two->try_acquire("key");
    CHECK(held.status() == AGR_LIMITED && held.retry_after() > 20s && held.retry_after() <= 30s);
    CHECK(two->acquire("key", 1ms).status() == AGR_LIMITED);
    CHECK(hold->renew() == AGR_OK && hold->remaining() > 20s);
    auto moved = *std::move(hold);
    CHECK(!two->try_acquire("key"));
  }
  auto next = two->acquire("key", 30s);
  CHECK(static_cast<bool>(next) && next->fence() > fence);
  CHECK(next->release() == AGR_OK && next->release() == AGR_STALE && next->renew() == AGR_STALE);
  CHECK(next->remaining() == 0s);
  CHECK(static_cast<bool>(one->try_acquire("key")));

  auto config = agr::lock_config();
  config.limit = 0;
  CHECK(agr::DistributedLock::create(first, "lock", config).field() == "limit");
  config.limit = 1;
  config.ttl_ns = agr::Duration{20ms}.count();
  auto brief = agr::DistributedLock::create(first, "brief", config);
  auto lost = brief->acquire("key");
  auto later = brief->acquire("key", 30s);
  CHECK(static_cast<bool>(later) && later->fence() > lost->fence());
  CHECK(lost->renew() == AGR_STALE && lost->release() == AGR_STALE);
}

int main() {
  const std::string address = "127.0.0.1:" + std::to_string(redis_start());
  {
    auto first = open(address), second = open(address);
    CHECK(first && second && std::string_view(first->name()) == "redis");
    limiters(*first, *second);
    breakers(*first, *second);
    locks(*first, *second);
    CHECK(open("").status() == AGR_ERR_ARGUMENT);
  }
  redis_end();
  return finish();
}
