// SPDX-License-Identifier: Apache-2.0
//
// libautoglm_reliability for C++17: handles that clean up after themselves, std::chrono, permits that
// cannot be lost. Header-only over the C interface, whose conventions hold; see autoglm_reliability.h.
//
// Nothing here throws, but what a function given to Policy::execute throws passes through. What can
// fail returns agr::Result<T>, a status with a value; a constructor that can fail is a static create().
// Answers such as "limited" are values of Status, not errors.
// Permits, leases, reservations and calls are move-only, and give back what they hold when dropped:
// a permit is reported neutral, a reservation cancelled, a lease abandoned.
#ifndef AUTOGLM_RELIABILITY_HPP
#define AUTOGLM_RELIABILITY_HPP

#include <autoglm_reliability.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#ifdef __cpp_exceptions
#include <cxxabi.h>
#endif

namespace agr {

using Duration = std::chrono::nanoseconds;

/// "No limit", "never clears".
inline constexpr Duration forever{AGR_FOREVER};

/// What a call answered. Tests true when it is AGR_OK.
class Status {
 public:
  constexpr Status() noexcept = default;
  constexpr explicit Status(agr_status code) noexcept : code_(code) {}

  constexpr agr_status code() const noexcept { return code_; }
  constexpr explicit operator bool() const noexcept { return code_ == AGR_OK; }
  /// A positive status: expected, and no error.
  constexpr bool is_answer() const noexcept { return code_ > 0; }
  constexpr bool is_error() const noexcept { return code_ < 0; }
  const char* name() const noexcept { return agr_status_name(code_); }

  friend constexpr bool operator==(Status a, Status b) noexcept { return a.code_ == b.code_; }
  friend constexpr bool operator==(Status a, agr_status b) noexcept { return a.code_ == b; }
  friend constexpr bool operator!=(Status a, agr_status b) noexcept { return a.code_ != b; }

 private:
  agr_status code_ = AGR_OK;
};

/// A value, or why there is none.
template <typename T>
class Result {
 public:
  Result(T value) noexcept : value_(std::move(value)) {}
  Result(Status status, const agr_error& error, Duration retry_after = {}) noexcept
      : status_(status), retry_after_(retry_after), error_(error) {}

  explicit operator bool() const noexcept { return value_.has_value(); }
  Status status() const noexcept { return status_; }
  /// With a refusal: when it clears.
  Duration retry_after() const noexcept { return retry_after_; }
  /// With an error: the field at fault, and what is wrong with it.
  std::string_view field() const noexcept { return error_.field; }
  std::string_view message() const noexcept { return error_.message; }

  T& operator*() & noexcept { return *value_; }
  T&& operator*() && noexcept { return std::move(*value_); }
  T* operator->() noexcept { return &*value_; }

 private:
  Status status_;
  Duration retry_after_{};
  agr_error error_{};
  std::optional<T> value_;
};

namespace detail {

/// An owned handle.
template <typename T, void (*Destroy)(T*)>
class Handle {
 public:
  Handle() noexcept = default;
  explicit Handle(T* pointer) noexcept : pointer_(pointer) {}
  Handle(Handle&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      Destroy(pointer_);
      pointer_ = std::exchange(other.pointer_, nullptr);
    }
    return *this;
  }
  ~Handle() { Destroy(pointer_); }

  T* get() const noexcept { return pointer_; }

 private:
  T* pointer_ = nullptr;
};

/// A function that makes attempts, as C calls it. No exception may unwind the library, so it waits here.
template <typename Function>
class Attempts {
 public:
  explicit Attempts(Function& function) noexcept : function_(function) {}

  static void run(const agr_step* step, agr_outcome* outcome, void* data) {
    auto& self = *static_cast<Attempts*>(data);
    const uint64_t id = outcome->attempt_id;
#ifdef __cpp_exceptions
    try {
      *outcome = self.function_(*step);
#ifdef __GLIBCXX__
    } catch (abi::__forced_unwind&) {
      throw;  // the end of the thread, which nothing may stop
#endif
    } catch (...) {
      self.thrown_ = std::current_exception();
      outcome->error_class = AGR_CLASS_CANCELLED;
    }
#else
    *outcome = self.function_(*step);
#endif
    outcome->attempt_id = id;
  }

  void rethrow() {
#ifdef __cpp_exceptions
    if (thrown_) std::rethrow_exception(thrown_);
#endif
  }

