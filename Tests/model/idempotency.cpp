// SPDX-License-Identifier: Apache-2.0
#include "idempotency_model.hpp"

#include <poll.h>

#include <cstring>

#include "engines.hpp"

namespace model {
namespace {

enum Field {
  kEntries, kBytes, kWaiters, kPins, kEvict, kKeep, kTtl, kLease, kKeys, kDescriptors, kSeed
};
enum Call { kBegin, kJoin, kPoll, kLeave, kComplete, kFail, kAbandon, kRenew, kRelease };

std::string key_name(int64_t number) {
  return "key" + std::string(static_cast<size_t>(number % 5), 'x') + std::to_string(number);
}

class Run {
 public:
  explicit Run(const std::vector<int64_t>& values)
      : keys_(std::max<int64_t>(1, values[kKeys])),
        looks_(values[kDescriptors] != 0),
        config_(settings(values)),
        model_(config_),
        scale_(0) {
    if (agr_idempotency_create(&config_, &cache_.pointer, nullptr) != AGR_OK) throw Refused();
  }

  void run(const History& history) {
    for (const Step& step : history.steps) {
      const int64_t now = step.values[0];
      settle(now);
      do_step(step, now, read(now));
      compare();
      current_step += 1;
    }
  }

 private:
  static agr_idempotency_config settings(const std::vector<int64_t>& values) {
    agr_idempotency_config config;
    agr_idempotency_config_init(&config, sizeof config);
    config.max_entries = static_cast<uint32_t>(values[kEntries]);
    config.max_bytes = static_cast<uint64_t>(values[kBytes]);
    config.max_waiters = static_cast<uint32_t>(values[kWaiters]);
    config.max_pins = static_cast<uint32_t>(values[kPins]);
    config.when_full = values[kEvict] ? AGR_WHEN_FULL_EVICT : AGR_WHEN_FULL_REFUSE;
    config.on_failure = values[kKeep] ? AGR_ON_FAILURE_KEEP : AGR_ON_FAILURE_FORGET;
    config.ttl_ns = values[kTtl];
    config.lease_ns = values[kLease];
    config.seed = static_cast<uint64_t>(values[kSeed]);
    return config;
  }

  int64_t read(int64_t now) { return std::min(scale_.read(now), AGR_TIME_MAX_NS - 1); }

  /// Keys are looked after when somebody comes by. This asks for each, so that nothing hangs on when.
  void settle(int64_t now) {
    const int64_t time = read(now);
    for (int64_t number = 0; number < keys_; ++number) model_.advance(key_name(number), time);
    for (int64_t number = 0; number < keys_; ++number) {
      const std::string name = key_name(number);
      int32_t state = -7;
      const agr_status status =
          agr_idempotency_state_at(cache_, name.data(), name.size(), now, &state, nullptr);
      const auto found = model_.keys.find(name);
      expect_equal(status, found == model_.keys.end() ? AGR_NOT_FOUND : AGR_OK, "state");
      expect_equal(state, found == model_.keys.end() ? 0 : found->second.state, "the key's state");
    }
  }

  template <typename Map>
  uint64_t id(const Map& map, int64_t reference) const {
    const auto found = map.find(reference);
    return found == map.end() ? static_cast<uint64_t>(reference) : found->second;
  }

  static std::string text(const Step& step) {
    std::string text(static_cast<size_t>(step.values[2]), 'r');
    // Told apart from every other result.
    for (size_t index = 0; index < text.size() && index < 8; ++index)
      text[index] = static_cast<char>(step.id >> (8 * index));
    return text;
  }

