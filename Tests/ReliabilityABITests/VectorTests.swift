import CAutoGLMReliability
import Foundation
import ReliabilityABI
import Testing

/// The golden vectors of `Tests/vectors`, through the C entry points.
@Suite struct VectorTests {
  typealias JSON = [String: Any]

  private func cases(_ name: String) throws -> [JSON] {
    let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("vectors")
    let data = try Data(contentsOf: directory.appendingPathComponent(name + ".json"))
    let file = try #require(try JSONSerialization.jsonObject(with: data) as? JSON)
    let cases = try #require(file["cases"] as? [JSON])
    #expect(!cases.isEmpty)
    return cases
  }

  @Test func backoff() throws {
    for (index, one) in try cases("backoff").enumerated() {
      var config = agr_backoff_config()
      agr_backoff_config_init(&config, UInt32(MemoryLayout<agr_backoff_config>.size))
      let fields = try #require(one["config"] as? JSON)
      config.strategy = Int32(int(fields["strategy"]))
      config.jitter = Int32(int(fields["jitter"]))
      config.max_attempts = UInt32(int(fields["max_attempts"]))
      config.base_delay_ns = int(fields["base_delay_ns"])
      config.max_delay_ns = int(fields["max_delay_ns"])
      config.min_delay_ns = int(fields["min_delay_ns"])
      config.fast_success_ns = int(fields["fast_success_ns"])
      config.multiplier = double(fields["multiplier"])
      config.jitter_ratio = double(fields["jitter_ratio"])
      var delay: Int64 = -1
      let status = agr_backoff_delay(
        &config, UInt32(int(one["attempt"])), int(one["previous_ns"]), hex(one["random"]), &delay,
        nil)
      #expect(status == Int32(int(one["status"])), "case \(index)")
      #expect(abs(delay - int(one["delay_ns"])) <= 2, "case \(index)")
    }
  }

  @Test func hints() throws {
    for (index, one) in try cases("hints").enumerated() {
      let text = try #require(one["text"] as? String)
      var delay: Int64 = -1
      let status = agr_hint_parse(
        Int32(int(one["kind"])), text, text.utf8.count, int(one["wall_now_ns"]), &delay, nil)
      #expect(status == Int32(int(one["status"])), "case \(index): \(text)")
      #expect(delay == int(one["delay_ns"]), "case \(index): \(text)")
    }
  }

  @Test func classify() throws {
    for one in try cases("classify") {
      var rule = agr_retry_rule()
      let code = Int32(int(one["code"]))
      let status = agr_retry_classify(nil, Int32(int(one["domain"])), code, &rule, nil)
      #expect(status == Int32(int(one["status"])), "code \(code)")
      #expect(rule.error_class == Int32(int(one["error_class"])), "code \(code)")
      #expect(rule.max_retries == UInt32(int(one["max_retries"])), "code \(code)")
      #expect(rule.first_delay_ns == int(one["first_delay_ns"]), "code \(code)")
    }
  }

  private func limiterConfig(_ fields: JSON) -> agr_limiter_config {
    var config = agr_limiter_config()
    agr_limiter_config_init(&config, UInt32(MemoryLayout<agr_limiter_config>.size))
    config.capacity = int(fields["capacity"])
    config.refill_tokens = int(fields["refill_tokens"])
    config.refill_interval_ns = int(fields["refill_interval_ns"])
    if let initial = fields["initial_tokens"] { config.initial_tokens = int(initial) }
    if let debt = fields["max_debt_tokens"] { config.max_debt_tokens = int(debt) }
    if let timeout = fields["reservation_timeout_ns"] {
      config.reservation_timeout_ns = int(timeout)
    }
    return config
  }