 private:
  Function& function_;
#ifdef __cpp_exceptions
  std::exception_ptr thrown_;
#endif
};

/// A structure with the library's defaults.
template <typename T, void (*Init)(T*, uint32_t)>
T defaults() noexcept {
  T value;
  Init(&value, sizeof value);
  return value;
}

}  // namespace detail

// ---- Configurations: the C structures with their defaults ----

inline agr_backoff_config backoff_config() noexcept {
  return detail::defaults<agr_backoff_config, agr_backoff_config_init>();
}
inline agr_retry_config retry_config() noexcept {
  return detail::defaults<agr_retry_config, agr_retry_config_init>();
}
inline agr_retry_budget_config retry_budget_config() noexcept {
  return detail::defaults<agr_retry_budget_config, agr_retry_budget_config_init>();
}
inline agr_breaker_config breaker_config() noexcept {
  return detail::defaults<agr_breaker_config, agr_breaker_config_init>();
}
inline agr_keyed_limiter_config keyed_limiter_config() noexcept {
  return detail::defaults<agr_keyed_limiter_config, agr_keyed_limiter_config_init>();
}
inline agr_idempotency_config idempotency_config() noexcept {
  return detail::defaults<agr_idempotency_config, agr_idempotency_config_init>();
}
inline agr_policy_config policy_config() noexcept {
  return detail::defaults<agr_policy_config, agr_policy_config_init>();
}
inline agr_request request() noexcept { return detail::defaults<agr_request, agr_request_init>(); }
inline agr_outcome outcome() noexcept { return detail::defaults<agr_outcome, agr_outcome_init>(); }

/// A bucket of `capacity` tokens that refills by `tokens` per `interval`.
inline agr_limiter_config limiter_config(int64_t capacity, int64_t tokens,
                                         Duration interval) noexcept {
  auto config = detail::defaults<agr_limiter_config, agr_limiter_config_init>();
  config.capacity = capacity;
  config.refill_tokens = tokens;
  config.refill_interval_ns = interval.count();
  return config;
}

inline agr_region_config region_config() noexcept {
  return detail::defaults<agr_region_config, agr_region_config_init>();
}

inline agr_store_options store_options() noexcept {
  return detail::defaults<agr_store_options, agr_store_options_init>();
}
inline agr_lock_config lock_config() noexcept {
  return detail::defaults<agr_lock_config, agr_lock_config_init>();
}

// ---- Shared memory ----

/// Memory in which the processes of a host find one limiter, breaker or retry budget by name, by the create() of
/// each that takes a region and a name.
class Region {
 public:
  /// The region of a name, which is created if there is none. 0 bytes: as many as it has, or 1 MiB.
  static Result<Region> open(const char* name, uint64_t bytes = 0,
                             const agr_region_config& config = region_config()) noexcept {
    agr_error error{};
    agr_region* region = nullptr;
    const Status status{agr_region_open(name, bytes, &config, &region, &error)};
    if (!status) return {status, error};
    return Region{region};
  }

  /// The region that a descriptor refers to, which stays the caller's.
  static Result<Region> open_fd(int fd, const agr_region_config& config = region_config()) noexcept {
    agr_error error{};
    agr_region* region = nullptr;
    const Status status{agr_region_open_fd(fd, &config, &region, &error)};
    if (!status) return {status, error};
    return Region{region};
  }

  /// AGR_NOT_FOUND when there is none.
  static Status unlink(const char* name) noexcept { return Status{agr_region_unlink(name, nullptr)}; }

  /// Closed with the region.
  int fd() const noexcept {
    int32_t fd = -1;
    (void)agr_region_fd(get(), &fd, nullptr);
    return fd;
  }

  Status remove(const char* name) noexcept {
    return Status{agr_region_remove(get(), name, nullptr)};
  }

  /// The next object after the cursor (0 at first), which moves on.
  std::optional<agr_region_object> next_object(uint64_t& cursor) const noexcept {
    agr_region_object object{};
    object.struct_size = sizeof object;
    if (agr_region_next_object(get(), &cursor, &object, nullptr) != AGR_OK) return {};
    return object;
  }

  agr_region_snapshot snapshot() const noexcept {
    agr_region_snapshot value{};
    value.struct_size = sizeof value;
    (void)agr_region_snapshot_read(get(), &value, nullptr);
    return value;
  }

  agr_region* get() const noexcept { return handle_.get(); }

 private:
  explicit Region(agr_region* region) noexcept : handle_(region) {}
  detail::Handle<agr_region, agr_region_close> handle_;
};