  void do_step(const Step& step, int64_t now, int64_t time) {
    const auto& values = step.values;
    agr_lease lease{};
    agr_result result{};
    agr_error error{};
    agr_status status = AGR_OK;
    Told wanted{AGR_OK};
    const std::string name = key_name(values[1] % keys_);
    const std::string print(values[2] ? 1 : 0, static_cast<char>('a' + values[2]));
    uint64_t ticket = 7;
    switch (step.operation) {
      case kBegin:
        status = agr_idempotency_begin_at(cache_, name.data(), name.size(), print.data(),
                                          print.size(), now, &lease, &result, &error);
        wanted = model_.ask(step.id, name, values[2], false, time);
        break;
      case kJoin:
        status = agr_idempotency_join_at(cache_, name.data(), name.size(), print.data(),
                                         print.size(), now, &ticket, &lease, &result, &error);
        wanted = model_.ask(step.id, name, values[2], true, time);
        expect((ticket != 0) == (wanted.status == AGR_IN_PROGRESS), "the ticket is wrong");
        if (ticket) tickets_[step.id] = ticket;
        break;
      case kPoll:
        status = agr_idempotency_poll_at(cache_, id(tickets_, values[1]), now, &lease, &result,
                                         &error);
        wanted = model_.poll(step.id, values[1], time);
        break;
      case kLeave:
        status = agr_idempotency_leave_at(cache_, id(tickets_, values[1]), now, &error);
        wanted = model_.leave(values[1], time);
        break;
      case kComplete: {
        const std::string data = text(step);
        status = agr_idempotency_complete_at(cache_, id(leases_, values[1]), data.data(),
                                             data.size(), now, &error);
        wanted = model_.complete(values[1], data, AGR_KEY_SUCCESS, time);
        break;
      }
      case kFail: {
        const std::string data = text(step);
        status = agr_idempotency_fail_at(cache_, id(leases_, values[1]), data.data(), data.size(),
                                         now, &error);
        wanted = model_.fail(values[1], data, time);
        break;
      }
      case kAbandon:
        status = agr_idempotency_abandon_at(cache_, id(leases_, values[1]), now, &error);
        wanted = model_.abandon(values[1], time);
        break;
      case kRenew:
        status = agr_idempotency_renew_at(cache_, id(leases_, values[1]), values[2], now, &error);
        wanted = model_.renew(values[1], values[2], time);
        break;
      case kRelease:
        status = agr_idempotency_release(cache_, id(pins_, values[1]), &error);
        wanted.status = model_.pins.erase(values[1]) ? AGR_OK : AGR_STALE;
        break;
    }
    expect_equal(status, wanted.status, operation_name(step.operation));
    if (*wanted.field) expect(strcmp(error.field, wanted.field) == 0, "the error names another field");
    if (step.operation <= kPoll) check_answer(step.id, wanted, lease, result);
  }

  static const char* operation_name(int operation) {
    static const char* const names[] = {"begin", "join", "poll", "leave", "complete",
                                        "fail", "abandon", "renew", "release"};
    return names[operation];
  }

  void check_answer(int64_t id, const Told& wanted, const agr_lease& lease,
                    const agr_result& result) {
    if (wanted.status == AGR_OK) {
      expect(lease.id != 0, "there is no lease");
      expect(lease.fence > fence_, "a fence that does not grow");
      fence_ = lease.fence;
      expect_equal(lease.outcome_unknown, wanted.unknown, "outcome_unknown");
      leases_[id] = lease.id;
    }
    if (wanted.status == AGR_OK || wanted.status == AGR_IN_PROGRESS)
      expect_equal(lease.expires_in_ns, wanted.expires_in, "expires_in_ns");
    if (wanted.status != AGR_OK) expect(lease.id == 0, "a lease that nobody has");
    expect((result.pin != 0) == (wanted.status == AGR_REPLAY), "the pin is wrong");
    if (wanted.status != AGR_REPLAY) return;
    expect_equal(result.state, wanted.block->state, "the result's state");
    expect_equal(result.length, wanted.block->data.size(), "the result's length");
    pins_[id] = result.pin;
    held_[id] = result;
  }

  void compare() {
    agr_idempotency_snapshot seen{};
    seen.struct_size = sizeof seen;
    expect_equal(agr_idempotency_snapshot_read(cache_, &seen, nullptr), AGR_OK, "snapshot");
    expect_equal(seen.waiters, model_.tickets.size(), "waiters");
    expect_equal(seen.entries, model_.keys.size(), "entries");
    expect_equal(seen.bytes, model_.bytes(), "bytes");
    expect_equal(seen.pins, model_.pins.size(), "pins");
    const IdempotencyModel::Counters& counters = model_.counters;
    expect_equal(seen.executed, counters.executed, "executed");
    expect_equal(seen.replayed, counters.replayed, "replayed");
    expect_equal(seen.joined, counters.joined, "joined");
    expect_equal(seen.promoted, counters.promoted, "promoted");
    expect_equal(seen.leases_lost, counters.leases_lost, "leases_lost");
    expect_equal(seen.mismatched, counters.mismatched, "mismatched");
    expect_equal(seen.evicted, counters.evicted, "evicted");
    expect_equal(seen.illegal, counters.illegal, "illegal");
    expect_equal(seen.refused, counters.refused, "refused");
    // What is pinned stays where it is, and what it is.
    for (const auto& [id, block] : model_.pins) {
      const agr_result& held = held_[id];
      expect(memcmp(held.data, block->data.data(), held.length) == 0, "a pinned result changed");
      expect(reinterpret_cast<uintptr_t>(held.data) % 16 == 0, "a result is not aligned");
    }
    if (looks_) descriptors();
  }

