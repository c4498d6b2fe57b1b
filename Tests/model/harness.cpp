// SPDX-License-Identifier: Apache-2.0
#include "harness.hpp"

namespace model {

size_t current_step = 0;

uint64_t Random::next() {
  state += UINT64_C(0x9E3779B97F4A7C15);
  uint64_t z = state;
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

int64_t Random::skewed(int64_t most) {
  if (most <= 0) return 0;
  int bits = 0;
  while (bits < 62 && (most >> bits) > 0) ++bits;
  const int64_t limit = std::min(most, (INT64_C(1) << (1 + below(bits))) - 1);
  return below(limit + 1);
}

void fail(const std::string& what) { throw Mismatch{current_step, what}; }

void fail(const char* what, int64_t seen, int64_t wanted) {
  fail(std::string(what) + " is " + std::to_string(seen) + ", not " + std::to_string(wanted));
}

int64_t Scale::read(int64_t now) {
  const int64_t time = now + offset_, passed = time - highest_;
  // The highest is noted each millisecond, and a step back is measured from there.
  if (passed >= 0 && passed < kMillisecond) return time;
  if (passed >= 0 && passed <= kYear && time <= AGR_TIME_MAX_NS) return highest_ = time;
  if (passed < 0 && passed >= -kSecond) return std::max<int64_t>(time, 0);
  if (passed > 0) highest_ = later(highest_, kYear);
  offset_ = highest_ - now;
  return highest_;
}

int64_t Clock::next() {
  int64_t by = 0;
  if (!random_.chance(3)) by = random_.skewed(random_.chance(30) ? grain_ * 200 : grain_ * 4);
  now_ = later(now_, by);
  if (kind_ == kJittery && random_.chance(4)) {
    now_ = std::max<int64_t>(0, highest_ - random_.skewed(kSecond - kMillisecond));
  }
  if (kind_ == kWild && random_.chance(40)) {
    switch (random_.below(4)) {
      case 0: now_ = random_.skewed(now_); break;
      case 1: now_ -= std::min(now_, random_.between(kSecond, 3 * kSecond)); break;
      case 2: now_ = 0; break;
      default:
        // All leaps together stay below the end of time.
        if (++leaps_ < 40) now_ = random_.below(AGR_TIME_MAX_NS);
    }
  }
  highest_ = std::max(highest_, now_);
  return now_;
}

int64_t any_start(Random& random) {
  switch (random.below(4)) {
    case 0: return 0;
    case 1: return random.skewed(kYear);
    default: return random.below(40 * kYear);
  }
}

}  // namespace model