// ---- Stores ----

/// Where the state of objects lies that is shared by processes, or is to outlive them: given to the create() of each
/// that takes a store and a name, which hold it alive.
class Store {
 public:
  /// Takes over a driver, from a plug-in's open function or a program's own; it stays the caller's on an error.
  static Result<Store> create(const agr_store_driver& driver,
                              const agr_store_config* config = nullptr) noexcept {
    agr_error error{};
    agr_store* store = nullptr;
    const Status status{agr_store_create(&driver, config, &store, &error)};
    if (!status) return {status, error};
    return Store{store};
  }

  const char* name() const noexcept { return agr_store_name(get()); }

  /// Blocks, for the time-out at the longest; {}: as configured.
  Status ping(Duration timeout = {}) noexcept {
    return Status{agr_store_ping(get(), timeout.count(), nullptr)};
  }

  agr_store* get() const noexcept { return handle_.get(); }

 private:
  explicit Store(agr_store* store) noexcept : handle_(store) {}
  detail::Handle<agr_store, agr_store_destroy> handle_;
};

// ---- Circuit breaker ----

class Breaker {
 public:
  /// The right to make one call. Dropped without a report it is neutral. It must not outlive its breaker.
  class Permit {
   public:
    Permit(Permit&& other) noexcept
        : breaker_(other.breaker_), id_(std::exchange(other.id_, 0)), start_(other.start_) {}
    Permit& operator=(Permit&& other) noexcept {
      if (this != &other) {
        drop();
        breaker_ = other.breaker_;
        id_ = std::exchange(other.id_, 0);
        start_ = other.start_;
      }
      return *this;
    }
    ~Permit() { drop(); }

    /// The latency is what has passed since the permit was given. AGR_STALE the second time.
    Status success() noexcept { return report(AGR_OUTCOME_SUCCESS); }
    Status failure() noexcept { return report(AGR_OUTCOME_FAILURE); }
    Status neutral() noexcept { return report(AGR_OUTCOME_NEUTRAL); }
    Status backpressure() noexcept { return report(AGR_OUTCOME_BACKPRESSURE); }
    Status report(int32_t outcome) noexcept {
      return report(outcome, Duration{agr_now_ns() - start_});
    }
    Status report(int32_t outcome, Duration latency) noexcept {
      return Status{
          agr_breaker_report(breaker_, std::exchange(id_, 0), outcome, latency.count(), nullptr)};
    }

   private:
    friend class Breaker;
    Permit(agr_breaker* breaker, uint64_t id) noexcept
        : breaker_(breaker), id_(id), start_(agr_now_ns()) {}
    void drop() noexcept {
      if (id_ != 0) neutral();
    }

    agr_breaker* breaker_;
    uint64_t id_;
    int64_t start_;
  };

  static Result<Breaker> create(const agr_breaker_config& config) noexcept {
    agr_error error{};
    agr_breaker* breaker = nullptr;
    const Status status{agr_breaker_create(&config, &breaker, &error)};
    if (!status) return {status, error};
    return Breaker{breaker};
  }

  /// The region's of this name.
  static Result<Breaker> create(const Region& region, const char* name, const agr_breaker_config& config) noexcept {
    agr_error error{};
    agr_breaker* breaker = nullptr;
    const Status status{agr_breaker_create_in_region(region.get(), name, &config, &breaker, &error)};
    if (!status) return {status, error};
    return Breaker{breaker};
  }

  /// Whose state is shared, under a name, through a store.
  static Result<Breaker> create(const Store& store, const char* name, const agr_breaker_config& config,
                              const agr_store_options* options = nullptr) noexcept {
    agr_error error{};
    agr_breaker* breaker = nullptr;
    const Status status{agr_breaker_create_in_store(store.get(), name, &config, options, &breaker, &error)};
    if (!status) return {status, error};
    return Breaker{breaker};
  }

  /// A permit, or AGR_OPEN with the time until it may admit again.
  Result<Permit> acquire() noexcept {
    agr_error error{};
    uint64_t permit = 0;
    int64_t retry_after = 0;
    const Status status{agr_breaker_acquire(get(), &permit, &retry_after, &error)};
    if (!status) return {status, error, Duration{retry_after}};
    return Permit{get(), permit};
  }

  int32_t state() const noexcept {
    int32_t state = 0;
    (void)agr_breaker_state(get(), &state, nullptr);
    return state;
  }

