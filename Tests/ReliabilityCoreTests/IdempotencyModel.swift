@testable import ReliabilityCore

/// What the cache should do, in the obvious way: a dictionary, and a look at every key each step.
struct IdempotencyModel {
  typealias Answer = IdempotencyHarness.Answer

  final class Block {
    let text: String
    let state: KeyState
    init(_ text: String, _ state: KeyState) {
      self.text = text
      self.state = state
    }
  }

  struct Key {
    var state = KeyState.processing
    var fingerprint: UInt64
    var due: Int64
    var run = 0
    var unknown = false
    var block: Block?
    var waiters: [Int] = []
  }

  struct Ticket {
    let key: String
    var block: Block?
  }

  let configuration: IdempotencyConfiguration
  var keys: [String: Key] = [:]
  var completed: [String] = []
  var tickets: [Int: Ticket] = [:]
  var pins: [Int: Block] = [:]
  /// Numbers of the last run, ticket and pin.
  var run = 0
  var ticket = 0
  var pin = 0
  var counters = IdempotencyShard.Counters()

  var bytes: Int {
    var blocks: [ObjectIdentifier: Int] = [:]
    let held = keys.values.map(\.block) + tickets.values.map(\.block) + pins.values.map { $0 }
    for case let block? in held { blocks[ObjectIdentifier(block)] = block.text.utf8.count }
    return keys.keys.reduce(0) { $0 + $1.utf8.count } + blocks.values.reduce(0, +)
  }

  mutating func remove(_ name: String) {
    keys[name] = nil
    completed.removeAll { $0 == name }
  }

  mutating func promote(_ name: String, _ now: Int64) {
    counters.promoted += 1
    keys[name]!.due = now + configuration.leaseTime
  }

  mutating func abandonRun(_ name: String, since: Int64, _ now: Int64) {
    keys[name]!.state = .pending
    keys[name]!.unknown = true
    if keys[name]!.waiters.isEmpty {
      keys[name]!.due = since + configuration.timeToLive
    } else {
      promote(name, now)
    }
  }

  /// Lets time pass for every key.
  mutating func advance(_ now: Int64) {
    for name in keys.keys.sorted() {
      while let key = keys[name], key.due <= now {
        if key.state == .processing {
          counters.leasesLost += 1
          abandonRun(name, since: key.due, now)
        } else if key.state == .pending && key.waiters.count == 1 {
          keys[name]!.due = Time.forever
        } else if key.state == .pending && key.waiters.count > 1 {
          keys[name]!.waiters.append(keys[name]!.waiters.removeFirst())
          promote(name, now)
        } else {
          remove(name)
        }
      }
    }
  }

  mutating func evict() -> Bool {
    guard configuration.evicts, let oldest = completed.first else { return false }
    remove(oldest)
    counters.evicted += 1
    return true
  }

  mutating func grant(_ name: String, _ now: Int64) -> Answer {
    run += 1
    counters.executed += 1
    keys[name]!.state = .processing
    keys[name]!.run = run
    keys[name]!.due = now + configuration.leaseTime
    return .execute(unknown: keys[name]!.unknown, expiresIn: configuration.leaseTime)
  }

  mutating func replay(_ block: Block) -> Answer {
    guard pins.count < configuration.maxPins else { return .short(.pins) }
    pin += 1
    pins[pin] = block
    counters.replayed += 1
    return .replay(block.text, block.state)
  }