  /// A ticket's descriptor is readable exactly when a poll has an answer.
  void descriptors() {
    for (const auto& [id, ticket] : model_.tickets) {
      int32_t descriptor = -7;
      expect_equal(agr_idempotency_ticket_fd(cache_, tickets_[id], &descriptor, nullptr), AGR_OK,
                   "ticket_fd");
      pollfd event{descriptor, POLLIN, 0};
      const int ready = ::poll(&event, 1, 0);
      expect_equal(ready, model_.is_ready(id), "the descriptor's readiness");
    }
  }

  const int64_t keys_;
  const bool looks_;
  const agr_idempotency_config config_;
  IdempotencyModel model_;
  Scale scale_;
  Handle<agr_idempotency, agr_idempotency_destroy> cache_;
  std::map<int64_t, uint64_t> leases_, tickets_, pins_;
  std::map<int64_t, agr_result> held_;
  uint64_t fence_ = 0;
};

class IdempotencyEngine : public Engine {
 public:
  IdempotencyEngine()
      : Engine("idempotency",
               {"entries", "bytes", "waiters", "pins", "evict", "keep", "ttl", "lease", "keys",
                "descriptors", "seed"},
               {{"begin", {"key", "fingerprint"}},
                {"join", {"key", "fingerprint"}},
                {"poll", {"of"}},
                {"leave", {"of"}},
                {"complete", {"of", "length"}},
                {"fail", {"of", "length"}},
                {"abandon", {"of"}},
                {"renew", {"of", "length"}},
                {"release", {"of"}}}) {}

  void generate(Random& random, History& history) const override {
    auto& config = history.config;
    config.assign(this->config.size(), 0);
    config[kKeys] = 1 + random.below(6);
    config[kEntries] = random.chance(3) ? 1 + random.below(4) : 64;
    config[kBytes] = random.chance(3) ? 12 + random.below(60) : 1 << 20;
    config[kWaiters] = random.chance(3) ? random.below(4) : 64;
    config[kPins] = random.chance(3) ? 1 + random.below(4) : 64;
    config[kEvict] = random.below(2);
    config[kKeep] = random.below(2);
    const int64_t grain = INT64_C(1) << random.below(40);
    config[kTtl] = 1 + random.skewed(grain * 300);
    config[kLease] = 1 + random.skewed(grain * 60);
    config[kDescriptors] = random.chance(30);
    config[kSeed] = random.below(3);
    Clock clock(random, static_cast<Clock::Kind>(random.below(3)), any_start(random), grain);
    const int64_t count = random.between(20, random.chance(4) ? 600 : 120);
    for (int64_t id = 1; id <= count; ++id) {
      Step step;
      step.id = id;
      auto& values = step.values;
      values[0] = clock.next();
      values[1] = std::max<int64_t>(0, id - 1 - random.skewed(24));
      const int64_t which = random.below(16);
      if (which < 6) {
        step.operation = which < 2 ? kBegin : kJoin;
        values[1] = random.below(config[kKeys]);
        values[2] = random.chance(8) ? random.below(3) : 0;
      } else {
        static const Call calls[] = {kPoll, kPoll, kPoll, kLeave, kComplete, kComplete, kFail,
                                     kAbandon, kRenew, kRelease};
        step.operation = calls[which - 6];
        if (step.operation == kComplete || step.operation == kFail)
          values[2] = random.skewed(config[kBytes] < 100 ? 70 : 20);
        if (step.operation == kRenew) values[2] = random.chance(4) ? 0 : random.skewed(grain * 100);
      }
      history.steps.push_back(step);
    }
  }

  void run(const History& history) const override { Run(history.config).run(history); }
};

}  // namespace

const Engine& idempotency_engine() {
  static const IdempotencyEngine engine;
  return engine;
}

}  // namespace model