  Status force(int32_t mode) noexcept { return Status{agr_breaker_force(get(), mode, nullptr)}; }

  agr_breaker_snapshot snapshot() const noexcept {
    agr_breaker_snapshot value{};
    value.struct_size = sizeof value;
    (void)agr_breaker_snapshot_read(get(), &value, nullptr);
    return value;
  }

  /// The next change of state after the cursor (0 at first), which moves on.
  std::optional<agr_breaker_event> next_event(uint64_t& cursor) const noexcept {
    agr_breaker_event event{};
    event.struct_size = sizeof event;
    if (agr_breaker_next_event(get(), &cursor, &event, nullptr, nullptr) != AGR_OK) return {};
    return event;
  }

  agr_breaker* get() const noexcept { return handle_.get(); }

 private:
  explicit Breaker(agr_breaker* breaker) noexcept : handle_(breaker) {}
  detail::Handle<agr_breaker, agr_breaker_destroy> handle_;
};

// ---- Limiter ----

/// Tokens taken ahead of their use. Dropped without a settlement they come back. It must not outlive its
/// limiter.
template <typename T, agr_status (*Settle)(T*, uint64_t, int64_t, agr_error*)>
class BasicReservation {
 public:
  BasicReservation(T* limiter, agr_reservation value) noexcept : limiter_(limiter), value_(value) {}
  BasicReservation(BasicReservation&& other) noexcept
      : limiter_(other.limiter_), value_(std::exchange(other.value_, {})) {}
  BasicReservation& operator=(BasicReservation&& other) noexcept {
    if (this != &other) {
      drop();
      limiter_ = other.limiter_;
      value_ = std::exchange(other.value_, {});
    }
    return *this;
  }
  ~BasicReservation() { drop(); }

  /// Wait this long before making use of the tokens.
  Duration wait() const noexcept { return Duration{value_.wait_ns}; }
  int64_t tokens() const noexcept { return value_.tokens; }

  /// Ends it by its real cost. AGR_STALE the second time.
  Status settle(int64_t actual_tokens) noexcept {
    return Status{Settle(limiter_, std::exchange(value_.permit, 0), actual_tokens, nullptr)};
  }
  /// Ends it; what was reserved was used.
  Status keep() noexcept { return settle(-1); }
  Status cancel() noexcept { return settle(0); }

 private:
  void drop() noexcept {
    if (value_.permit != 0) cancel();
  }

  T* limiter_;
  agr_reservation value_;
};

class Limiter {
 public:
  using Reservation = BasicReservation<agr_limiter, agr_limiter_settle>;

  static Result<Limiter> create(const agr_limiter_config& config) noexcept {
    agr_error error{};
    agr_limiter* limiter = nullptr;
    const Status status{agr_limiter_create(&config, &limiter, &error)};
    if (!status) return {status, error};
    return Limiter{limiter};
  }

  /// The region's of this name.
  static Result<Limiter> create(const Region& region, const char* name, const agr_limiter_config& config) noexcept {
    agr_error error{};
    agr_limiter* limiter = nullptr;
    const Status status{agr_limiter_create_in_region(region.get(), name, &config, &limiter, &error)};
    if (!status) return {status, error};
    return Limiter{limiter};
  }

  /// Whose bucket lies in a store, under a name.
  static Result<Limiter> create(const Store& store, const char* name, const agr_limiter_config& config,
                              const agr_store_options* options = nullptr) noexcept {
    agr_error error{};
    agr_limiter* limiter = nullptr;
    const Status status{agr_limiter_create_in_store(store.get(), name, &config, options, &limiter, &error)};
    if (!status) return {status, error};
    return Limiter{limiter};
  }

  /// Takes the tokens, or says when they are there.
  Status try_acquire(int64_t tokens = 1, Duration* retry_after = nullptr) noexcept {
    int64_t wait = 0;
    const Status status{
        agr_limiter_try_acquire(get(), tokens, retry_after ? &wait : nullptr, nullptr)};
    if (retry_after) *retry_after = Duration{wait};
    return status;
  }

  /// Blocks for them, unless that would take longer than the time-out.
  Status acquire(int64_t tokens = 1, Duration timeout = forever) noexcept {
    return Status{agr_limiter_acquire(get(), tokens, timeout.count(), nullptr, nullptr)};
  }

