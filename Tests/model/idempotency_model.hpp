// SPDX-License-Identifier: Apache-2.0
// The model of an idempotency cache, after idempotency.h: a table of keys, and a look at every key each step.
#ifndef MODEL_IDEMPOTENCY_MODEL_HPP
#define MODEL_IDEMPOTENCY_MODEL_HPP

#include <list>
#include <map>
#include <memory>
#include <string>

#include "harness.hpp"

namespace model {

struct Block {
  std::string data;
  int32_t state;
};
using BlockPointer = std::shared_ptr<const Block>;

/// What a call answers. `run`, `ticket` and `pin` are the ids of the steps that got them.
struct Told {
  agr_status status;
  int64_t expires_in = 0;
  bool unknown = false;
  BlockPointer block{};
  const char* field = "";
};

class IdempotencyModel {
 public:
  struct Key {
    int32_t state = AGR_KEY_PROCESSING;
    int64_t fingerprint = 0, due = 0, run = 0;
    bool unknown = false;
    BlockPointer block;
    std::list<int64_t> waiters;
  };
  struct Ticket {
    std::string key;
    BlockPointer block;
  };
  struct Counters {
    uint64_t executed = 0, replayed = 0, joined = 0, promoted = 0, leases_lost = 0, mismatched = 0,
             evicted = 0, illegal = 0, refused = 0;
  };

  explicit IdempotencyModel(const agr_idempotency_config& config) : config_(config) {}

  int64_t lease() const { return config_.lease_ns; }

  std::map<std::string, Key> keys;
  std::map<int64_t, Ticket> tickets;
  std::map<int64_t, BlockPointer> pins;
  Counters counters;

  /// What becomes of a key in the course of time.
  void advance(const std::string& name, int64_t now) {
    for (auto found = keys.find(name); found != keys.end() && found->second.due <= now;) {
      Key& key = found->second;
      if (key.state == AGR_KEY_PROCESSING) {
        counters.leases_lost += 1;
        release(key, key.due, now);
      } else if (key.state == AGR_KEY_PENDING && key.waiters.size() == 1) {
        key.due = AGR_FOREVER;
      } else if (key.state == AGR_KEY_PENDING && key.waiters.size() > 1) {
        key.waiters.splice(key.waiters.end(), key.waiters, key.waiters.begin());
        promote(key, now);
      } else {
        remove(name);
        return;
      }
    }
  }

  uint64_t bytes() const {
    std::map<const Block*, uint64_t> blocks;
    uint64_t sum = 0;
    const auto add = [&](const BlockPointer& block) {
      if (block) blocks[block.get()] = block->data.size();
    };
    for (const auto& [name, key] : keys) add(key.block), sum += name.size();
    for (const auto& [id, ticket] : tickets) add(ticket.block);
    for (const auto& [id, pin] : pins) add(pin);
    for (const auto& [block, size] : blocks) sum += size;
    return sum;
  }

  Told ask(int64_t id, const std::string& name, int64_t fingerprint, bool joins, int64_t now) {
    auto found = keys.find(name);
    if (found == keys.end()) {
      while (keys.size() >= config_.max_entries)
        if (!evict()) return refuse("max_entries");
      while (bytes() + name.size() > config_.max_bytes)
        if (name.size() > config_.max_bytes || !evict()) return refuse("max_bytes");
      Key& key = keys[name];
      key.fingerprint = fingerprint;
      return grant(id, key, now);
    }
    Key& key = found->second;
    if (key.fingerprint && fingerprint && key.fingerprint != fingerprint) {
      counters.mismatched += 1;
      return {AGR_MISMATCH};
    }
    if (key.block) return replay(id, key.block);
    if (key.state == AGR_KEY_PENDING && (key.waiters.empty() || key.due == AGR_FOREVER)) {
      if (fingerprint) key.fingerprint = fingerprint;
      return grant(id, key, now);
    }
    if (joins) {
      if (tickets.size() >= config_.max_waiters) return refuse("max_waiters");
      tickets[id] = {name, nullptr};
      key.waiters.push_back(id);
      counters.joined += 1;
    }
    return {AGR_IN_PROGRESS, key.due - now};
  }

  bool is_ready(int64_t ticket) const {
    const auto found = tickets.find(ticket);
    return found != tickets.end() && (found->second.block || is_first(ticket));
  }

  Told poll(int64_t id, int64_t ticket, int64_t now) {
    const auto found = tickets.find(ticket);
    if (found == tickets.end()) return {AGR_STALE};
    if (found->second.block) {
      const Told told = replay(id, found->second.block);
      if (told.status == AGR_REPLAY) tickets.erase(found);
      return told;
    }
    Key& key = keys[found->second.key];
    if (!is_first(ticket)) return {AGR_IN_PROGRESS, key.due - now};
    key.waiters.pop_front();
    tickets.erase(found);
    return grant(id, key, now);
  }