  mutating func begin(_ name: String, _ fingerprint: UInt64, joins: Bool, _ now: Int64) -> Answer {
    guard let key = keys[name] else {
      while keys.count >= configuration.maxEntries {
        guard evict() else { return .short(.entries) }
      }
      while bytes + name.utf8.count > configuration.maxBytes {
        guard evict() else { return .short(.bytes) }
      }
      keys[name] = Key(fingerprint: fingerprint, due: 0)
      return grant(name, now)
    }
    if key.fingerprint != 0 && fingerprint != 0 && key.fingerprint != fingerprint {
      counters.mismatched += 1
      return .mismatch
    }
    if let block = key.block { return replay(block) }
    if key.state == .pending && (key.waiters.isEmpty || key.due == Time.forever) {
      if fingerprint != 0 { keys[name]!.fingerprint = fingerprint }
      return grant(name, now)
    }
    if joins {
      guard tickets.count < configuration.maxWaiters else { return .short(.waiters) }
      ticket += 1
      tickets[ticket] = Ticket(key: name)
      keys[name]!.waiters.append(ticket)
      counters.joined += 1
    }
    return .inProgress(key.due - now)
  }

  func isPromoted(_ ticket: Int) -> Bool {
    guard let name = tickets[ticket]?.key, let key = keys[name] else { return false }
    return key.state == .pending && key.waiters.first == ticket
  }

  func isReady(_ ticket: Int) -> Bool? {
    tickets[ticket].map { $0.block != nil || isPromoted(ticket) }
  }

  mutating func poll(_ number: Int, _ now: Int64) -> Answer {
    guard let ticket = tickets[number] else { return .stale }
    if let block = ticket.block {
      let answer = replay(block)
      if case .replay = answer { tickets[number] = nil }
      return answer
    }
    if isPromoted(number) {
      keys[ticket.key]!.waiters.removeFirst()
      tickets[number] = nil
      return grant(ticket.key, now)
    }
    return .inProgress(keys[ticket.key]!.due - now)
  }

  mutating func leave(_ number: Int, _ now: Int64) -> Answer {
    guard let ticket = tickets[number] else { return .stale }
    let wasPromoted = isPromoted(number)
    tickets[number] = nil
    guard ticket.block == nil else { return .done }
    let name = ticket.key
    keys[name]!.waiters.removeAll { $0 == number }
    if wasPromoted {
      if !keys[name]!.waiters.isEmpty {
        promote(name, now)
      } else if keys[name]!.unknown {
        keys[name]!.due = now + configuration.timeToLive
      } else {
        remove(name)
      }
    }
    return .done
  }

  private func holder(_ run: Int) -> String? {
    keys.first { $0.value.run == run && $0.value.state == .processing }?.key
  }

  mutating func complete(_ run: Int, _ text: String, _ state: KeyState, _ now: Int64) -> Answer {
    guard let name = holder(run) else {
      counters.illegal += 1
      return .stale
    }
    guard text.utf8.count <= configuration.maxBytes else { return .neverFits }
    while bytes + text.utf8.count > configuration.maxBytes {
      guard evict() else { return .short(.bytes) }
    }
    let block = Block(text, state)
    for waiter in keys[name]!.waiters { tickets[waiter]!.block = block }
    keys[name]!.waiters = []
    keys[name]!.block = block
    keys[name]!.state = state
    keys[name]!.due = now + configuration.timeToLive
    completed.append(name)
    return .done
  }

  mutating func giveBack(_ run: Int, _ now: Int64) -> Answer {
    guard let name = holder(run) else {
      counters.illegal += 1
      return .stale
    }
    if keys[name]!.unknown {
      abandonRun(name, since: now, now)
    } else if keys[name]!.waiters.isEmpty {
      remove(name)
    } else {
      keys[name]!.state = .pending
      promote(name, now)
    }
    return .done
  }

  mutating func abandon(_ run: Int, _ now: Int64) -> Answer {
    guard let name = holder(run) else {
      counters.illegal += 1
      return .stale
    }
    abandonRun(name, since: now, now)
    return .done
  }

  mutating func renew(_ run: Int, _ time: Int64, _ now: Int64) -> Answer {
    guard let name = holder(run) else { return .stale }
    keys[name]!.due = now + time
    return .done
  }

  mutating func release(_ pin: Int) -> Answer {
    pins.removeValue(forKey: pin) == nil ? .stale : .done
  }
}