  Result<Reservation> reserve(int64_t tokens, Duration max_wait = forever) noexcept {
    agr_error error{};
    agr_reservation reservation{};
    int64_t retry_after = 0;
    const Status status{agr_limiter_reserve(get(), tokens, max_wait.count(), &reservation,
                                            &retry_after, &error)};
    if (!status) return {status, error, Duration{retry_after}};
    return Reservation{get(), reservation};
  }

  int64_t available() const noexcept {
    int64_t tokens = 0;
    (void)agr_limiter_available(get(), &tokens, nullptr);
    return tokens;
  }

  Status reconfigure(const agr_limiter_config& config) noexcept {
    return Status{agr_limiter_reconfigure(get(), &config, nullptr)};
  }

  agr_limiter* get() const noexcept { return handle_.get(); }

 private:
  explicit Limiter(agr_limiter* limiter) noexcept : handle_(limiter) {}
  detail::Handle<agr_limiter, agr_limiter_destroy> handle_;
};

/// A bucket for every key.
class KeyedLimiter {
 public:
  static Result<KeyedLimiter> create(const agr_keyed_limiter_config& config) noexcept {
    agr_error error{};
    agr_keyed_limiter* limiter = nullptr;
    const Status status{agr_keyed_limiter_create(&config, &limiter, &error)};
    if (!status) return {status, error};
    return KeyedLimiter{limiter};
  }

  /// The region's of this name.
  static Result<KeyedLimiter> create(const Region& region, const char* name, const agr_keyed_limiter_config& config) noexcept {
    agr_error error{};
    agr_keyed_limiter* limiter = nullptr;
    const Status status{agr_keyed_limiter_create_in_region(region.get(), name, &config, &limiter, &error)};
    if (!status) return {status, error};
    return KeyedLimiter{limiter};
  }

  /// Whose keys have their buckets in a store, under a name.
  static Result<KeyedLimiter> create(const Store& store, const char* name, const agr_keyed_limiter_config& config,
                              const agr_store_options* options = nullptr) noexcept {
    agr_error error{};
    agr_keyed_limiter* limiter = nullptr;
    const Status status{agr_keyed_limiter_create_in_store(store.get(), name, &config, options, &limiter, &error)};
    if (!status) return {status, error};
    return KeyedLimiter{limiter};
  }

  Status try_acquire(std::string_view key, int64_t tokens = 1,
                     Duration* retry_after = nullptr) noexcept {
    int64_t wait = 0;
    const Status status{agr_keyed_limiter_try_acquire(get(), key.data(), key.size(), tokens,
                                                      retry_after ? &wait : nullptr, nullptr)};
    if (retry_after) *retry_after = Duration{wait};
    return status;
  }

  using Reservation = BasicReservation<agr_keyed_limiter, agr_keyed_limiter_settle>;

  Result<Reservation> reserve(std::string_view key, int64_t tokens,
                              Duration max_wait = forever) noexcept {
    agr_error error{};
    agr_reservation reservation{};
    int64_t retry_after = 0;
    const Status status{agr_keyed_limiter_reserve(get(), key.data(), key.size(), tokens,
                                                  max_wait.count(), &reservation, &retry_after,
                                                  &error)};
    if (!status) return {status, error, Duration{retry_after}};
    return Reservation{get(), reservation};
  }

  int64_t available(std::string_view key) const noexcept {
    int64_t tokens = 0;
    (void)agr_keyed_limiter_available(get(), key.data(), key.size(), &tokens, nullptr);
    return tokens;
  }

  agr_keyed_limiter* get() const noexcept { return handle_.get(); }

 private:
  explicit KeyedLimiter(agr_keyed_limiter* limiter) noexcept : handle_(limiter) {}
  detail::Handle<agr_keyed_limiter, agr_keyed_limiter_destroy> handle_;
};

// ---- Idempotency ----

class Idempotency {
 public:
  /// The right to execute a key. Dropped without an end it is abandoned: the next is told that the
  /// outcome is unknown.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : cache_(other.cache_), value_(std::exchange(other.value_, {})) {}
    Lease& operator=(Lease&& other) noexcept {
      if (this != &other) {
        drop();
        cache_ = other.cache_;
        value_ = std::exchange(other.value_, {});
      }
      return *this;
    }
    ~Lease() { drop(); }

    uint64_t fence() const noexcept { return value_.fence; }
    bool outcome_unknown() const noexcept { return value_.outcome_unknown != 0; }

