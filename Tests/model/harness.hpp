// SPDX-License-Identifier: Apache-2.0
// What all models share: histories, how they are checked against the library, and how one that
// fails is made small. A history is determined by its seed, and can be written down as text.
#ifndef MODEL_HARNESS_HPP
#define MODEL_HARNESS_HPP

#include <autoglm_reliability.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace model {

using Wide = __int128;

/// SplitMix64.
struct Random {
  uint64_t state;

  uint64_t next();
  /// 0 ... bound - 1.
  int64_t below(int64_t bound) {
    return static_cast<int64_t>(next() % static_cast<uint64_t>(bound));
  }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  bool chance(int64_t in) { return below(in) == 0; }
  /// Up to `most`, small numbers as likely as great ones.
  int64_t skewed(int64_t most);
};

inline constexpr int kValues = 6;

/// One call. `id` names it for good, so that others can refer to it when some are left out; values[0]
/// is its time.
struct Step {
  int operation = 0;
  int64_t id = 0;
  std::array<int64_t, kValues> values{};
};

struct History {
  std::vector<int64_t> config;
  std::vector<Step> steps;
};

/// Where the library and the model part.
struct Mismatch {
  size_t step;
  std::string what;
};

/// A configuration that the library refuses; only a case that is being shrunk may have one.
struct Refused {};

struct Operation {
  const char* name;
  std::vector<const char*> values;  // without the time
};

/// One part of the library, and the model of it.
class Engine {
 public:
  Engine(const char* name, std::vector<const char*> config, std::vector<Operation> operations)
      : name(name), config(std::move(config)), operations(std::move(operations)) {}
  virtual ~Engine() = default;

  virtual void generate(Random& random, History& history) const = 0;
  /// Runs a history; throws a Mismatch.
  virtual void run(const History& history) const = 0;

  const char* const name;
  const std::vector<const char*> config;
  const std::vector<Operation> operations;
};

/// The step that is being run, for the message.
extern size_t current_step;

[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail(const char* what, int64_t seen, int64_t wanted);

inline void expect(bool condition, const char* what) {
  if (!condition) fail(what);
}

template <typename Seen, typename Wanted>
inline void expect_equal(Seen seen, Wanted wanted, const char* what) {
  const auto left = static_cast<int64_t>(seen), right = static_cast<int64_t>(wanted);
  if (left != right) fail(what, left, right);
}

/// Handles that are destroyed in the end.
template <typename T, void (*destroy)(T*)>
struct Handle {
  T* pointer = nullptr;
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { destroy(pointer); }
  operator T*() const { return pointer; }
};

/// The time as an object of the library sees it (autoglm_reliability.h, "Time"): one that steps back by
/// more than a second goes on from where it was, and a leap counts for a year at the most.
class Scale {
 public:
  explicit Scale(int64_t start) : highest_(start) {}

  int64_t read(int64_t now);
  /// As read, and not before what was noted.
  int64_t read_onward(int64_t now) { return std::max(read(now), highest_); }
  /// As read, of a time that the object is not told.
  int64_t peek(int64_t now) const { return Scale(*this).read(now); }

 private:
  int64_t highest_;
  int64_t offset_ = 0;
};

inline constexpr int64_t kMillisecond = 1'000'000;
inline constexpr int64_t kSecond = 1'000'000'000;
inline constexpr int64_t kYear = 365 * 24 * 3600 * kSecond;

/// Sums of times, which end at AGR_TIME_MAX_NS.
inline int64_t later(int64_t time, int64_t by) {
  return by > AGR_TIME_MAX_NS - time ? AGR_TIME_MAX_NS : time + by;
}

/// How the times of a history go.
class Clock {
 public:
  enum Kind {
    kOnward,   // never back
    kJittery,  // back by up to a second below the highest, as of threads that were held up
    kWild      // back, on by years, to either end
  };

  Clock(Random& random, Kind kind, int64_t start, int64_t grain)
      : random_(random), kind_(kind), now_(start), highest_(start), grain_(grain) {}

  int64_t next();

 private:
  Random& random_;
  Kind kind_;
  int64_t now_;
  int64_t highest_;
  int64_t grain_;
  int64_t leaps_ = 0;
};

/// Where a history begins, mostly near 0 or today.
int64_t any_start(Random& random);

int main(const std::vector<const Engine*>& engines, int count, char** arguments);

}  // namespace model
#endif
