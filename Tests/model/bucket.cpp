// SPDX-License-Identifier: Apache-2.0
#include "bucket.hpp"

#include <algorithm>
#include <numeric>

namespace model {

Rate::Rate(int64_t capacity, int64_t debt, int64_t tokens, int64_t interval)
    : capacity(capacity), debt(debt) {
  const int64_t divisor = std::gcd(tokens, interval);
  this->tokens = tokens / divisor;
  this->interval = interval / divisor;
  if (debt < 0) {
    const Wide minute = Wide(60 * kSecond) * this->tokens / this->interval;
    this->debt = std::max(capacity, static_cast<int64_t>(minute));
  }
  const int64_t finest = this->tokens == 0 ? 1 : this->interval / this->tokens;
  const int64_t room = (INT64_C(1) << 60) / std::max(capacity, this->debt);
  unit = std::max<int64_t>(1, std::min(finest, room));
}

int64_t Rate::when(Wide level) const {
  if (level <= 0) return 0;
  if (tokens == 0) return AGR_FOREVER;
  const Wide speed = Wide(tokens) * unit, time = (level * interval + speed - 1) / speed;
  return time > AGR_TIME_MAX_NS ? AGR_FOREVER : static_cast<int64_t>(time);
}

int64_t Rate::whole(Wide units) const {
  const Wide up = units >= 0 ? units : units - unit + 1;
  return static_cast<int64_t>(up / unit);
}

/// The level with what has spilled over taken away.
Wide Bucket::level(int64_t time) const {
  return std::max(level_, rate_.flowed(time) - Wide(rate_.capacity) * rate_.unit);
}

/// Below every level.
static constexpr Wide kNowhere = -(Wide(1) << 100);

static int64_t until(int64_t time, int64_t now) {
  if (time == AGR_FOREVER) return AGR_FOREVER;
  return time > now ? time - now : 0;
}

Grant Bucket::take(int64_t tokens, int64_t time) {
  if (tokens > rate_.capacity) return {AGR_ERR_NEVER_FITS};
  const Wide next = level(time) + Wide(tokens) * rate_.unit;
  if (next > rate_.flowed(time)) return {AGR_LIMITED, 0, until(rate_.when(next), time)};
  if (tokens > 0) level_ = next;
  return {AGR_OK};
}

Grant Bucket::reserve(int64_t tokens, int64_t longest, int64_t time, Charge& charge) {
  if (tokens > rate_.capacity) return {AGR_ERR_NEVER_FITS};
  const Wide next = level(time) + Wide(tokens) * rate_.unit, flowed = rate_.flowed(time);
  const Wide debt = Wide(rate_.debt) * rate_.unit;
  const int64_t wait = next > flowed ? until(rate_.when(next), time) : 0;
  if (next > flowed && (wait == AGR_FOREVER || wait > longest || next - flowed > debt)) {
    const int64_t soon = until(wait, longest), paid = until(rate_.when(next - debt), time);
    return {AGR_LIMITED, 0, std::max(soon, paid)};
  }
  level_ = next;
  charge.tokens = tokens;
  charge.level = next;
  return {AGR_OK, wait};
}

void Bucket::refund(const Charge& charge, int64_t tokens, int64_t time,
                    const std::vector<Charge*>& others) {
  if (charge.changes > 2) return;
  const Wide full = rate_.flowed(time) - Wide(rate_.capacity) * rate_.unit, present = level(time);
  // What has refilled since the charge would have spilled over without it.
  const Wide left = std::max<Wide>(0, charge.level - full);
  // Others who reserved behind it keep their wait.
  const Wide behind = std::max<Wide>(0, present - std::max(charge.level, rate_.flowed(time)));
  const Wide asked = Wide(std::min(tokens, rate_.capacity)) * rate_.unit;
  const Wide back = std::min(asked, left) - behind - charge.forgiven;
  if (back <= 0) return;
  level_ = std::max(present - back, full);
  // The bucket is nearer to full than it was since the others' charges; those of another rate are lost.
  for (Charge* other : others)
    if (other->level > level_) other->level = other->changes ? kNowhere : level_;
}

int64_t Bucket::charge(int64_t tokens, int64_t time) {
  const Wide present = level(time);
  const Wide room = rate_.flowed(time) + Wide(rate_.debt) * rate_.unit - present;
  const Wide most = room > 0 ? room / rate_.unit : 0;
  const int64_t taken = most < tokens ? static_cast<int64_t>(most) : tokens;
  level_ = present + Wide(taken) * rate_.unit;
  return tokens - taken;
}

void Bucket::deposit(int64_t tokens, int64_t time) {
  const Wide full = rate_.flowed(time) - Wide(rate_.capacity) * rate_.unit;
  level_ = std::max(level(time) - Wide(tokens) * rate_.unit, full);
}

int64_t Bucket::available(int64_t time) const {
  return rate_.whole(rate_.flowed(time) - level(time));
}

void Bucket::change(const Rate& rate, int64_t time, std::vector<Charge*> charges) {
  const Wide before = rate_.flowed(time), after = rate.flowed(time);
  const Wide available = before - level(time);
  const auto scaled = [&](Wide units) { return units * rate.unit / rate_.unit; };
  const Wide most = Wide(available >= 0 ? rate.capacity : rate.debt) * rate.unit;
  const Wide size = std::min(scaled(available >= 0 ? available : -available), most);
  level_ = after - (available >= 0 ? size : -size);
  for (Charge* charge : charges) {
    charge->changes += 1;
    if (charge->changes == 1) charge->capacity = rate_.capacity;
    // A smaller capacity in between has cut what would have been there without the charge.
    if (charge->changes == 2 && rate_.capacity < charge->capacity && rate_.capacity < rate.capacity)
      charge->level = kNowhere;
    if (charge->level == kNowhere) continue;
    const Wide distance = charge->level - before;
    const Wide moved = scaled(distance >= 0 ? distance : -distance);
    const Wide kept = distance >= 0 ? std::min(moved, Wide(rate.debt) * rate.unit) : moved;
    charge->level = distance >= 0 ? after + kept : after - kept;
    charge->forgiven = scaled(charge->forgiven) + moved - kept;
  }
  rate_ = rate;
}

void Windows::check(const Rate& rate) {
  if (!std::is_sorted(uses_.begin(), uses_.end(),
                      [](const Use& a, const Use& b) { return a.time < b.time; }))
    std::stable_sort(uses_.begin(), uses_.end(),
                     [](const Use& a, const Use& b) { return a.time < b.time; });
  // limiter.h: exact, or within what flows in in 2 ns, or within a part of a token.
  Wide bound = Wide(rate.capacity) * rate.interval + allowed_;
  if (!rate.is_exact()) bound += std::max<Wide>(2 * rate.tokens, rate.tokens ? rate.interval : 0);
  // The fullest window that ends at each use.
  Wide fullest = 0;
  int64_t last = 0;
  for (const Use& use : uses_) {
    fullest = std::max<Wide>(0, fullest - Wide(rate.tokens) * (use.time - last));
    fullest += Wide(use.tokens) * rate.interval;
    last = use.time;
    expect(fullest <= bound, "a window admitted more than its capacity and what flowed in");
  }
}

}  // namespace model
