import Platform

/// Reservations of buckets that lie elsewhere, each with its tokens and a copy of its key.
package struct ReservationLedger: Engine, ~Copyable {
  package struct Configuration {
    package let count: Int
    package let timeout: Int64

    /// As those of a limiter.
    package init(count: Int, timeout: Int64) throws(Failure) {
      try requireReservations(count, timeout: timeout)
      self.count = count
      self.timeout = timeout
    }
  }

  /// A reservation that has ended. Whoever gets it frees the key.
  package struct Ended {
    package let tokens: Int64
    package let key: UnsafeMutableRawBufferPointer
  }

  private let marks: AtomicWords
  private let timeline: Timeline
  private let permits: PermitTable
  /// Where the keys of the permits are: an address and a length each. That of a permit which expired stays until the
  /// next takes its place.
  private let keys: AtomicWords
  private let timeout: Int64
  private let count: Int
  private let memory: Block

  package init(
    _ configuration: Configuration, _ ground: inout Ground, _ memory: consuming Block
  ) {
    marks = ground.shared.words(8)
    timeline = Timeline(marks)
    permits = PermitTable(count: configuration.count, payloadWords: 1, &ground)
    keys = ground.shared.words(configuration.count &* 2)
    timeout = configuration.timeout
    count = configuration.count
    self.memory = memory
  }

  package func begin(_ configuration: Configuration, _ beginning: Beginning) {
    timeline.begin(beginning.now)
    permits.begin(seed: beginning.seed)
  }

  package func settle(_ salt: UInt64) { permits.settle(salt) }

  /// Frees the keys, at the end.
  package func freeKeys() {
    for slot in 0..<count { platform_free(address(keys.load(slot &* 2))) }
  }

  /// A permit for tokens of a key, of which it keeps a copy; none of an empty one.
  package func open(
    _ tokens: Int64, _ key: UnsafeRawPointer?, _ length: Int, now: Int64
  ) throws(Failure) -> UInt64 {
    var copy: UnsafeMutableRawPointer?
    if let key, length > 0 {
      copy = platform_allocate_block(length)
      guard let copy else { throw .noMemory }
      memcpy(copy, key, length)
    }
    let time = timeline.read(now)
    let payload = PermitTable.Payload(UInt64(bitPattern: tokens))
    guard let permit = permits.claim(payload, expires: Time.add(time, timeout), now: time) else {
      platform_free(copy)
      throw Failure(.capacity, "max_reservations", "that many reservations are open")
    }
    // Nobody knows the permit yet.
    let slot = PermitTable.slot(of: permit)
    let old = keys.replace(slot &* 2, by: UInt64(UInt(bitPattern: copy)))
    keys.store(slot &* 2 &+ 1, UInt64(truncatingIfNeeded: length))
    platform_free(address(old))
    return permit
  }

  /// Ends a reservation; `nil` when it is stale.
  package func close(_ permit: UInt64, now: Int64) -> Ended? {
    guard let payload = permits.end(permit, now: timeline.read(now)) else { return nil }
    defer { permits.release(permit) }
    let slot = PermitTable.slot(of: permit)
    let length = Int(truncatingIfNeeded: keys.load(slot &* 2 &+ 1))
    let key = address(keys.replace(slot &* 2, by: 0))
    return Ended(
      tokens: Int64(bitPattern: payload.first),
      key: UnsafeMutableRawBufferPointer(start: key, count: key == nil ? 0 : length))
  }

  package func openCount(now: Int64) -> Int { permits.open(now: timeline.read(now)).count }

  private func address(_ word: UInt64) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: UInt(truncatingIfNeeded: word))
  }
}
