// SPDX-License-Identifier: Apache-2.0
#include "../model/idempotency_model.hpp"
#include "linear.hpp"

#include <cstring>

namespace linear {
namespace {

enum { kBegin, kJoin, kPoll, kLeave, kComplete, kFail, kAbandon, kRelease };
constexpr int64_t kStart = 1'000'000;

std::string key_name(int64_t number) { return "key" + std::to_string(number); }

struct State {
  model::IdempotencyModel cache;
  uint64_t fence = 0;

  bool apply(const Call& call) {
    model::Told told{AGR_OK};
    switch (call.operation) {
      case kBegin: told = cache.ask(call.number, key_name(call.value), 0, false, kStart); break;
      case kJoin: told = cache.ask(call.number, key_name(call.value), 0, true, kStart); break;
      case kPoll: told = cache.poll(call.number, call.of, kStart); break;
      case kLeave: told = cache.leave(call.of, kStart); break;
      case kComplete:
        told = cache.complete(call.of, std::to_string(call.number), AGR_KEY_SUCCESS, kStart);
        break;
      case kFail: told = cache.fail(call.of, "", kStart); break;
      case kAbandon: told = cache.abandon(call.of, kStart); break;
      default: told.status = cache.pins.erase(call.of) ? AGR_OK : AGR_STALE;
    }
    if (call.status != told.status) return false;
    if (call.operation > kPoll) return true;
    // The later of two leases has the higher fence; a result is the one that was stored.
    if (told.status == AGR_OK) {
      if (call.fence <= fence || (call.answer != 0) != told.unknown) return false;
      fence = call.fence;
    }
    return told.status != AGR_REPLAY || call.answer == strtoll(told.block->data.c_str(), nullptr, 10);
  }

  std::string key() const {
    std::string key = std::to_string(fence);
    for (const auto& [name, one] : cache.keys) {
      key += ";" + name + std::to_string(one.state) + "," + std::to_string(one.run) +
             (one.unknown ? "u" : "") + (one.block ? one.block->data : "-");
      for (int64_t waiter : one.waiters) key += "w" + std::to_string(waiter);
    }
    for (const auto& [number, ticket] : cache.tickets)
      key += ";t" + std::to_string(number) + (ticket.block ? ticket.block->data : "-");
    for (const auto& [number, pin] : cache.pins) key += ";p" + std::to_string(number);
    return key;
  }
};

void make(agr_idempotency* object, const Calls& calls, Call& call) {
  agr_lease lease{};
  agr_result result{};
  const std::string key = key_name(call.value);
  const Call none, &of = call.of < 0 ? none : calls[static_cast<size_t>(call.of)];
  switch (call.operation) {
    case kBegin:
      call.status = agr_idempotency_begin_at(object, key.data(), key.size(), nullptr, 0, kStart,
                                             &lease, &result, nullptr);
      break;
    case kJoin:
      call.status = agr_idempotency_join_at(object, key.data(), key.size(), nullptr, 0, kStart,
                                            &call.ticket, &lease, &result, nullptr);
      break;
    case kPoll:
      call.status =
          agr_idempotency_poll_at(object, of.ticket, kStart, &lease, &result, nullptr);
      break;
    case kLeave: call.status = agr_idempotency_leave_at(object, of.ticket, kStart, nullptr); break;
    case kComplete: {
      const std::string data = std::to_string(call.number);
      call.status = agr_idempotency_complete_at(object, of.id, data.data(), data.size(), kStart,
                                                nullptr);
      break;
    }
    case kFail:
      call.status = agr_idempotency_fail_at(object, of.id, nullptr, 0, kStart, nullptr);
      break;
    case kAbandon:
      call.status = agr_idempotency_abandon_at(object, of.id, kStart, nullptr);
      break;
    default: call.status = agr_idempotency_release(object, of.pin, nullptr);
  }
  call.id = lease.id;
  call.fence = lease.fence;
  call.pin = result.pin;
  if (result.pin)
    call.answer = strtoll(
        std::string(static_cast<const char*>(result.data), result.length).c_str(), nullptr, 10);
  else
    call.answer = lease.outcome_unknown;
}

class Cache : public History {
 public:
  Cache(int threads, Random random) {
    agr_idempotency_config_init(&config_, sizeof config_);
    config_.max_entries = 8;
    config_.max_pins = 64;
    config_.max_waiters = static_cast<uint32_t>(random.chance(4) ? 1 : 64);
    if (agr_idempotency_create(&config_, &object_.pointer, nullptr) != AGR_OK) abort();
    calls = plan(threads, random);
    const int64_t keys = random.between(1, 2);
    for (Call& call : calls) {
      call.operation = static_cast<int>(random.chance(2) ? random.below(2)
                                                         : random.between(kPoll, kRelease));
      call.value = random.below(keys);
      call.now = kStart;
      // It may not have got what is ended.
      if (call.operation > kJoin) call.of = last_of(calls, call, kBegin, kPoll);
    }
  }

  void make(Call& call) override { linear::make(object_, calls, call); }
  bool has_order() override {
    return Search<State>(calls).run(State{model::IdempotencyModel(config_)});
  }

 private:
  agr_idempotency_config config_;
  model::Handle<agr_idempotency, agr_idempotency_destroy> object_;
};

}  // namespace

const Subject idempotency{
    "idempotency",
    create<Cache>,
    {"begin", "join", "poll", "leave", "complete", "fail", "abandon", "release"}};

}  // namespace linear