  @Test func limiter() throws {
    for one in try cases("limiter") {
      var config = limiterConfig(try #require(one["config"] as? JSON))
      var limiter: OpaquePointer?
      #expect(agr_limiter_create_at(&config, 0, &limiter, nil) == 0)
      defer { agr_limiter_destroy(limiter) }
      var permits: [String: UInt64] = [:]
      for (index, operation) in try #require(one["ops"] as? [JSON]).enumerated() {
        let place = Comment(rawValue: "\(one["title"] ?? ""), operation \(index)")
        let now = int(operation["now_ns"])
        let name = try #require(operation["op"] as? String)
        let permit = (operation["permit"] as? String).flatMap { permits[$0] } ?? 0
        var retryAfter: Int64 = 0
        var status: Int32 = 0
        switch name {
        case "try_acquire":
          status = agr_limiter_try_acquire_at(
            limiter, int(operation["tokens"]), now, &retryAfter, nil)
          #expect(retryAfter == int(operation["retry_after_ns"]), place)
        case "available":
          status = agr_limiter_available_at(limiter, now, &retryAfter, nil)
          #expect(retryAfter == int(operation["tokens"]), place)
        case "reserve":
          var reservation = agr_reservation()
          status = agr_limiter_reserve_at(
            limiter, int(operation["tokens"]), int(operation["max_wait_ns"]), now, &reservation,
            &retryAfter, nil)
          #expect(reservation.wait_ns == int(operation["wait_ns"]), place)
          #expect(retryAfter == int(operation["retry_after_ns"]), place)
          permits[try #require(operation["save"] as? String)] = reservation.permit
        case "cancel": status = agr_limiter_cancel_at(limiter, permit, now, nil)
        case "settle":
          status = agr_limiter_settle_at(
            limiter, permit, int(operation["actual_tokens"]), now, nil)
        case "reconfigure":
          var next = limiterConfig(try #require(operation["config"] as? JSON))
          status = agr_limiter_reconfigure_at(limiter, &next, now, nil)
        default: Issue.record("no such operation: \(name)")
        }
        #expect(status == Int32(int(operation["status"] ?? 0)), place)
      }
    }
  }

  private func breakerConfig(_ fields: JSON) -> agr_breaker_config {
    var config = agr_breaker_config()
    agr_breaker_config_init(&config, UInt32(MemoryLayout<agr_breaker_config>.size))
    for (name, value) in fields {
      switch name {
      case "window": config.window = Int32(int(value))
      case "window_calls": config.window_calls = UInt32(int(value))
      case "window_ns": config.window_ns = int(value)
      case "minimum_calls": config.minimum_calls = UInt32(int(value))
      case "consecutive_failures": config.consecutive_failures = UInt32(int(value))
      case "half_open_permits": config.half_open_permits = UInt32(int(value))
      case "half_open_successes": config.half_open_successes = UInt32(int(value))
      case "failure_rate": config.failure_rate = double(value)
      case "slow_rate": config.slow_rate = double(value)
      case "slow_call_ns": config.slow_call_ns = int(value)
      case "open_ns": config.open_ns = int(value)
      case "open_jitter": config.open_jitter = double(value)
      case "permit_timeout_ns": config.permit_timeout_ns = int(value)
      case "backpressure_fails": config.backpressure_fails = UInt32(int(value))
      case "mode": config.mode = Int32(int(value))
      default: Issue.record("no such field: \(name)")
      }
    }
    return config
  }

  @Test func breaker() throws {
    for one in try cases("breaker") {
      var config = breakerConfig(try #require(one["config"] as? JSON))
      var breaker: OpaquePointer?
      #expect(agr_breaker_create(&config, &breaker, nil) == 0)
      defer { agr_breaker_destroy(breaker) }
      var permits: [String: UInt64] = [:]
      for (index, operation) in try #require(one["ops"] as? [JSON]).enumerated() {
        let place = Comment(rawValue: "\(one["title"] ?? ""), operation \(index)")
        let now = int(operation["now_ns"])
        let name = try #require(operation["op"] as? String)
        switch name {
        case "acquire":
          var permit: UInt64 = 0
          var retryAfter: Int64 = 0
          let status = agr_breaker_acquire_at(breaker, now, &permit, &retryAfter, nil)
          #expect(status == Int32(int(operation["status"])), place)
          #expect(retryAfter == int(operation["retry_after_ns"]), place)
          permits[try #require(operation["save"] as? String)] = permit
        case "report":
          let saved = try #require(operation["permit"] as? String)
          let permit = try #require(permits[saved])
          let status = agr_breaker_report_at(
            breaker, permit, Int32(int(operation["outcome"])), int(operation["latency_ns"]), now,
            nil)
          #expect(status == Int32(int(operation["status"])), place)
        case "state":
          var state: Int32 = 0
          #expect(agr_breaker_state_at(breaker, now, &state, nil) == 0)
          #expect(state == Int32(int(operation["state"])), place)
        case "force":
          #expect(agr_breaker_force_at(breaker, Int32(int(operation["mode"])), now, nil) == 0)
        default: Issue.record("no such operation: \(name)")
        }
      }
    }
  }

  // Numbers that may not fit a double are strings.

  private func int(_ value: Any?) -> Int64 {
    if let text = value as? String { return Int64(text) ?? .min }
    return (value as? NSNumber)?.int64Value ?? .min
  }

  private func double(_ value: Any?) -> Double { (value as? NSNumber)?.doubleValue ?? .nan }

  private func hex(_ value: Any?) -> UInt64 {
    UInt64(((value as? String) ?? "").dropFirst(2), radix: 16) ?? 0
  }
}