    /// On an error (no room for the result) the lease is still held.
    Status complete(std::string_view result) noexcept {
      return ended(agr_idempotency_complete(cache_, value_.id, result.data(), result.size(), nullptr));
    }
    Status fail(std::string_view result = {}) noexcept {
      return ended(agr_idempotency_fail(cache_, value_.id, result.data(), result.size(), nullptr));
    }
    Status renew(Duration lease = {}) noexcept {
      return Status{agr_idempotency_renew(cache_, value_.id, lease.count(), nullptr)};
    }

   private:
    friend class Idempotency;
    Lease(agr_idempotency* cache, agr_lease value) noexcept : cache_(cache), value_(value) {}
    Status ended(agr_status status) noexcept {
      if (status >= 0) value_.id = 0;
      return Status{status};
    }
    void drop() noexcept {
      if (value_.id != 0) (void)agr_idempotency_abandon(cache_, value_.id, nullptr);
    }

    agr_idempotency* cache_;
    agr_lease value_;
  };

  /// A result that stays where it is for as long as this lives.
  class Pinned {
   public:
    Pinned(Pinned&& other) noexcept
        : cache_(other.cache_), value_(std::exchange(other.value_, {})) {}
    Pinned& operator=(Pinned&& other) noexcept {
      if (this != &other) {
        drop();
        cache_ = other.cache_;
        value_ = std::exchange(other.value_, {});
      }
      return *this;
    }
    ~Pinned() { drop(); }

    std::string_view data() const noexcept {
      return {static_cast<const char*>(value_.data), value_.length};
    }
    bool failed() const noexcept { return value_.state == AGR_KEY_FAILED; }

   private:
    friend class Idempotency;
    Pinned(agr_idempotency* cache, agr_result value) noexcept : cache_(cache), value_(value) {}
    void drop() noexcept {
      if (value_.pin != 0) (void)agr_idempotency_release(cache_, value_.pin, nullptr);
    }

    agr_idempotency* cache_;
    agr_result value_;
  };

  /// Exactly one of the two, or neither: then status says why (in progress, mismatch, an error).
  struct Answer {
    Status status;
    std::optional<Lease> lease;
    std::optional<Pinned> result;
    Duration retry_after{};
  };

  static Result<Idempotency> create(const agr_idempotency_config& config) noexcept {
    agr_error error{};
    agr_idempotency* cache = nullptr;
    const Status status{agr_idempotency_create(&config, &cache, &error)};
    if (!status) return {status, error};
    return Idempotency{cache};
  }

  /// A cache whose keys lie in a store, under a name.
  static Result<Idempotency> create(const Store& store, const char* name,
                                    const agr_idempotency_config& config,
                                    const agr_store_options* options = nullptr) noexcept {
    agr_error error{};
    agr_idempotency* cache = nullptr;
    const Status status{
        agr_idempotency_create_in_store(store.get(), name, &config, options, &cache, &error)};
    if (!status) return {status, error};
    return Idempotency{cache};
  }

  /// Asks to execute a key; does not wait, but for a store.
  Answer begin(std::string_view key, std::string_view fingerprint = {}) noexcept {
    agr_lease lease{};
    agr_result result{};
    const agr_status status =
        agr_idempotency_begin(get(), key.data(), key.size(), fingerprint.data(),
                              fingerprint.size(), &lease, &result, nullptr);
    return answer(status, lease, result);
  }

  /// Asks to execute a key; when somebody else does, waits for that run. Blocks.
  Answer begin_or_wait(std::string_view key, std::string_view fingerprint = {},
                       Duration timeout = forever) noexcept {
    agr_lease lease{};
    agr_result result{};
    uint64_t ticket = 0;
    agr_status status =
        agr_idempotency_join(get(), key.data(), key.size(), fingerprint.data(), fingerprint.size(),
                             &ticket, &lease, &result, nullptr);
    if (status == AGR_IN_PROGRESS) {
      status = agr_idempotency_wait(get(), ticket, timeout.count(), &lease, &result, nullptr);
      if (status == AGR_TIMED_OUT || status < 0) (void)agr_idempotency_leave(get(), ticket, nullptr);
    }
    return answer(status, lease, result);
  }

  agr_idempotency* get() const noexcept { return handle_.get(); }

 private:
  explicit Idempotency(agr_idempotency* cache) noexcept : handle_(cache) {}

  Answer answer(agr_status status, const agr_lease& lease, const agr_result& result) noexcept {
    Answer answer{Status{status}, std::nullopt, std::nullopt, Duration{lease.expires_in_ns}};
    if (status == AGR_OK) answer.lease = Lease{get(), lease};
    if (status == AGR_REPLAY) answer.result = Pinned{get(), result};
    return answer;
  }

  detail::Handle<agr_idempotency, agr_idempotency_destroy> handle_;
};

