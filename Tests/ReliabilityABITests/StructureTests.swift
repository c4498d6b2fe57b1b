import CAutoGLMReliability
import ReliabilityABI
import Testing

/// Structures of earlier and later versions: each configuration, cut short and grown.
@Suite struct StructureTests {
  /// A configuration in raw memory, larger than any version, and what reads it.
  private struct Subject {
    let name: String
    let size: Int
    let fill: (UnsafeMutableRawPointer, UInt32) -> Void
    let read: (UnsafeMutableRawPointer) -> agr_status
  }

  private static func subject<T>(
    _ name: String, _ type: T.Type, _ fill: @escaping (UnsafeMutablePointer<T>, UInt32) -> Void,
    _ read: @escaping (UnsafeMutablePointer<T>) -> agr_status
  ) -> Subject {
    Subject(
      name: name, size: MemoryLayout<T>.size,
      fill: { fill($0.assumingMemoryBound(to: T.self), $1) },
      read: { read($0.assumingMemoryBound(to: T.self)) })
  }

  private let subjects = [
    subject("backoff", agr_backoff_config.self, { agr_backoff_config_init($0, $1) }) {
      var delay: Int64 = 0
      return agr_backoff_delay($0, 1, 0, 0, &delay, nil)
    },
    subject("retry", agr_retry_config.self, { agr_retry_config_init($0, $1) }) {
      var rule = agr_retry_rule()
      return agr_retry_classify($0, Int32(AGR_DOMAIN_HTTP), 503, &rule, nil)
    },
    subject("budget", agr_retry_budget_config.self, { agr_retry_budget_config_init($0, $1) }) {
      var budget: OpaquePointer?
      defer { agr_retry_budget_destroy(budget) }
      return agr_retry_budget_create($0, &budget, nil)
    },
    subject("breaker", agr_breaker_config.self, { agr_breaker_config_init($0, $1) }) {
      var breaker: OpaquePointer?
      defer { agr_breaker_destroy(breaker) }
      return agr_breaker_create($0, &breaker, nil)
    },
    subject("idempotency", agr_idempotency_config.self, { agr_idempotency_config_init($0, $1) }) {
      var cache: OpaquePointer?
      defer { agr_idempotency_destroy(cache) }
      return agr_idempotency_create($0, &cache, nil)
    },
    subject("store", agr_store_config.self, { agr_store_config_init($0, $1) }) {
      (config: UnsafeMutablePointer<agr_store_config>) in
      var store: OpaquePointer?
      defer { agr_store_destroy(store) }
      var functions = agr_store_api()
      functions.struct_size = UInt32(MemoryLayout<agr_store_api>.size)
      functions.ping = { _, _, _ in 0 }
      functions.destroy = { _ in }
      return "test".withCString { name in
        functions.name = name
        return withUnsafePointer(to: functions) { api in
          var driver = agr_store_driver(api: api, self: nil)
          return agr_store_create(&driver, config, &store, nil)
        }
      }
    },
    subject("policy", agr_policy_config.self, { agr_policy_config_init($0, $1) }) {
      var policy: OpaquePointer?
      defer { agr_policy_destroy(policy) }
      return agr_policy_create($0, &policy, nil)
    },
    subject(
      "limiter", agr_limiter_config.self,
      {
        agr_limiter_config_init($0, $1)
        if $1 > 24 { ($0.pointee.capacity, $0.pointee.refill_tokens) = (1, 1) }
      }
    ) {
      var limiter: OpaquePointer?
      defer { agr_limiter_destroy(limiter) }
      return agr_limiter_create($0, &limiter, nil)
    },
    subject(
      "keyed limiter", agr_keyed_limiter_config.self,
      {
        agr_keyed_limiter_config_init($0, $1)
        if $1 > 24 { ($0.pointee.capacity, $0.pointee.refill_tokens) = (1, 1) }
      }
    ) {
      var limiter: OpaquePointer?
      defer { agr_keyed_limiter_destroy(limiter) }
      return agr_keyed_limiter_create($0, &limiter, nil)
    },
  ]

  @Test("A shorter structure gets the defaults of what it lacks, and is not written beyond its end")
  func shorter() {
    for subject in subjects {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 16)
      defer { memory.deallocate() }
      // Buckets have no default size: below that there is nothing to make.
      let least = subject.name.hasSuffix("limiter") ? 32 : 8
      for size in stride(from: least, through: subject.size, by: 8) {
        memory.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 8192)
        subject.fill(memory, UInt32(size))
        let beyond = memory.load(fromByteOffset: size, as: UInt8.self)
        #expect(beyond == 0x5a, "\(subject.name) of \(size) bytes")
        #expect(subject.read(memory) == 0, "\(subject.name) of \(size) bytes")
      }
    }
  }

  @Test("A longer structure is accepted if the rest is zero, and refused if it is not")
  func longer() {
    for subject in subjects {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 16)
      defer { memory.deallocate() }
      for extra in [8, 64, 1024] {
        memory.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 8192)
        let size = subject.size + extra
        subject.fill(memory, UInt32(size))
        #expect(subject.read(memory) == 0, "\(subject.name) and \(extra) bytes")
        memory.storeBytes(of: 1, toByteOffset: size - 1, as: UInt8.self)
        let refused = subject.read(memory)
        #expect(refused == Int32(AGR_ERR_ARGUMENT), "\(subject.name) and \(extra) bytes")
      }
    }
  }

  @Test("A size that cannot be one is refused", arguments: [0, 4, 7, 9, 4097, 4104, UInt32.max])
  func nonsense(size: UInt32) {
    for subject in subjects {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 16)
      defer { memory.deallocate() }
      memory.initializeMemory(as: UInt8.self, repeating: 0, count: 8192)
      subject.fill(memory, UInt32(subject.size))
      memory.storeBytes(of: size, as: UInt32.self)
      #expect(subject.read(memory) == Int32(AGR_ERR_ARGUMENT), "\(subject.name)")
    }
  }
}
