import ReliabilityCore
import Testing

/// State in a block that is as large as it must be, as processes share it: the address sanitizer sees what goes beyond.
private struct Shared<Object: SharedEngine & ~Copyable>: ~Copyable {
  let state: Block
  let process: Block
  let configuration: Object.Configuration
  let words: Int

  init(_ configuration: Object.Configuration) throws {
    let words = Object.bytes(configuration) / 8
    let state = try Block(bytes: words * 8)
    let process = try Block(words: 1)
    process.words.store(0, 12345)
    self.configuration = configuration
    self.words = words
    self.state = state
    self.process = process
  }

  func view() throws -> Object {
    let object = try Object.sharing(configuration, at: state.start, process: process.words)
    object.begin(configuration, Beginning(seed: 7, now: Time.second))
    return object
  }
}

private func limits(_ capacity: Int64 = 100, reservations: Int = 4) throws -> Limiter.Configuration
{
  try Limiter.Configuration(
    rate: TokenRate(capacity: capacity, maxDebt: -1, tokens: 10, interval: Time.second),
    initial: -1, maxReservations: reservations, reservationTimeout: Time.minute, observe: false)
}

private func keys() throws -> KeyedLimiter.Configuration {
  try KeyedLimiter.Configuration(
    rate: KeyedRate(capacity: 100, maxDebt: -1, tokens: 10, interval: Time.second), maxKeys: 16,
    maxReservations: 4, reservationTimeout: Time.minute, evict: false, maxKeyBytes: 64,
    observe: false)
}

private func breaking(_ window: BreakerConfiguration.Window = .count) -> BreakerConfiguration {
  var configuration = BreakerConfiguration()
  configuration.window = window
  configuration.maxPermits = 8
  configuration.minimumCalls = 3
  return configuration
}

@Suite("State that processes share")
struct RegionTests {
  /// What lies in a region is part of its format. Whoever changes a size here raises RegionHeader's version.
  @Test("The layout is that of the format's version")
  func sizes() throws {
    let sizes = try [
      Limiter.bytes(limits()), KeyedLimiter.bytes(keys()), Breaker.bytes(breaking()),
    ]
    #expect(sizes == [2368, 2944, 5312])
    let budget = try RetryBudget.Configuration(minPerSecond: 1, ratio: 0, quota: 1, initial: 0)
    #expect(RetryBudget.bytes(budget) == 2176)
    #expect(RegionDirectory.dataStart(entries: 64) == 49152)
  }

  @Test("What has begun stays as it is when it is begun again")
  func beginsOnce() throws {
    let shared = try Shared<Limiter>(limits())
    let one = try shared.view()
    let reservation = try one.reserve(60, maxWait: 0, now: Time.second)
    guard case .granted(let granted) = reservation else {
      Issue.record("not granted")
      return
    }
    let other = try shared.view()
    #expect(try other.available(now: Time.second) == 40)
    #expect(try other.cancel(granted.permit, now: Time.second))
    #expect(try one.available(now: Time.second) == 100)
    let upstream = try Shared<Breaker>(breaking())
    try upstream.view().force(.forcedOpen, now: Time.second)
    #expect(try upstream.view().state(now: Time.second) == .open)
  }

  @Test("Words that nobody wrote make answers wrong, and nothing worse", arguments: 0..<200)
  func damage(seed: Int) throws {
    var stream = SplitMix64(seed: UInt64(seed))
    let limiter = try Shared<Limiter>(limits())
    let keyed = try Shared<KeyedLimiter>(keys())
    let counting = try Shared<Breaker>(breaking())
    let timing = try Shared<Breaker>(breaking(.time))
    for _ in 0..<40 {
      scribble(limiter.state.words, limiter.words, &stream)
      scribble(keyed.state.words, keyed.words, &stream)
      scribble(counting.state.words, counting.words, &stream)
      scribble(timing.state.words, timing.words, &stream)
      let now = Int64(truncatingIfNeeded: stream.next() % 1000) * Time.second
      try use(limiter.view(), now, &stream)
      try use(keyed.view(), now, &stream)
      try use(counting.view(), now, &stream)
      try use(timing.view(), now, &stream)
    }
  }

  private func scribble(_ words: AtomicWords, _ count: Int, _ stream: inout SplitMix64) {
    for _ in 0..<Int(stream.next() % 12) {
      let index = Int(stream.next() % UInt64(count))
      let values = [
        stream.next(), 0, .max, 1 << (stream.next() % 64), words.load(index) &+ 1,
        words.load(index) &- 1, ~words.load(index), stream.next() % 64,
      ]
      words.store(index, values[Int(stream.next() % 8)])
    }
  }

  private func use(
    _ limiter: consuming Limiter, _ now: Int64, _ stream: inout SplitMix64
  ) throws {
    for _ in 0..<4 {
      _ = try? limiter.tryAcquire(Int64(stream.next() % 120), now: now)
      if case .granted(let granted)? = try? limiter.reserve(
        Int64(stream.next() % 120), maxWait: Time.second, now: now)
      {
        _ = try limiter.settle(granted.permit, actual: Int64(stream.next() % 200), now: now)
      }
      _ = try limiter.settle(stream.next(), actual: 0, now: now)
      try? limiter.reconfigure(limits(1 + Int64(stream.next() % 100)), now: now)
      _ = try limiter.available(now: now)
      _ = limiter.openReservations(now: now)
    }
  }

