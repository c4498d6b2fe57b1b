// SPDX-License-Identifier: Apache-2.0
// Short histories of several threads, and the search for an order of their calls which the sequential model
// explains: Wing and Gong, Testing and verifying concurrent objects, 1993; memoised as by Lowe, 2017.
#ifndef LINEAR_HPP
#define LINEAR_HPP

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>

#include "../model/harness.hpp"

namespace linear {

using model::Random;

inline constexpr int kMostThreads = 8;

/// A call, when it began and ended by a counter that all share, and what it answered.
struct Call {
  int thread = 0, number = 0;
  int operation = 0;
  /// The call of the same thread whose permit, reservation, lease or ticket it ends; -1: none.
  int of = -1;
  int64_t value = 0;
  int64_t now = 0;
  uint64_t began = 0, ended = 0;
  int32_t status = 0;
  /// What else was answered, as far as the model knows it.
  int64_t answer = 0;
  uint64_t fence = 0;
  /// Ids of the library's.
  uint64_t id = 0, ticket = 0, pin = 0;
};

using Calls = std::vector<Call>;

/// An object of its own, and the calls to it.
class History {
 public:
  virtual ~History() = default;
  /// Makes a call; it may use what those before it of the same thread got.
  virtual void make(Call& call) = 0;
  virtual bool has_order() = 0;

  Calls calls;
};
using Histories = std::vector<std::unique_ptr<History>>;

/// Runs histories, all threads at once: they wait for each other before each, so that their calls meet.
class Team {
 public:
  explicit Team(int size) : size_(size) {}

  void run(Histories& histories) {
    std::vector<std::atomic<int>> arrived(histories.size());
    std::vector<std::thread> threads;
    for (int thread = 0; thread < size_; ++thread)
      threads.emplace_back([&, thread] {
        for (size_t index = 0; index < histories.size(); ++index) {
          arrived[index].fetch_add(1);
          for (int looks = 0; arrived[index].load() < size_; ++looks)
            if (looks > 2000) std::this_thread::yield();
          for (Call& call : histories[index]->calls) {
            if (call.thread != thread) continue;
            call.began = clock_.fetch_add(1);
            histories[index]->make(call);
            call.ended = clock_.fetch_add(1);
          }
        }
      });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  const int size_;
  std::atomic<uint64_t> clock_{0};
};

/// Whether there is an order. State: `apply(call)` makes a call, and says whether it would answer so;
/// `key()` tells states apart.
template <typename State>
class Search {
 public:
  explicit Search(const Calls& calls) : calls_(calls) {}

  bool run(const State& start) {
    if (calls_.size() > 63) abort();
    return go(0, start);
  }

 private:
  bool go(uint64_t made, const State& state) {
    if (made == (UINT64_C(1) << calls_.size()) - 1) return true;
    if (!seen_.insert(std::to_string(made) + "/" + state.key()).second) return false;
    // Whatever is next began before the first of the others ended.
    uint64_t first_end = UINT64_MAX;
    for (size_t index = 0; index < calls_.size(); ++index)
      if (!(made >> index & 1)) first_end = std::min(first_end, calls_[index].ended);
    for (size_t index = 0; index < calls_.size(); ++index) {
      if (made >> index & 1 || calls_[index].began > first_end) continue;
      State next = state;
      if (next.apply(calls_[index]) && go(made | UINT64_C(1) << index, next)) return true;
    }
    return false;
  }

  const Calls& calls_;
  std::unordered_set<std::string> seen_;
};

/// One kind of object: makes a history of a seed.
struct Subject {
  const char* name;
  std::unique_ptr<History> (*create)(int threads, Random random);
  std::vector<const char*> operations;
};

extern const Subject limiter, several, breaker, idempotency;

/// The calls of all threads, to be filled in.
Calls plan(int threads, Random& random);
/// The last call of the same thread before one, of the operations from `first` to `last`; -1: none.
int last_of(const Calls& calls, const Call& call, int first, int last);

template <typename Kind>
std::unique_ptr<History> create(int threads, Random random) {
  return std::make_unique<Kind>(threads, random);
}

}  // namespace linear
#endif