  Told leave(int64_t ticket, int64_t now) {
    const auto found = tickets.find(ticket);
    if (found == tickets.end()) return {AGR_STALE};
    const bool was_first = is_first(ticket);
    const Ticket left = found->second;
    tickets.erase(found);
    if (left.block) return {AGR_OK};
    Key& key = keys[left.key];
    key.waiters.remove(ticket);
    if (!was_first) return {AGR_OK};
    if (!key.waiters.empty()) promote(key, now);
    else if (key.unknown) key.due = later(now, config_.ttl_ns);
    else remove(left.key);
    return {AGR_OK};
  }

  Told complete(int64_t run, const std::string& data, int32_t state, int64_t now) {
    const std::string* name = holder(run);
    if (!name) return stale();
    if (data.size() > config_.max_bytes) return {AGR_ERR_NEVER_FITS};
    while (bytes() + data.size() > config_.max_bytes)
      if (!evict()) return refuse("max_bytes");
    Key& key = keys[*name];
    key.block = std::make_shared<Block>(Block{data, state});
    for (int64_t waiter : key.waiters) tickets[waiter].block = key.block;
    key.waiters.clear();
    key.state = state;
    key.due = later(now, config_.ttl_ns);
    completed_.push_back(*name);
    return {AGR_OK};
  }

  Told fail(int64_t run, const std::string& data, int64_t now) {
    return config_.on_failure == AGR_ON_FAILURE_KEEP ? complete(run, data, AGR_KEY_FAILED, now)
                                                     : give_back(run, now);
  }

  /// The run had no effect.
  Told give_back(int64_t run, int64_t now) {
    const std::string* name = holder(run);
    if (!name) return stale();
    Key& key = keys[*name];
    if (key.unknown) {
      release(key, now, now);
    } else if (key.waiters.empty()) {
      remove(std::string(*name));
    } else {
      key.state = AGR_KEY_PENDING;
      promote(key, now);
    }
    return {AGR_OK};
  }

  Told abandon(int64_t run, int64_t now) {
    const std::string* name = holder(run);
    if (!name) return stale();
    release(keys[*name], now, now);
    return {AGR_OK};
  }

  Told renew(int64_t run, int64_t length, int64_t now) {
    const std::string* name = holder(run);
    if (!name) return {AGR_STALE};
    keys[*name].due = later(now, length ? length : config_.lease_ns);
    return {AGR_OK};
  }

 private:
  bool is_first(int64_t ticket) const {
    const auto found = tickets.find(ticket);
    if (found == tickets.end() || found->second.block) return false;
    const Key& key = keys.at(found->second.key);
    return key.state == AGR_KEY_PENDING && !key.waiters.empty() && key.waiters.front() == ticket;
  }

  Told stale() {
    counters.illegal += 1;
    return {AGR_STALE};
  }

  Told refuse(const char* field) {
    counters.refused += 1;
    Told told{AGR_ERR_CAPACITY};
    told.field = field;
    return told;
  }

  void remove(const std::string& name) {
    completed_.remove(name);
    keys.erase(name);
  }

  void promote(Key& key, int64_t now) {
    counters.promoted += 1;
    key.due = later(now, config_.lease_ns);
  }

  /// The run may have had an effect; whoever comes next is told.
  void release(Key& key, int64_t since, int64_t now) {
    key.state = AGR_KEY_PENDING;
    key.unknown = true;
    if (key.waiters.empty()) key.due = later(since, config_.ttl_ns);
    else promote(key, now);
  }

  bool evict() {
    if (config_.when_full != AGR_WHEN_FULL_EVICT || completed_.empty()) return false;
    remove(std::string(completed_.front()));
    counters.evicted += 1;
    return true;
  }

  Told grant(int64_t id, Key& key, int64_t now) {
    counters.executed += 1;
    key.state = AGR_KEY_PROCESSING;
    key.run = id;
    key.due = later(now, config_.lease_ns);
    return {AGR_OK, key.due - now, key.unknown};
  }

  Told replay(int64_t id, const BlockPointer& block) {
    if (pins.size() >= config_.max_pins) return refuse("max_pins");
    counters.replayed += 1;
    pins[id] = block;
    Told told{AGR_REPLAY};
    told.block = block;
    return told;
  }

  const std::string* holder(int64_t run) const {
    for (const auto& [name, key] : keys)
      if (key.state == AGR_KEY_PROCESSING && key.run == run) return &name;
    return nullptr;
  }

  const agr_idempotency_config config_;
  std::list<std::string> completed_;
};

}  // namespace model
#endif
