public import CAutoGLMReliability
import Platform
import ReliabilityCore

@implementation @_cdecl("agr_policy_execute")
public func agr_policy_execute(
  _ policy: OpaquePointer?, _ request: UnsafePointer<agr_request>?, _ attempt: agr_attempt_fn?,
  _ user_data: UnsafeMutableRawPointer?, _ out_call: UnsafeMutablePointer<OpaquePointer?>?,
  _ out_step: UnsafeMutablePointer<agr_step>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    out_call?.pointee = nil
    let out = try checkOutput(out_step, "out_step")
    guard let attempt else { throw .argument("attempt", "must not be NULL") }
    let policy = try policyHandle(policy)
    let call = try withRequest(request) { (request) throws(Failure) in
      try Policy.begin(policy, request, now: now())
    }
    var step = agr_step()
    step.struct_size = UInt32(MemoryLayout<agr_step>.size)
    do throws(Failure) {
      while call.pointee.phase != .done {
        write(call, &step)
        if call.pointee.phase == .attempting {
          var outcome = outcomeDefaults()
          outcome.error_class = ErrorClass.transient.rawValue
          outcome.attempt_id = step.attempt_id
          attempt(&step, &outcome, user_data)
          // The structure is this function's own: it cannot have become longer.
          guard outcome.struct_size <= UInt32(MemoryLayout<agr_outcome>.size) else {
            throw .argument("struct_size", "must be the sizeof of the structure")
          }
          let source = try readStructure(&outcome, defaults: outcomeDefaults(), "outcome")
          let concluded = try policy.pointee.readOutcome(source)
          call.pointee.advance(to: now())
          policy.pointee.conclude(call, concluded)
        } else {
          sleep(step)
          call.pointee.advance(to: now())
          policy.pointee.resume(call)
        }
      }
    } catch {
      // The function gave an outcome that is none: the call cannot go on.
      Policy.destroy(call, now: now())
      throw error
    }
    write(call, out)
    guard let out_call else {
      Policy.destroy(call, now: now())
      step = agr_step()
      step.struct_size = out.pointee.struct_size
      memcpy(&step, out, min(Int(step.struct_size), MemoryLayout<agr_step>.size))
      step.result = nil
      step.result_length = 0
      writeStructure(step, to: out)
      return AGR_OK
    }
    out_call.pointee = pooledPointer(call)
    return AGR_OK
  }
}

/// Waits as a step says: for the time, or for the descriptor of a joined run.
private func sleep(_ step: agr_step) {
  if step.kind == StepKind.join.rawValue && step.fd >= 0 {
    platform_wait_readable(step.fd, Time.add(systemNow(), step.wait_ns))
  } else {
    platform_sleep_until_ns(Time.add(systemNow(), step.wait_ns))
  }
}
