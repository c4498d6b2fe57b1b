import CAutoGLMReliability
import Testing

/// Whatever is given, the answer is a status, and an error names the argument.
@Suite struct IdempotencyArgumentTests {
  private func failure(_ call: (UnsafeMutablePointer<agr_error>) -> agr_status) -> String {
    var error = agr_error()
    let status = call(&error)
    #expect(Int(status) == AGR_ERR_ARGUMENT && error.status == status)
    #expect(!text(of: error.message).isEmpty)
    return text(of: error.field)
  }

  @Test func aBadFieldIsNamed() {
    let cases: [(String, (inout agr_idempotency_config) -> Void)] = [
      ("max_entries", { $0.max_entries = 0 }), ("max_entries", { $0.max_entries = .max }),
      ("max_bytes", { $0.max_bytes = 0 }), ("max_bytes", { $0.max_bytes = .max }),
      ("max_key_bytes", { $0.max_key_bytes = 0 }), ("max_waiters", { $0.max_waiters = .max }),
      ("max_pins", { $0.max_pins = 0 }), ("when_full", { $0.when_full = 2 }),
      ("on_failure", { $0.on_failure = -1 }), ("reserved", { $0.reserved = 1 }),
      ("ttl_ns", { $0.ttl_ns = 0 }), ("ttl_ns", { $0.ttl_ns = .min }),
      ("lease_ns", { $0.lease_ns = .max }), ("struct_size", { $0.struct_size = 3 }),
    ]
    for (field, change) in cases {
      var config = CCache.configuration(change)
      var made: OpaquePointer?
      #expect(failure { agr_idempotency_create(&config, &made, $0) } == field)
      #expect(made == nil)
    }
  }

  @Test func aPrefixOfTheStructureIsEnough() {
    var config = CCache.configuration { $0.max_bytes = 0 }
    config.struct_size = 8
    var made: OpaquePointer?
    #expect(Int(agr_idempotency_create(&config, &made, nil)) == AGR_OK)
    agr_idempotency_destroy(made)
    #expect(failure { agr_idempotency_create(nil, &made, $0) } == "config")
    #expect(failure { agr_idempotency_create(&config, nil, $0) } == "out_cache")
    agr_idempotency_destroy(nil)
    agr_idempotency_config_init(nil, 0)
  }

  @Test func keysAndFingerprintsAreChecked() {
    let cache = CCache { $0.max_key_bytes = 4 }
    var (lease, result) = (agr_lease(), agr_result())
    func begin(_ key: String?, _ length: Int, _ print: String?, _ printLength: Int) -> String {
      failure {
        agr_idempotency_begin_at(
          cache.handle, key, length, print, printLength, 0, &lease, &result, $0)
      }
    }
    #expect(begin(nil, 1, nil, 0) == "key")
    #expect(begin("", 0, nil, 0) == "key_length")
    #expect(begin("12345", 5, nil, 0) == "key_length")
    #expect(begin("1", -1, nil, 0) == "key_length")
    #expect(begin("1", .max, nil, 0) == "key_length")
    #expect(begin("1", 1, nil, 1) == "fingerprint")
    #expect(begin("1", 1, "", (1 << 30) + 1) == "fingerprint_length")
    #expect(begin("1", 1, "", .min) == "fingerprint_length")
    #expect(cache.snapshot.entries == 0)
    #expect(cache.begin("1234", 0).status == AGR_OK)
    #expect(cache.begin("1", -1).field == "now_ns")
    #expect(cache.begin("1", .max).field == "now_ns")
    #expect(cache.begin("1", (1 << 62) - 1).status == AGR_OK)
  }

  @Test func outputsAndHandlesAreChecked() {
    let cache = CCache()
    var (lease, result, ticket) = (agr_lease(), agr_result(), UInt64(0))
    var (state, fd) = (Int32(0), Int32(0))
    let h = cache.handle
    #expect(failure { agr_idempotency_begin(h, "a", 1, nil, 0, nil, &result, $0) } == "out_lease")
    #expect(failure { agr_idempotency_begin(h, "a", 1, nil, 0, &lease, nil, $0) } == "out_result")
    #expect(
      failure { agr_idempotency_join(h, "a", 1, nil, 0, nil, &lease, &result, $0) } == "out_ticket")
    #expect(failure { agr_idempotency_poll(h, 1, nil, &result, $0) } == "out_lease")
    #expect(failure { agr_idempotency_wait(h, 1, 0, &lease, nil, $0) } == "out_result")
    #expect(failure { agr_idempotency_ticket_fd(h, 1, nil, $0) } == "out_fd")
    #expect(failure { agr_idempotency_state(h, "a", 1, nil, $0) } == "out_state")
    #expect(failure { agr_idempotency_complete(h, 1, nil, 1, $0) } == "data")
    #expect(failure { agr_idempotency_fail(h, 1, nil, 1, $0) } == "data")
    #expect(failure { agr_idempotency_snapshot_read(h, nil, $0) } == "out_snapshot")
    #expect(failure { agr_idempotency_begin(nil, "a", 1, nil, 0, &lease, &result, $0) } == "cache")
    #expect(
      failure { agr_idempotency_join(nil, "a", 1, nil, 0, &ticket, &lease, &result, $0) }
        == "cache")
    #expect(failure { agr_idempotency_poll(nil, 1, &lease, &result, $0) } == "cache")
    #expect(failure { agr_idempotency_wait(nil, 1, 0, &lease, &result, $0) } == "cache")
    #expect(failure { agr_idempotency_ticket_fd(nil, 1, &fd, $0) } == "cache")
    #expect(failure { agr_idempotency_leave(nil, 1, $0) } == "cache")
    #expect(failure { agr_idempotency_complete(nil, 1, nil, 0, $0) } == "cache")
    #expect(failure { agr_idempotency_fail(nil, 1, nil, 0, $0) } == "cache")
    #expect(failure { agr_idempotency_abandon(nil, 1, $0) } == "cache")
    #expect(failure { agr_idempotency_renew(nil, 1, 0, $0) } == "cache")
    #expect(failure { agr_idempotency_release(nil, 1, $0) } == "cache")
    #expect(failure { agr_idempotency_state(nil, "a", 1, &state, $0) } == "cache")
    #expect(cache.snapshot.entries == 0)
  }

  @Test func hugeLengthsOfResultsNeverFit() {
    let cache = CCache()
    let lease = cache.begin("key", 0).lease
    for length in [Int.max, -1, Int.min, (64 << 20) + 1] {
      let status = agr_idempotency_complete_at(cache.handle, lease, "x", length, 1, nil)
      #expect(Int(status) == AGR_ERR_NEVER_FITS)
    }
    #expect(cache.complete(lease, "fits", 1) == AGR_OK)
  }

  @Test func idsFromNowhereAreStale() {
    let cache = CCache()
    for id in [UInt64(0), 1, .max, 1 << 60, 5 << 60, 0xffff_ffff] {
      #expect(cache.complete(id, "", 0) == AGR_STALE)
      #expect(cache.fail(id, "", 0) == AGR_STALE)
      #expect(cache.abandon(id, 0) == AGR_STALE)
      #expect(cache.renew(id, 0, 0) == AGR_STALE)
      #expect(cache.poll(id, 0).status == AGR_STALE)
      #expect(cache.wait(id, 0).status == AGR_STALE)
      #expect(cache.leave(id, 0) == AGR_STALE)
      #expect(cache.release(id) == AGR_STALE)
      #expect(cache.descriptor(id) == (AGR_STALE, -1))
    }
  }
}
