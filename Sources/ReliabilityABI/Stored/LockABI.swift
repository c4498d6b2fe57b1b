public import CAutoGLMReliability
import Platform
import ReliabilityCore

private func lockDefaults() -> agr_lock_config {
  var config = agr_lock_config()
  config.struct_size = UInt32(MemoryLayout<agr_lock_config>.size)
  config.limit = 1
  config.ttl_ns = 30 * Time.second
  return config
}

private func lockHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<StoredLock> {
  try handle(pointer, .lock, "lock")
}

@implementation @_cdecl("agr_lock_config_init")
public func agr_lock_config_init(
  _ config: UnsafeMutablePointer<agr_lock_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, lockDefaults())
}

@implementation @_cdecl("agr_lock_create_in_store")
public func agr_lock_create_in_store(
  _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_lock_config>?, _ options: UnsafePointer<agr_store_options>?,
  _ out_lock: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_lock, "out_lock")
    out.pointee = nil
    let store = try storeHandle(store)
    let config = try readStructure(config, defaults: lockDefaults(), "config", optional: true)
    let options = try readStructure(
      options, defaults: storeOptionDefaults(), "options", optional: true)
    let lock = try StoredLock(
      store: store, name: SpaceName(name), limit: config.limit, time: config.ttl_ns,
      StoreOptions(options))
    out.pointee = try makeHandle(.lock, lock)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_lock_destroy")
public func agr_lock_destroy(_ lock: OpaquePointer?) {
  guard let lock = try? lockHandle(lock) else { return }
  destroy(lock, .lock)
}

@implementation @_cdecl("agr_lock_try_acquire")
public func agr_lock_try_acquire(
  _ lock: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ out_hold: UnsafeMutablePointer<agr_lock_hold>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_hold, "out_hold")
    out.pointee = agr_lock_hold()
    out_retry_after_ns?.pointee = 0
    let lock = try lockHandle(lock)
    return lock.pointee.tryAcquire(
      try lock.pointee.key(key, key_length), StoredLock.newOwner(), within: Time.max, out,
      out_retry_after_ns, error)
  }
}

@implementation @_cdecl("agr_lock_acquire")
public func agr_lock_acquire(
  _ lock: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ timeout_ns: Int64,
  _ out_hold: UnsafeMutablePointer<agr_lock_hold>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_hold, "out_hold")
    out.pointee = agr_lock_hold()
    let lock = try lockHandle(lock)
    try requireTimeOrForever(timeout_ns, "timeout_ns")
    return lock.pointee.acquire(
      try lock.pointee.key(key, key_length), timeout: timeout_ns, out, error)
  }
}

@implementation @_cdecl("agr_lock_renew")
public func agr_lock_renew(
  _ lock: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ hold: UnsafeMutablePointer<agr_lock_hold>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let hold = try requireHold(hold)
    let lock = try lockHandle(lock)
    return lock.pointee.renew(try lock.pointee.key(key, key_length), hold, error)
  }
}

@implementation @_cdecl("agr_lock_release")
public func agr_lock_release(
  _ lock: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ hold: UnsafePointer<agr_lock_hold>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let owner = try requireHold(UnsafeMutablePointer(mutating: hold)).pointee.owner
    let lock = try lockHandle(lock)
    return lock.pointee.release(try lock.pointee.key(key, key_length), owner, error)
  }
}

private func requireHold(
  _ hold: UnsafeMutablePointer<agr_lock_hold>?
) throws(Failure) -> UnsafeMutablePointer<agr_lock_hold> {
  let hold = try required(hold, "hold")
  guard hold.pointee.owner.0 != 0 || hold.pointee.owner.1 != 0 else {
    throw .argument("hold", "is none")
  }
  try requireTime(hold.pointee.until_ns, "until_ns")
  return hold
}
