public import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

private func storeDefaults() -> agr_store_config {
  var config = agr_store_config()
  config.struct_size = UInt32(MemoryLayout<agr_store_config>.size)
  config.on_error = StoreFallback.refuse.rawValue
  config.timeout_ns = Time.second
  config.max_failures = 5
  config.max_calls = 4096
  config.open_ns = 100_000_000
  config.open_max_ns = 5 * Time.second
  return config
}

func storeOptionDefaults() -> agr_store_options {
  var options = agr_store_options()
  options.struct_size = UInt32(MemoryLayout<agr_store_options>.size)
  options.max_result_bytes = 1 << 20
  options.local_share = 0.1
  options.sync_ns = 100 * Time.millisecond
  return options
}

@inline(__always)
func storeHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<Store> {
  try handle(pointer, .store, "store")
}

@implementation @_cdecl("agr_store_config_init")
public func agr_store_config_init(
  _ config: UnsafeMutablePointer<agr_store_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, storeDefaults())
}

@implementation @_cdecl("agr_store_options_init")
public func agr_store_options_init(
  _ options: UnsafeMutablePointer<agr_store_options>?, _ struct_size: UInt32
) {
  initialize(options, struct_size, storeOptionDefaults())
}

@implementation @_cdecl("agr_store_create")
public func agr_store_create(
  _ driver: UnsafePointer<agr_store_driver>?, _ config: UnsafePointer<agr_store_config>?,
  _ out_store: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_store, "out_store")
    out.pointee = nil
    let config = try readStructure(config, defaults: storeDefaults(), "config", optional: true)
    let (functions, driver) = try readDriver(driver)
    let engine = try Store(
      functions, driver: driver, name: StoreName(functions.name), StoreConfiguration(config))
    let pointer = try makeHandle(.store, engine)
    let store: Handle<Store> = uncheckedHandle(pointer)
    store.pointee.ownsDriver.store(true, ordering: .relaxed)
    out.pointee = pointer
    return AGR_OK
  }
}

@implementation @_cdecl("agr_store_destroy")
public func agr_store_destroy(_ store: OpaquePointer?) {
  guard let store = try? storeHandle(store) else { return }
  destroy(store, .store)
}

@implementation @_cdecl("agr_store_name")
public func agr_store_name(_ store: OpaquePointer?) -> UnsafePointer<CChar>! {
  guard let store = try? storeHandle(store) else { return cString("") }
  return store.pointee.name.text
}

@implementation @_cdecl("agr_store_ping")
public func agr_store_ping(
  _ store: OpaquePointer?, _ timeout_ns: Int64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let store = try storeHandle(store)
    guard timeout_ns >= 0 && timeout_ns <= Time.max else {
      throw .argument("timeout_ns", "must be 0 ... AGR_TIME_MAX_NS nanoseconds")
    }
    return store.pointee.ping(timeout_ns == 0 ? store.pointee.timeout : timeout_ns, error)
  }
}

@implementation @_cdecl("agr_store_snapshot_read")
public func agr_store_snapshot_read(
  _ store: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_store_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let store = try storeHandle(store)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    let breaker = try store.pointee.breaker.snapshot(now: now())
    writeStructure(
      agr_store_snapshot(
        struct_size: 0, state: breaker.state.rawValue,
        calls: store.pointee.calls.load(ordering: .relaxed),
        failures: store.pointee.failures.load(ordering: .relaxed),
        refused: store.pointee.refused.load(ordering: .relaxed),
        fallbacks: store.pointee.fallbacks.load(ordering: .relaxed),
        retry_after_ns: breaker.retryAfter), to: out)
    return AGR_OK
  }
}