// ---- Locks ----

/// Locks of one kind in a store: for each key one holder at a time, or `limit` of them.
class DistributedLock {
 public:
  /// A lock that is held until it is released, dropped, or its time is over. It must not outlive its lock nor its key.
  class Hold {
   public:
    Hold(Hold&& other) noexcept
        : lock_(other.lock_), key_(other.key_), value_(std::exchange(other.value_, {})) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        drop();
        lock_ = other.lock_;
        key_ = other.key_;
        value_ = std::exchange(other.value_, {});
      }
      return *this;
    }
    ~Hold() { drop(); }

    /// Larger with each holder of the key: what the lock protects is to refuse smaller ones than it has seen.
    uint64_t fence() const noexcept { return value_.fence; }
    /// For so long it is held for certain.
    Duration remaining() const noexcept {
      const int64_t left = value_.until_ns - agr_now_ns();
      return Duration{value_.fence != 0 && left > 0 ? left : 0};
    }
    /// AGR_STALE: it has ended.
    Status renew() noexcept {
      if (value_.fence == 0) return Status{AGR_STALE};
      return Status{agr_lock_renew(lock_, key_.data(), key_.size(), &value_, nullptr)};
    }
    /// AGR_STALE: it had ended before. After an error it may be tried again.
    Status release() noexcept {
      if (value_.fence == 0) return Status{AGR_STALE};
      const Status status{agr_lock_release(lock_, key_.data(), key_.size(), &value_, nullptr)};
      if (!status.is_error()) value_ = {};
      return status;
    }

   private:
    friend class DistributedLock;
    Hold(agr_lock* lock, std::string_view key, agr_lock_hold value) noexcept
        : lock_(lock), key_(key), value_(value) {}
    void drop() noexcept {
      if (value_.fence != 0) (void)agr_lock_release(lock_, key_.data(), key_.size(), &value_, nullptr);
    }

    agr_lock* lock_;
    std::string_view key_;
    agr_lock_hold value_;
  };

  static Result<DistributedLock> create(const Store& store, const char* name,
                                        const agr_lock_config& config = lock_config(),
                                        const agr_store_options* options = nullptr) noexcept {
    agr_error error{};
    agr_lock* lock = nullptr;
    const Status status{agr_lock_create_in_store(store.get(), name, &config, options, &lock, &error)};
    if (!status) return {status, error};
    return DistributedLock{lock};
  }

  /// AGR_LIMITED when it is held, with the time until the next holder's is over.
  Result<Hold> try_acquire(std::string_view key) noexcept {
    agr_error error{};
    agr_lock_hold hold{};
    int64_t retry_after = 0;
    const Status status{
        agr_lock_try_acquire(get(), key.data(), key.size(), &hold, &retry_after, &error)};
    if (!status) return {status, error, Duration{retry_after}};
    return Hold{get(), key, hold};
  }

  /// The same, and waits until it is free. Blocks.
  Result<Hold> acquire(std::string_view key, Duration timeout = forever) noexcept {
    agr_error error{};
    agr_lock_hold hold{};
    const Status status{
        agr_lock_acquire(get(), key.data(), key.size(), timeout.count(), &hold, &error)};
    if (!status) return {status, error};
    return Hold{get(), key, hold};
  }

  agr_lock* get() const noexcept { return handle_.get(); }

 private:
  explicit DistributedLock(agr_lock* lock) noexcept : handle_(lock) {}
  detail::Handle<agr_lock, agr_lock_destroy> handle_;
};

// ---- Retry budget ----

class RetryBudget {
 public:
  static Result<RetryBudget> create(const agr_retry_budget_config& config) noexcept {
    agr_error error{};
    agr_retry_budget* budget = nullptr;
    const Status status{agr_retry_budget_create(&config, &budget, &error)};
    if (!status) return {status, error};
    return RetryBudget{budget};
  }

  /// The region's of this name.
  static Result<RetryBudget> create(const Region& region, const char* name, const agr_retry_budget_config& config) noexcept {
    agr_error error{};
    agr_retry_budget* budget = nullptr;
    const Status status{agr_retry_budget_create_in_region(region.get(), name, &config, &budget, &error)};
    if (!status) return {status, error};
    return RetryBudget{budget};
  }

