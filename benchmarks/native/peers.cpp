/* SPDX-License-Identifier: Apache-2.0
 * What one builds from abseil in an afternoon: a bucket for every key in a sharded map, and a map of results
 * that expire. The same keys, in the same order, as in library.c; time is passed in here too.
 *
 *   peers [ROUNDS [PREFIX]] */
#include <malloc.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "bench.h"

namespace {

constexpr int64_t now_ns = 1000000000;
constexpr size_t key_bytes = 20, long_key_bytes = 36, hundred_thousand = 100000, million = 1000000;

std::string key_text(uint64_t number, size_t length) {
  char text[64];
  snprintf(text, sizeof text, "%036llu", static_cast<unsigned long long>(number));
  return std::string(text + 36 - length, length);
}

/* ---- a bucket (GCRA, one word) a key ---- */

template <typename Mutex, typename Guard>
class Buckets {
 public:
  bool take(absl::string_view key, int64_t cost, int64_t burst, int64_t now) {
    const size_t hash = absl::Hash<absl::string_view>()(key);
    Shard& shard = shards_[hash >> 60];
    const Guard guard(shard.mutex);
    auto [at, fresh] = shard.map.try_emplace(key, int64_t{0});
    const int64_t next = (at->second > now ? at->second : now) + cost;
    if (next > now + burst) return false;
    at->second = next;
    return true;
  }

 private:
  struct alignas(64) Shard {
    Mutex mutex;
    absl::flat_hash_map<std::string, int64_t> map;
  };
  Shard shards_[16];
};

struct AbslGuard {
  explicit AbslGuard(absl::Mutex& mutex) : lock(&mutex) {}
  absl::MutexLock lock;
};

using StdBuckets = Buckets<std::mutex, std::lock_guard<std::mutex>>;
using AbslBuckets = Buckets<absl::Mutex, AbslGuard>;

StdBuckets std_small, std_large;
AbslBuckets absl_small, absl_large;
std::vector<char> keys, long_keys;

template <typename Kind>
void fill(Kind& buckets, size_t count) {
  for (size_t i = 0; i < count; ++i)
    if (!buckets.take({&keys[i * key_bytes], key_bytes}, 1, INT64_C(1) << 60, now_ns)) abort();
}

template <typename Kind>
void keyed(Kind& buckets, size_t count, int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + static_cast<uint64_t>(thread);
  for (int64_t i = 0; i < operations; ++i) {
    const char* key = &keys[bench_random(&state) % count * key_bytes];
    BENCH_USE(buckets.take({key, key_bytes}, 1, INT64_C(1) << 60, now_ns));
  }
  states[thread] = state;
}

/* ---- results that expire ---- */

class Cache {
 public:
  using Result = std::shared_ptr<const std::string>;

  Result find(absl::string_view key, int64_t now) {
    const absl::MutexLock lock(&mutex_);
    auto at = map_.find(key);
    if (at == map_.end()) return nullptr;
    if (at->second.expires <= now) {
      map_.erase(at);
      return nullptr;
    }
    return at->second.result;
  }

  void put(absl::string_view key, std::string result, int64_t expires) {
    const absl::MutexLock lock(&mutex_);
    map_.insert_or_assign(key, Entry{std::make_shared<const std::string>(std::move(result)), expires});
  }

 private:
  struct Entry {
    Result result;
    int64_t expires;
  };
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> map_;
};

Cache cache;

void hot(int64_t operations, int) {
  for (int64_t i = 0; i < operations; ++i) {
    const Cache::Result result = cache.find({long_keys.data(), long_key_bytes}, now_ns);
    BENCH_USE(result->data());
  }
}

void hot_clock(int64_t operations, int) {
  for (int64_t i = 0; i < operations; ++i) {
    const Cache::Result result = cache.find({long_keys.data(), long_key_bytes}, bench_now());
    BENCH_USE(result->data());
  }
}

void cold(int64_t operations, int thread) {
  static uint64_t states[BENCH_THREADS_MOST];
  uint64_t state = states[thread] + static_cast<uint64_t>(thread);
  for (int64_t i = 0; i < operations; ++i) {
    const char* key = &long_keys[bench_random(&state) % hundred_thousand * long_key_bytes];
    const Cache::Result result = cache.find({key, long_key_bytes}, now_ns);
    BENCH_USE(result->data());
  }
  states[thread] = state;
}

size_t allocated() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

void report_bytes(const char* name, size_t before, size_t count) {
  printf("{\"name\": \"%s\", \"bytes_per_key\": %.1f}\n", name,
         static_cast<double>(allocated() - before) / static_cast<double>(count));
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? atoi(arguments[1]) : 15;
  for (size_t i = 0; i < million; ++i) {
    const std::string key = key_text(i, key_bytes);
    keys.insert(keys.end(), key.begin(), key.end());
  }
  for (size_t i = 0; i < hundred_thousand; ++i) {
    const std::string key = key_text(i, long_key_bytes);
    long_keys.insert(long_keys.end(), key.begin(), key.end());
  }
  size_t before = allocated();
  fill(std_small, hundred_thousand);
  report_bytes("peer.absl.keyed.100k", before, hundred_thousand);
  before = allocated();
  fill(std_large, million);
  report_bytes("peer.absl.keyed.1m", before, million);
  fill(absl_small, hundred_thousand);
  fill(absl_large, million);
  before = allocated();
  for (size_t i = 0; i < hundred_thousand; ++i)
    cache.put({&long_keys[i * long_key_bytes], long_key_bytes}, "0123456789abcdef", INT64_MAX);
  report_bytes("peer.absl.cache.100k", before, hundred_thousand);

  bench_add_large("peer.absl.keyed.100k", [](int64_t n, int t) { keyed(std_small, hundred_thousand, n, t); }, 1);
  bench_add_large("peer.absl.keyed.1m", [](int64_t n, int t) { keyed(std_large, million, n, t); }, 1);
  bench_add_large("peer.absl.keyed.100k.absl_mutex",
            [](int64_t n, int t) { keyed(absl_small, hundred_thousand, n, t); }, 1);
  bench_add_large("peer.absl.keyed.1m.absl_mutex",
            [](int64_t n, int t) { keyed(absl_large, million, n, t); }, 1);
  bench_add_large("peer.absl.cache.hot", hot, 1);
  bench_add_large("peer.absl.cache.hot.clock", hot_clock, 1);
  bench_add_large("peer.absl.cache.100k", cold, 1);
  bench_add_large("peer.absl.keyed.100k.2", [](int64_t n, int t) { keyed(std_small, hundred_thousand, n, t); }, 2);
  bench_add_large("peer.absl.cache.100k.2", cold, 2);
  bench_run(rounds, count > 2 ? arguments[2] : nullptr);
}
