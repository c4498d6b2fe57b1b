import CAutoGLMReliability
import ReliabilityABI
import Testing

/// Requests and tokens per minute, taken as one.
@Suite struct LimiterDemandTests {
  private func limiter(_ capacity: Int64, perSecond: Int64) -> OpaquePointer? {
    var config = agr_limiter_config()
    agr_limiter_config_init(&config, UInt32(MemoryLayout<agr_limiter_config>.size))
    config.capacity = capacity
    config.refill_tokens = perSecond
    config.max_reservations = 2
    var limiter: OpaquePointer?
    #expect(agr_limiter_create_at(&config, 0, &limiter, nil) == 0)
    return limiter
  }

  private func available(_ limiter: OpaquePointer?) -> Int64 {
    var tokens: Int64 = .min
    #expect(agr_limiter_available_at(limiter, 0, &tokens, nil) == 0)
    return tokens
  }

  @Test("All are taken, or none; the one that takes longest is named")
  func allOrNone() {
    let requests = limiter(10, perSecond: 10)
    let tokens = limiter(1_000, perSecond: 100)
    let money = limiter(5, perSecond: 1)
    defer { for one in [requests, tokens, money] { agr_limiter_destroy(one) } }
    var index: UInt32 = 0
    var retryAfter: Int64 = 0
    var demands = [
      agr_limiter_demand(limiter: requests, tokens: 1),
      agr_limiter_demand(limiter: tokens, tokens: 800),
      agr_limiter_demand(limiter: money, tokens: 3),
    ]
    #expect(agr_limiter_try_acquire_all_at(&demands, 3, 0, &index, &retryAfter, nil) == 0)
    #expect(index == 3 && retryAfter == 0)
    #expect(
      agr_limiter_try_acquire_all_at(&demands, 3, 0, &index, &retryAfter, nil)
        == Int32(AGR_LIMITED))
    #expect(index == 1 && retryAfter == 6_000_000_000)
    #expect(available(requests) == 9)
    #expect(available(tokens) == 200)
    #expect(available(money) == 2)
    demands[2].tokens = 6
    #expect(
      agr_limiter_try_acquire_all_at(&demands, 3, 0, &index, &retryAfter, nil)
        == Int32(AGR_ERR_NEVER_FITS))
    #expect(index == 2)
    #expect(available(requests) == 9)
  }

  @Test("Reservations too: what was reserved goes back when a later one is refused, or fails")
  func reserveAll() {
    let requests = limiter(10, perSecond: 10)
    let tokens = limiter(1_000, perSecond: 100)
    defer { for one in [requests, tokens] { agr_limiter_destroy(one) } }
    var demands = [
      agr_limiter_demand(limiter: requests, tokens: 1),
      agr_limiter_demand(limiter: tokens, tokens: 800),
    ]
    var reservations = [agr_reservation](repeating: agr_reservation(), count: 2)
    var index: UInt32 = 0
    var retryAfter: Int64 = 0
    let wait: Int64 = 7_000_000_000
    #expect(
      agr_limiter_reserve_all_at(&demands, 2, wait, 0, &reservations, &index, &retryAfter, nil) == 0
    )
    #expect(
      agr_limiter_reserve_all_at(&demands, 2, wait, 0, &reservations, &index, &retryAfter, nil) == 0
    )
    #expect(reservations[0].wait_ns == 0 && reservations[1].wait_ns == 6_000_000_000)
    let held = reservations
    #expect(
      agr_limiter_reserve_all_at(&demands, 2, wait, 0, &reservations, &index, &retryAfter, nil)
        == Int32(AGR_ERR_CAPACITY))
    #expect(reservations[0].permit == 0 && reservations[1].permit == 0)
    #expect(available(requests) == 8)
    for (limiter, reservation) in zip([requests, tokens], held) {
      #expect(agr_limiter_cancel_at(limiter, reservation.permit, 0, nil) == 0)
    }
    #expect(
      agr_limiter_reserve_all_at(&demands, 2, 0, 0, &reservations, &index, &retryAfter, nil)
        == Int32(AGR_LIMITED))
    #expect(index == 1 && reservations[0].permit == 0)
    #expect(available(requests) == 9)
  }

  @Test("A reservation that was granted behind a refusal is given back at once")
  func behindARefusal() {
    let empty = limiter(10, perSecond: 10)
    let full = limiter(10, perSecond: 10)
    defer { for one in [empty, full] { agr_limiter_destroy(one) } }
    #expect(agr_limiter_try_acquire_at(empty, 10, 0, nil, nil) == 0)
    var demands = [
      agr_limiter_demand(limiter: empty, tokens: 5), agr_limiter_demand(limiter: full, tokens: 3),
    ]
    var reservations = [agr_reservation](repeating: agr_reservation(), count: 2)
    var index: UInt32 = 9
    var retryAfter: Int64 = 0
    #expect(
      agr_limiter_reserve_all_at(&demands, 2, 0, 0, &reservations, &index, &retryAfter, nil)
        == Int32(AGR_LIMITED))
    #expect(index == 0 && retryAfter == 500_000_000)
    #expect(available(full) == 10 && reservations.allSatisfy { $0.permit == 0 })
    var snapshot = agr_limiter_snapshot()
    snapshot.struct_size = UInt32(MemoryLayout<agr_limiter_snapshot>.size)
    #expect(agr_limiter_snapshot_read_at(full, 0, &snapshot, nil) == 0)
    #expect(snapshot.open_reservations == 0)
  }

  @Test("Demands that cannot be are refused by name, and nothing is taken")
  func refused() {
    let one = limiter(10, perSecond: 10)
    defer { agr_limiter_destroy(one) }
    var error = agr_error()
    var twice = [agr_limiter_demand](
      repeating: agr_limiter_demand(limiter: one, tokens: 1), count: 5)
    for count: UInt32 in [0, 5, .max] {
      let status = agr_limiter_try_acquire_all_at(&twice, count, 0, nil, nil, &error)
      #expect(status == Int32(AGR_ERR_ARGUMENT) && text(error.field) == "count")
    }
    #expect(
      agr_limiter_try_acquire_all_at(&twice, 2, 0, nil, nil, &error) == Int32(AGR_ERR_ARGUMENT))
    #expect(text(error.field) == "demands.limiter")
    #expect(
      agr_limiter_try_acquire_all_at(nil, 1, 0, nil, nil, &error) == Int32(AGR_ERR_ARGUMENT))
    #expect(text(error.field) == "demands")
    #expect(available(one) == 10)
  }
}