  Status withdraw(uint32_t cost = 1) noexcept {
    return Status{agr_retry_budget_withdraw(get(), cost, nullptr, nullptr)};
  }
  Status deposit(uint32_t requests = 1) noexcept {
    return Status{agr_retry_budget_deposit(get(), requests, nullptr)};
  }

  agr_retry_budget* get() const noexcept { return handle_.get(); }

 private:
  explicit RetryBudget(agr_retry_budget* budget) noexcept : handle_(budget) {}
  detail::Handle<agr_retry_budget, agr_retry_budget_destroy> handle_;
};

// ---- Policy ----

/// One guarded call. Dropped before it is done it is abandoned.
class Call {
 public:
  const agr_step& step() const noexcept { return step_; }
  bool done() const noexcept { return step_.kind == AGR_STEP_DONE; }
  bool succeeded() const noexcept { return step_.reason == AGR_REASON_SUCCEEDED; }
  const char* reason() const noexcept { return agr_reason_name(step_.reason); }
  /// With a result of the policy's (replayed, cached, default): its bytes, for as long as this lives.
  std::string_view result() const noexcept {
    return {static_cast<const char*>(step_.result), step_.result_length};
  }

  Status advance(const agr_outcome& outcome) noexcept {
    return Status{agr_call_advance(handle_.get(), &outcome, &step_, nullptr)};
  }
  /// A wait ended.
  Status advance() noexcept {
    return Status{agr_call_advance(handle_.get(), nullptr, &step_, nullptr)};
  }
  Status commit() noexcept { return Status{agr_call_commit(handle_.get(), nullptr)}; }

 private:
  friend class Policy;
  Call() noexcept { step_.struct_size = sizeof step_; }
  detail::Handle<agr_call, agr_call_destroy> handle_;
  agr_step step_{};
};

class Policy {
 public:
  /// The policy holds its parts alive.
  static Result<Policy> create(const agr_policy_config& config) noexcept {
    agr_error error{};
    agr_policy* policy = nullptr;
    const Status status{agr_policy_create(&config, &policy, &error)};
    if (!status) return {status, error};
    return Policy{policy};
  }

  /// Begins a call, to be driven by its steps.
  Result<Call> begin(const agr_request& request) noexcept {
    agr_error error{};
    agr_call* handle = nullptr;
    Call call;
    const Status status{agr_call_begin(get(), &request, &handle, &call.step_, &error)};
    if (!status) return {status, error};
    call.handle_ = detail::Handle<agr_call, agr_call_destroy>{handle};
    return call;
  }

  /// Runs a call to its end on this thread; `attempt(const agr_step&) -> agr_outcome`. Blocks. What it
  /// throws ends the call as cancelled, and then goes on to the caller.
  template <typename Attempt>
  Result<Call> execute(const agr_request& request, Attempt&& attempt) {
    agr_error error{};
    agr_call* handle = nullptr;
    Call call;
    detail::Attempts<std::remove_reference_t<Attempt>> attempts{attempt};
    const Status status{agr_policy_execute(get(), &request, attempts.run, &attempts, &handle,
                                           &call.step_, &error)};
    call.handle_ = detail::Handle<agr_call, agr_call_destroy>{handle};
    attempts.rethrow();
    if (!status) return {status, error};
    return call;
  }

  Status set_mode(int32_t component, int32_t mode) noexcept {
    return Status{agr_policy_set_mode(get(), component, mode, nullptr)};
  }

  agr_policy_snapshot snapshot() const noexcept {
    agr_policy_snapshot value{};
    value.struct_size = sizeof value;
    (void)agr_policy_snapshot_read(get(), &value, nullptr);
    return value;
  }

  Status set_fallback(int32_t fallback) noexcept {
    return Status{agr_policy_set_fallback(get(), fallback, nullptr)};
  }

  /// The next event after the cursor (0 at first), which moves on.
  std::optional<agr_event> next_event(uint64_t& cursor) const noexcept {
    agr_event event{};
    event.struct_size = sizeof event;
    if (agr_policy_next_event(get(), &cursor, &event, nullptr, nullptr) != AGR_OK) return {};
    return event;
  }

  agr_policy* get() const noexcept { return handle_.get(); }

 private:
  explicit Policy(agr_policy* policy) noexcept : handle_(policy) {}
  detail::Handle<agr_policy, agr_policy_destroy> handle_;
};

}  // namespace agr

#endif
