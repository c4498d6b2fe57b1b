// SPDX-License-Identifier: Apache-2.0
// The model of a token bucket, after limiter.h and docs/semantics/limiter.md: how much of all that has
// flowed in since time 0 is spent.
#ifndef MODEL_BUCKET_HPP
#define MODEL_BUCKET_HPP

#include <map>

#include "harness.hpp"

namespace model {

struct Rate {
  int64_t capacity, debt, tokens, interval;
  /// What a token is in units, of which about one flows in each nanosecond.
  int64_t unit;

  Rate(int64_t capacity, int64_t debt, int64_t tokens, int64_t interval);

  /// All that has flowed in by a time.
  Wide flowed(int64_t time) const { return Wide(time) * tokens * unit / interval; }
  /// When so much has, or AGR_FOREVER.
  int64_t when(Wide level) const;
  /// A token takes a whole number of nanoseconds: nothing is rounded.
  bool is_exact() const { return tokens != 0 && Wide(unit) * tokens == interval; }
  /// A level of this rate as a whole number of tokens, rounded down.
  int64_t whole(Wide units) const;
};

struct Grant {
  agr_status status;
  int64_t wait = 0;
  int64_t retry_after = 0;
};

/// What a reservation was charged, and where that brought the level.
struct Charge {
  int64_t tokens = 0;
  Wide level = 0;
  /// Debt that changes of rate forgave.
  Wide forgiven = 0;
  /// The capacity at the time.
  int64_t capacity = 0;
  int changes = 0;
  size_t use = 0;
};

class Bucket {
 public:
  Bucket(const Rate& rate, int64_t initial, int64_t time)
      : rate_(rate), level_(rate.flowed(time) - Wide(initial) * rate.unit) {}

  Grant take(int64_t tokens, int64_t time);
  Grant reserve(int64_t tokens, int64_t longest, int64_t time, Charge& charge);
  /// `others` are the charges of open reservations.
  void refund(const Charge& charge, int64_t tokens, int64_t time,
              const std::vector<Charge*>& others);
  /// Charges what is used already; returns what is forgiven.
  int64_t charge(int64_t tokens, int64_t time);
  /// Puts tokens in.
  void deposit(int64_t tokens, int64_t time);
  int64_t available(int64_t time) const;
  /// Another rate; the charges of open reservations are carried over.
  void change(const Rate& rate, int64_t time, std::vector<Charge*> charges);

  const Rate& rate() const { return rate_; }
  Wide level(int64_t time) const;

 private:
  Rate rate_;
  Wide level_;
};

/// The promise itself, apart from any level: in every window no more is admitted than the capacity and
/// what flows in meanwhile.
class Windows {
 public:
  void clear() {
    uses_.clear();
    allowed_ = 0;
  }
  size_t add(int64_t time, int64_t tokens) {
    uses_.push_back({time, tokens});
    return uses_.size() - 1;
  }
  void correct(size_t use, int64_t tokens) {
    if (use < uses_.size()) uses_[use].tokens = tokens;
  }
  /// Allows for what flows in in a time.
  void allow(const Rate& rate, int64_t time) { allowed_ += Wide(rate.tokens) * time; }
  void check(const Rate& rate);

 private:
  struct Use {
    int64_t time, tokens;
  };
  std::vector<Use> uses_;
  Wide allowed_ = 0;
};

}  // namespace model
#endif