  private func use(
    _ limiter: consuming KeyedLimiter, _ now: Int64, _ stream: inout SplitMix64
  ) throws {
    for _ in 0..<4 {
      var key = stream.next() % 8
      let tag = try limiter.tag(&key, 8)
      _ = try? limiter.tryAcquire(tag, Int64(stream.next() % 100), now: now)
      if case .granted(let granted)? = try? limiter.reserve(
        tag, Int64(stream.next() % 100), maxWait: Time.second, now: now)
      {
        _ = try? limiter.settle(granted.permit, actual: Int64(stream.next() % 200), now: now)
      }
      _ = try? limiter.settle(stream.next(), actual: 0, now: now)
      try? limiter.reconfigure(keys())
      _ = try limiter.available(tag, now: now)
      _ = limiter.busyKeys(now: now)
    }
  }

  private func use(
    _ breaker: consuming Breaker, _ now: Int64, _ stream: inout SplitMix64
  ) throws {
    var cursor = stream.next()
    var lost: UInt64 = 0
    for _ in 0..<4 {
      if case .admitted(let permit)? = try? breaker.acquire(now: now) {
        let outcome: CallOutcome = stream.next() % 2 == 0 ? .failure : .success
        _ = try breaker.report(permit, outcome, latency: 1, now: now) { 1 }
      }
      _ = try breaker.report(stream.next(), .failure, latency: 1, now: now) { 1 }
      _ = try breaker.snapshot(now: now)
      for _ in 0..<70 where breaker.nextEvent(cursor: &cursor, lost: &lost) == nil { break }
      try breaker.force(stream.next() % 2 == 0 ? .automatic : .forcedOpen, now: now)
    }
  }

  @Test("A claim of an entry that was left half done is taken over")
  func takesOver() throws {
    let memory = try Block(bytes: 1 << 16)
    let words = memory.words
    let directory = RegionDirectory(words, entries: 4, bytes: 1 << 16)
    let record = try ObjectRecord(
      name: ObjectName("name", "name"), kind: 1, bytes: 640,
      beginning: Beginning(seed: 1, now: 2), hashSeed: 3, fields: InlineArray(repeating: 4))
    let state = RegionHeader.bytes / 8
    // The first claim of the first entry, and one word of its record.
    words.store(state, 1 << 2 | 1)
    words.store(state + 8, 99)
    words.store(state + 9, 1)
    guard case .busy(let seen) = try directory.find(record, abandoned: nil) else {
      Issue.record("it is not busy")
      return
    }
    #expect(seen == 1 << 2 | 1)
    guard case .found(let place) = try directory.find(record, abandoned: seen) else {
      Issue.record("it is not taken over")
      return
    }
    #expect(place.entry == 0 && place.offset == RegionDirectory.dataStart(entries: 4))
    guard case .found(let again) = try directory.find(record, abandoned: nil) else {
      Issue.record("it is not found")
      return
    }
    #expect(again.record.name == record.name && again.record.fields[19] == 4)
    // The late writer of the first claim would find a later number beside every word.
    for pair in 0..<34 { #expect(words.load(state + 8 + 2 * pair + 1) == 2) }
  }

  @Test("A record of events that was never finished is lost, and does not stop its readers")
  func unfinishedEvent() throws {
    let memory = try Block(words: EventRing.wordCount(capacity: 8, recordWords: 1))
    let ring = EventRing(capacity: 8, recordWords: 1, memory.words)
    let record: InlineArray<1, UInt64> = [1]
    ring.append(record)
    // The second one's writer ended with the number odd.
    memory.words.store(0, 2)
    memory.words.store(8 + 2, 1 * 2 + 1)
    for _ in 0..<5 { ring.append(record) }
    var cursor: UInt64 = 0
    var lost: UInt64 = 0
    var read = 0
    while ring.next(cursor: &cursor, lost: &lost, { _, _ in }) { read += 1 }
    #expect(read == 6 && lost == 1)
    // Its place is used again two laps later.
    for _ in 0..<16 { ring.append(record) }
    read = 0
    lost = 0
    while ring.next(cursor: &cursor, lost: &lost, { _, _ in }) { read += 1 }
    #expect(read == 8)
  }

  @Test("A permit that was being taken comes back a time-out after the table was full")
  func lostClaim() throws {
    let shared = try Shared<Limiter>(limits(reservations: 2))
    let limiter = try shared.view()
    let now = Time.second
    _ = try limiter.reserve(0, maxWait: 0, now: now)
    // The tag of whatever slot is out says that it is only being claimed.
    var claimed = 0
    for index in 0..<shared.words where claimed == 0 {
      let word = shared.state.words.load(index)
      let expires = index + 1 < shared.words ? shared.state.words.load(index + 1) : 0
      if word & 3 == 2 && expires == UInt64(now + Time.minute) {
        shared.state.words.store(index, word & ~3 | 1)
        claimed += 1
      }
    }
    #expect(claimed == 1)
    let later = now + 2 * Time.minute
    func held(_ now: Int64) throws -> Int {
      var permits: [UInt64] = []
      while case .granted(let granted)? = try? limiter.reserve(0, maxWait: 0, now: now) {
        permits.append(granted.permit)
      }
      for permit in permits { _ = try limiter.cancel(permit, now: now) }
      return permits.count
    }
    #expect(try held(later) == 1)
    #expect(try held(later + Time.minute - 1) == 1)
    // The call that finds it gone frees it for the next.
    _ = try held(later + Time.minute)
    #expect(try held(later + Time.minute) == 2)
  }
}
