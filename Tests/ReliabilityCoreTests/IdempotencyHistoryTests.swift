import Testing

@testable import ReliabilityCore

/// Random histories: whatever the order of calls, the cache does what the model does.
@Suite struct IdempotencyHistoryTests {
  typealias Answer = IdempotencyHarness.Answer

  /// Ids of the cache by the model's numbers; the last few, stale ones among them.
  private struct Ids {
    var known: [(number: Int, id: UInt64)] = []

    mutating func add(_ number: Int, _ id: UInt64) {
      known.append((number, id))
      if known.count > 24 { known.removeFirst() }
    }

    func any(_ random: UInt64) -> (number: Int, id: UInt64) {
      known.isEmpty ? (-1, random) : known[Int(random % UInt64(known.count))]
    }
  }

  @Test(
    arguments: [
      (0x1d_e301, false, 1 << 20), (0x1d_e302, true, 1 << 20), (0x1d_e303, false, 60),
      (0x1d_e304, true, 60),
    ] as [(UInt64, Bool, Int)])
  func theCacheDoesWhatTheModelDoes(_ seed: UInt64, _ evicts: Bool, _ maxBytes: Int) {
    let configuration = IdempotencyHarness.configuration(
      entries: 5, bytes: maxBytes, waiters: 6, pins: 6, evicts: evicts, ttl: 300, lease: 40)
    let cache = IdempotencyHarness(configuration, seed: seed)
    var model = IdempotencyModel(configuration: configuration)
    var stream = SplitMix64(seed: seed)
    var (leases, tickets, pins) = (Ids(), Ids(), Ids())
    var now: Int64 = 0
    var fence: UInt64 = 0
    var seen: [String: Int] = [:]

    for step in 0..<20_000 {
      func pick(_ bound: UInt64) -> UInt64 { stream.next() % bound }
      if pick(3) == 0 { now += Int64(pick(pick(20) == 0 ? 400 : 20)) }
      cache.doAllChores(now)
      model.advance(now)
      let key = "key" + String(repeating: "x", count: Int(pick(8)))
      let text = String(repeating: "r", count: Int(pick(maxBytes == 60 ? 70 : 20)))
      let what: String
      let got: Answer
      let expected: Answer
      switch pick(16) {
      case 0...2:
        let print = pick(8) == 0 ? pick(3) : 0
        what = "begin \(key)"
        got = cache.begin(key, fingerprint: print, now)
        expected = model.begin(key, print, joins: false, now)
      case 3...5:
        let print = pick(8) == 0 ? pick(3) : 0
        what = "join \(key)"
        let before = model.ticket
        got = cache.join(key, fingerprint: print, now)
        expected = model.begin(key, print, joins: true, now)
        if model.ticket != before { tickets.add(model.ticket, cache.ticket) }
      case 6...8:
        let ticket = tickets.any(stream.next())
        what = "poll \(ticket.number)"
        got = cache.poll(ticket.id, now)
        expected = model.poll(ticket.number, now)
      case 9:
        let ticket = tickets.any(stream.next())
        what = "leave \(ticket.number)"
        got = cache.leave(ticket.id, now)
        expected = model.leave(ticket.number, now)
      case 10, 11:
        let lease = leases.any(stream.next())
        let state: KeyState = pick(4) == 0 ? .failed : .success
        what = "complete \(lease.number)"
        got = cache.complete(lease.id, text, now, state: state)
        expected = model.complete(lease.number, text, state, now)
      case 12:
        let lease = leases.any(stream.next())
        what = "give back \(lease.number)"
        got = cache.giveBack(lease.id, now)
        expected = model.giveBack(lease.number, now)
      case 13:
        let lease = leases.any(stream.next())
        what = "abandon \(lease.number)"
        got = cache.abandon(lease.id, now)
        expected = model.abandon(lease.number, now)
      case 14:
        let lease = leases.any(stream.next())
        let time = Int64(pick(100)) + 1
        what = "renew \(lease.number)"
        got = cache.renew(lease.id, time, now)
        expected = model.renew(lease.number, time, now)
      default:
        let pin = pins.any(stream.next())
        what = "release \(pin.number)"
        got = cache.release(pin.id)
        expected = model.release(pin.number)
      }
      if case .execute = expected { leases.add(model.run, cache.lease) }
      if case .replay = expected { pins.add(model.pin, cache.pin) }
      let kind = String(describing: expected).split(separator: "(")[0]
      seen["\(what.prefix(4)) \(kind)", default: 0] += 1
      _ = cache.takeChanges()

      let place: Comment = "seed \(seed), step \(step), now \(now): \(what)"
      #expect(got == expected, place)
      if case .execute = got {
        #expect(cache.fence > fence, place)
        fence = cache.fence
      }
      let counts = [cache.entries, cache.bytes, cache.waiters, cache.pins]
      let modelCounts = [model.keys.count, model.bytes, model.tickets.count, model.pins.count]
      #expect(counts == modelCounts, place)
      for ticket in tickets.known {
        #expect(cache.isReady(ticket.id) == model.isReady(ticket.number), place)
      }
      #expect(Self.list(cache.counters) == Self.list(model.counters), place)
      // One difference makes all that follow: the first is the one to read.
      if got != expected || counts != modelCounts { return }
    }
    #expect(seen.count > 20, "seed \(seed): the history is too poor: \(seen)")
  }

  private static func list(_ counters: IdempotencyShard.Counters) -> [UInt64] {
    [
      counters.executed, counters.replayed, counters.joined, counters.promoted,
      counters.leasesLost, counters.mismatched, counters.evicted, counters.illegal,
    ]
  }
}
