// SPDX-License-Identifier: Apache-2.0
// Concurrent histories of the limiter, the breaker and the idempotency cache: each must have an order in
// which the sequential model answers the same.
//
//   test_linear [HISTORIES [SEED]]     of each kind of object
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "linear.hpp"

namespace linear {

static constexpr long kBlock = 250;

Calls plan(int threads, Random& random) {
  Calls calls;
  const int each = static_cast<int>(random.between(2, threads > 4 ? 3 : 5));
  for (int count = 0; count < each; ++count) {
    for (int thread = 0; thread < threads; ++thread) {
      Call call;
      call.thread = thread;
      call.number = static_cast<int>(calls.size());
      calls.push_back(call);
    }
  }
  return calls;
}

static void print(const Subject& subject, const Calls& calls) {
  for (const Call& call : calls)
    printf("  thread %d, call %2d: [%llu, %llu] %s value=%lld of=%d now=%lld: status %d, answer %lld\n",
           call.thread, call.number, static_cast<unsigned long long>(call.began),
           static_cast<unsigned long long>(call.ended),
           subject.operations[static_cast<size_t>(call.operation)],
           static_cast<long long>(call.value), call.of, static_cast<long long>(call.now),
           call.status, static_cast<long long>(call.answer));
}

/// How many of the calls met another.
static size_t overlapping(const Calls& calls) {
  size_t count = 0;
  for (const Call& one : calls) {
    bool meets = false;
    for (const Call& other : calls)
      meets |= &one != &other && one.began < other.ended && other.began < one.ended;
    count += meets;
  }
  return count;
}

int last_of(const Calls& calls, const Call& call, int first, int last) {
  int found = -1;
  for (const Call& other : calls)
    if (other.thread == call.thread && other.number < call.number && other.operation >= first &&
        other.operation <= last)
      found = other.number;
  return found;
}

static bool check(const Subject& subject, long count, uint64_t seed) {
  using Time = std::chrono::steady_clock;
  const auto start = Time::now();
  // Mostly two threads, for as many as there are cores meet best.
  static const int sizes[] = {2, 2, 3, 2, 2, 4, 2, kMostThreads};
  size_t calls_made = 0, met = 0;
  for (long first = 0, block = 0; first < count; first += kBlock, ++block) {
    Team team(sizes[block % 8]);
    Histories histories;
    for (long number = first; number < std::min(count, first + kBlock); ++number) {
      Random random{seed + static_cast<uint64_t>(number) * UINT64_C(0xD1342543DE82EF95)};
      random.next();
      histories.push_back(subject.create(sizes[block % 8], random));
    }
    team.run(histories);
    for (auto& history : histories) {
      calls_made += history->calls.size();
      met += overlapping(history->calls);
      if (history->has_order()) continue;
      printf("%s: a history of seed %llu, from %ld, has no order\n", subject.name,
             static_cast<unsigned long long>(seed), first);
      print(subject, history->calls);
      return false;
    }
  }
  const std::chrono::duration<double> passed = Time::now() - start;
  printf("%-12s %8ld histories, %9zu calls, %3.0f %% met another, %.1f s\n", subject.name, count,
         calls_made, 100.0 * static_cast<double>(met) / static_cast<double>(calls_made),
         passed.count());
  return true;
}

}  // namespace linear

int main(int count, char** arguments) {
  const long histories = count > 1 ? atol(arguments[1]) : 5000;
  const uint64_t seed = count > 2 ? strtoull(arguments[2], nullptr, 10) : 1;
  bool good = histories > 0;
  for (const linear::Subject* subject :
       {&linear::limiter, &linear::several, &linear::breaker, &linear::idempotency})
    good = linear::check(*subject, histories, seed) && good;
  printf("linear: %s\n", good ? "each has an order" : "NO ORDER");
  return good ? 0 : 1;
}
