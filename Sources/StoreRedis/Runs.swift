import CAutoGLMReliability
import Platform

// Idempotency.

extension Store {
  func begin(
    _ run: borrowing agr_store_run, _ timeout: Int64, _ sink: agr_store_sink,
    _ out: UnsafeMutablePointer<agr_store_run_state>, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    guard run.result_bytes <= settings.pointee.maxResultBytes else {
      return fail(
        error, AGR_ERR_NEVER_FITS, "more than max_result_bytes", field: "result_bytes")
    }
    var call = Call(.begin, run.key, keys: 2)
    call.key(self, "run", run.key)
    call.key(self, "fence", run.key, false)
    call.argument(run.fingerprint)
    call.argument(run.owner)
    call.argument(duration: run.lease_ns)
    call.argument(duration: run.ttl_ns)
    call.argument(Int64(run.result_bytes))
    return self.run(call, timeout, error) { status, reply in
      switch status {
      case AGR_OK:
        guard fence(reply, 1) != 0 else { return garbled(error) }
        out.pointee.fence = fence(reply, 1)
        out.pointee.lost_fence = fence(reply, 2)
        out.pointee.outcome_unknown = out.pointee.lost_fence != 0 ? 1 : 0
        out.pointee.remaining_ns = reply.duration(3)
        return AGR_OK
      default: return known(status, reply, sink, out, error)
      }
    }
  }

  func read(
    _ key: agr_store_key, _ timeout: Int64, _ sink: agr_store_sink,
    _ out: UnsafeMutablePointer<agr_store_run_state>, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.read, key, keys: 1)
    call.key(self, "run", key)
    return run(call, timeout, error) { status, reply in known(status, reply, sink, out, error) }
  }

  /// What a reply says of a key that does not begin.
  private func known(
    _ status: Int, _ reply: Reply, _ sink: agr_store_sink,
    _ out: UnsafeMutablePointer<agr_store_run_state>, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    switch status {
    case AGR_MISMATCH: return AGR_MISMATCH
    case AGR_NOT_FOUND:
      out.pointee.lost_fence = fence(reply, 1)
      out.pointee.outcome_unknown = out.pointee.lost_fence != 0 ? 1 : 0
      return AGR_NOT_FOUND
    case AGR_IN_PROGRESS:
      out.pointee.fence = fence(reply, 1)
      out.pointee.remaining_ns = reply.duration(2)
      return AGR_IN_PROGRESS
    case AGR_REPLAY:
      guard let state = reply.bytes(3), state.count == 1, let result = reply.bytes(4) else { break }
      guard let room = sink.reserve?(sink.context, result.count) else {
        return fail(error, AGR_ERR_NO_MEMORY, "there is no room for the result")
      }
      if result.count > 0, let base = result.baseAddress { memcpy(room, base, result.count) }
      out.pointee.fence = fence(reply, 1)
      // The server says whole milliseconds, 0 in the last of them.
      out.pointee.remaining_ns = max(1, reply.duration(2))
      out.pointee.state = Int32(state[0] == 0x53 ? AGR_KEY_SUCCESS : AGR_KEY_FAILED)
      return AGR_REPLAY
    default: break
    }
    return garbled(error)
  }

  private func fence(_ reply: Reply, _ index: Int) -> UInt64 {
    UInt64(max(0, reply.integer(index) ?? 0))
  }

  func renew(
    _ key: agr_store_key, _ fence: UInt64, lease: Int64, ttl: Int64, _ timeout: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.renew, key, keys: 1)
    call.key(self, "run", key)
    call.argument(Int64(truncatingIfNeeded: fence))
    call.argument(duration: lease)
    call.argument(duration: ttl)
    return run(call, timeout, error) { status, _ in answer(status, or: AGR_STALE, error) }
  }

  func complete(
    _ key: agr_store_key, _ fence: UInt64, _ state: Int32, _ data: UnsafeRawPointer?,
    _ length: Int, ttl: Int64, _ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.complete, key, keys: 1)
    call.key(self, "run", key)
    call.argument(Int64(truncatingIfNeeded: fence))
    call.argument(state == Int32(AGR_KEY_SUCCESS) ? "S" : "F")
    call.argument(data, length)
    call.argument(duration: ttl)
    return run(call, timeout, error) { status, _ in
      guard status == AGR_ERR_NEVER_FITS else { return answer(status, or: AGR_STALE, error) }
      return fail(
        error, AGR_ERR_NEVER_FITS, "more than the run began with", field: "length")
    }
  }

  func giveBack(
    _ key: agr_store_key, _ fence: UInt64, isUnknown: Bool, ttl: Int64, _ timeout: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.giveBack, key, keys: 1)
    call.key(self, "run", key)
    call.argument(Int64(truncatingIfNeeded: fence))
    call.argument(isUnknown ? "1" : "0")
    call.argument(duration: ttl)
    return run(call, timeout, error) { status, _ in answer(status, or: AGR_STALE, error) }
  }
}
