import Platform
import ReliabilityCore

// Those who joined: asking, waiting, leaving.

extension IdempotencyCache {
  /// What has become of the run that was joined.
  func poll(_ ticket: UInt64, now: Int64) throws(Failure) -> TicketAnswer {
    try look(ticket, now, sleeps: false).answer
  }

  /// As `poll`, but waits on the clock for an answer; `.inProgress` when the time runs out.
  func wait(_ ticket: UInt64, timeout: Int64) throws(Failure) -> TicketAnswer {
    try requireTimeOrForever(timeout, "timeout_ns")
    let deadline = Time.add(systemNow(), timeout)
    while true {
      let start = systemNow()
      let look = try look(ticket, start, sleeps: deadline > start)
      guard let sleep = look.sleep, case .inProgress(let remaining) = look.answer else {
        return look.answer
      }
      // The run may be lost when its lease ends, and then nobody is there to tell.
      let until = Swift.min(deadline, Time.add(start, remaining))
      waitWords.sleep(sleep.slot, sleep.word, until: until)
    }
  }

  /// What a thread that found no answer sleeps on.
  struct Sleep {
    let slot: Int
    let word: UInt32
  }

  /// Polls; without an answer it announces a sleeper under the same lock, if it is to.
  func look(
    _ ticket: UInt64, _ now: Int64, sleeps: Bool, keeps: Bool = false
  ) throws(Failure) -> (answer: TicketAnswer, sleep: Sleep?) {
    let time = try self.time(now)
    guard let number = shard(ofTicket: ticket) else { return (.stale, nil) }
    var attachment: Int32 = 0
    var sleep: Sleep?
    // Nobody can reach the descriptor any more once its ticket has ended.
    defer { IdempotencyCache.close(attachment) }
    do throws(Shortage) {
      let answer = try under(number) { shard, shared throws(Shortage) in
        let answer = try shard.poll(
          ticket, now: time, shared, attachment: &attachment, keeps: keeps)
        if sleeps, case .inProgress = answer {
          let slot = WaiterTable.slot(of: ticket)
          sleep = Sleep(slot: slot, word: waitWords.prepare(slot))
        }
        return answer
      }
      return (answer, sleep)
    } catch { throw refuse(error) }
  }

  /// Gives up a ticket; says `false` when it is stale.
  func leave(_ ticket: UInt64, now: Int64) throws(Failure) -> Bool {
    let time = try self.time(now)
    guard let number = shard(ofTicket: ticket) else { return false }
    var attachment: Int32 = 0
    var hasSleepers = false
    defer { IdempotencyCache.close(attachment) }
    let slot = WaiterTable.slot(of: ticket)
    let left = under(number) { shard, shared in
      let left = shard.leave(ticket, now: time, shared, attachment: &attachment)
      if left { hasSleepers = waitWords.change(slot) }
      return left
    }
    // A thread that waits for it in spite of this is told that it is stale.
    if hasSleepers { waitWords.wake(slot) }
    return left
  }

  /// The eventfd of a ticket, made when first asked for; `nil` when the ticket is stale.
  func descriptor(of ticket: UInt64) throws(Failure) -> Int32? {
    guard let number = shard(ofTicket: ticket) else { return nil }
    let known = under(number) { shard, shared in shard.readiness(of: ticket, shared) }
    guard let known else { return nil }
    if let descriptor = IdempotencyCache.descriptor(of: known.attachment) { return descriptor }
    let fresh = platform_eventfd_create()
    guard fresh >= 0 else {
      throw Failure(
        .system, "eventfd", "no descriptor could be made", systemError: 0 &- fresh)
    }
    // Another thread may have been faster, and the ticket may have ended.
    let settled = under(number) { shard, shared -> Int32? in
      guard let now = shard.readiness(of: ticket, shared) else { return nil }
      if let other = IdempotencyCache.descriptor(of: now.attachment) { return other }
      _ = shard.attach(fresh &+ 1, to: ticket, shared)
      if now.isReady { platform_eventfd_signal(fresh) }
      return fresh
    }
    if settled != fresh { platform_close(fresh) }
    return settled
  }

  func shard(ofTicket ticket: UInt64) -> Int? {
    let number = WaiterTable.shard(of: ticket)
    return number < shards.count ? number : nil
  }
}
