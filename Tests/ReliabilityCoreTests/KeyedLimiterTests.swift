import Testing

@testable import ReliabilityCore

private func makeKeyed(
  keys: UInt32, capacity: Int64 = 10, tokens: Int64 = 10, interval: Int64 = Time.second,
  evict: Bool = false
) throws -> KeyedLimiter {
  try KeyedLimiter(
    KeyedLimiter.Configuration(
      rate: KeyedRate(capacity: capacity, maxDebt: -1, tokens: tokens, interval: interval),
      maxKeys: keys, maxReservations: 64, reservationTimeout: Time.hour, evict: evict,
      maxKeyBytes: 64, observe: false), seed: 42, permitSeed: 1, now: 0)
}

private func tag(_ limiter: borrowing KeyedLimiter, _ key: Int) throws -> UInt64 {
  var key = key
  return try limiter.tag(&key, MemoryLayout<Int>.size)
}

private func admits(
  _ limiter: borrowing KeyedLimiter, _ key: Int, _ tokens: Int64, _ now: Int64
) throws -> Bool {
  if case .admitted = try limiter.tryAcquire(tag(limiter, key), tokens, now: now) { return true }
  return false
}

private final class KeyedBox: @unchecked Sendable {
  let limiter: KeyedLimiter
  init(_ limiter: consuming KeyedLimiter) { self.limiter = limiter }
}

@Suite struct KeyedLimiterTests {
  @Test("Every key has a bucket of its own")
  func keysAreApart() throws {
    let limiter = try makeKeyed(keys: 1_000)
    for key in 0..<1_000 {
      let first = try admits(limiter, key, 10, 0)
      let second = try admits(limiter, key, 1, 0)
      #expect(first)
      #expect(!second)
    }
    let busy = limiter.busyKeys(now: 0)
    #expect(busy == 1_000)
  }

  @Test("Against a dictionary of buckets, over random histories")
  func model() throws {
    for seed in UInt64(1)...10 {
      var random = SplitMix64(seed: seed)
      let limiter = try makeKeyed(keys: 256, capacity: 5, tokens: 5, interval: 1_000)
      var full: [Int: Int64] = [:]
      var now: Int64 = 0
      for step in 0..<20_000 {
        now += Int64(random.next() % 60)
        let key = Int(random.next() % 200)
        let want = Int64(random.next() % 6)
        let next = max(full[key] ?? 0, now) + want * 200
        let expected = next - now <= 1_000
        if expected && want > 0 { full[key] = next }
        let got = try admits(limiter, key, want, now)
        #expect(got == expected, "seed \(seed), step \(step)")
      }
    }
  }

  @Test("The memory is bounded: a full table refuses a new key, and an idle one gives its place up")
  func bounded() throws {
    let limiter = try makeKeyed(keys: 16)
    var refusedAt: Int?
    for key in 0..<1_000 where refusedAt == nil {
      do { _ = try admits(limiter, key, 10, 0) } catch { refusedAt = key }
    }
    #expect(refusedAt == limiter.slots)
    let old = try admits(limiter, 0, 1, 0)
    #expect(!old, "a key that has its place keeps it")
    for key in 2_000..<2_016 {
      let fresh = try admits(limiter, key, 10, 2 * Time.second)
      #expect(fresh, "all the old keys are idle by now")
    }
  }

  @Test("With eviction the key that has least to wait for gives way")
  func evicts() throws {
    let limiter = try makeKeyed(keys: 16, evict: true)
    for key in 0..<limiter.slots { _ = try admits(limiter, key, key == 3 ? 1 : 10, 0) }
    let fresh = try admits(limiter, 9_999, 10, 0)
    #expect(fresh)
    #expect(limiter.counters().evicted == 1)
    let evicted = try limiter.available(tag(limiter, 3), now: 0)
    let kept = try limiter.available(tag(limiter, 4), now: 0)
    #expect(evicted == 10)
    #expect(kept == 0)
  }

  @Test("Threads that bring the same new keys at once never give one of them two buckets")
  func oneBucketPerKey() async throws {
    for round in 0..<20 {
      let box = KeyedBox(try makeKeyed(keys: 64, capacity: 3))
      let admitted = await withTaskGroup(of: Int.self) { group in
        for worker in 0..<4 {
          group.addTask {
            var sum = 0
            for step in 0..<400 {
              let key = (step * (worker + 1)) % 50
              if (try? admits(box.limiter, key, 1, 0)) == true { sum += 1 }
            }
            return sum
          }
        }
        return await group.reduce(0, +)
      }
      #expect(admitted <= 150, "round \(round)")
      let busy = box.limiter.busyKeys(now: 0)
      #expect(busy <= 50, "round \(round)")
    }
  }

  @Test("A key that comes by two threads at once, into different slots, keeps one bucket")
  func confirmsOne() throws {
    let yard = try Yard()
    let table = KeyTable(count: 16, yard.pairs)
    var evicted = false
    // Small tags begin at the first slot. Another key's bucket there is full again at 100.
    _ = table.change(3, 0, evict: false, evicted: &evicted) { _ in .set(full: 100) }
    var calls = 0
    _ = table.change(5, 1_000, evict: false, evicted: &evicted) { full in
      calls += 1
      // Between this one's look and its taking the first slot, a thread whose clock is at 50 brings the
      // key too: to that one the first slot is not free, and it takes the second.
      if calls == 1 {
        var other = false
        _ = table.change(5, 50, evict: false, evicted: &other) { _ in .set(full: 5_000) }
      }
      return .set(full: max(full, 1_000) + 300)
    }
    var seen: [UInt64: [Int64]] = [:]
    table.forEach { tag, full in seen[tag, default: []].append(full) }
    #expect(seen[5] == [5_300], "one bucket, charged by both")
  }

  @Test("A cancelled reservation comes back, and an old one does not overfill")
  func reservations() throws {
    let limiter = try makeKeyed(keys: 16)
    let key = try tag(limiter, 1)
    guard case .granted(let one) = try limiter.reserve(key, 10, maxWait: 0, now: 0) else {
      Issue.record("refused")
      return
    }
    guard case .granted = try limiter.reserve(key, 10, maxWait: 0, now: Time.second) else {
      Issue.record("refused")
      return
    }
    let cancelled = try limiter.settle(one.permit, actual: 0, now: Time.second)
    let again = try limiter.settle(one.permit, actual: 0, now: Time.second)
    let left = try limiter.available(key, now: Time.second)
    #expect(cancelled)
    #expect(!again)
    #expect(left == 0, "the second burst used what the first one's refill gave")
  }

  @Test("What comes back is not held back by what others have taken, unless they wait")
  func othersBehind() throws {
    let limiter = try makeKeyed(keys: 16)
    let key = try tag(limiter, 1)
    guard case .granted(let one) = try limiter.reserve(key, 5, maxWait: 0, now: 0),
      case .granted(let two) = try limiter.reserve(key, 5, maxWait: 0, now: 0)
    else {
      Issue.record("refused")
      return
    }
    let first = try limiter.settle(one.permit, actual: 2, now: 0)
    let left = try limiter.available(key, now: 0)
    let taken = try admits(limiter, 1, 3, 0)
    guard case .granted = try limiter.reserve(key, 5, maxWait: Time.second, now: 0) else {
      Issue.record("refused")
      return
    }
    let second = try limiter.settle(two.permit, actual: 0, now: 0)
    let debt = try limiter.available(key, now: 0)
    #expect(first && taken && second)
    #expect(left == 3)
    #expect(debt == -5, "one waits behind, and keeps his wait")
  }

  @Test("What has refilled since does not come back, though others took less than it")
  func oldReservation() throws {
    let limiter = try makeKeyed(keys: 16)
    let key = try tag(limiter, 1)
    guard case .granted(let old) = try limiter.reserve(key, 10, maxWait: 0, now: 0) else {
      Issue.record("refused")
      return
    }
    let taken = try admits(limiter, 1, 5, Time.second)
    let cancelled = try limiter.settle(old.permit, actual: 0, now: Time.second)
    let left = try limiter.available(key, now: Time.second)
    #expect(taken && cancelled)
    #expect(left == 5)
  }

  @Test("SipHash-1-3 gives the reference values")
  func sipHash() {
    // CPython's hash of bytes is SipHash-1-3; with PYTHONHASHSEED=0 its key is 0. The input is 00 01 ...
    let hash = SipHash(k0: 0, k1: 0)
    let input = (0..<31).map { UInt8($0) }
    let values = [1, 7, 8, 9, 15, 16, 31].map { count in
      input.withUnsafeBytes { hash.hash($0.baseAddress, count) }
    }
    #expect(
      values == [
        0x68a9_1412_8e01_e473, 0x2f09_8ab0_c751_325a, 0xead4_11e6_7ebe_2eea,
        0x7592_7f9d_9512_4362, 0xf30e_b725_bb91_c9ea, 0x8972_1884_33a5_c5b7,
        0x1697_3944_3111_d49b,
      ])
    // And of the algorithm's description, with the key 00 01 ... 0f and no input.
    #expect(
      SipHash(k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908).hash(nil, 0)
        == 0xabac_0158_050f_c4dc)
  }
}
