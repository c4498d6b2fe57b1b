public import CAutoGLMReliability
import ReliabilityCore

/// A limiter in a store, if the handle is one.
@inline(__always)
func storedKeyedLimiter(_ pointer: OpaquePointer?) -> Handle<StoredKeyedLimiter>? {
  handleIfKind(pointer, .storedKeyedLimiter)
}

@implementation @_cdecl("agr_keyed_limiter_create_in_store")
public func agr_keyed_limiter_create_in_store(
  _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_keyed_limiter_config>?,
  _ options: UnsafePointer<agr_store_options>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    let store = try storeHandle(store)
    let config = try readStructure(config, defaults: keyedDefaults(), "config")
    let options = try readStructure(
      options, defaults: storeOptionDefaults(), "options", optional: true)
    let configuration = try readKeyedConfiguration(config)
    let rate = try TokenRate(
      capacity: config.capacity, maxDebt: config.max_debt_tokens, tokens: config.refill_tokens,
      interval: config.refill_interval_ns)
    let engine = try StoredKeyedLimiter(
      configuration, rate: rate, maxKeys: config.max_keys, store: store, name: SpaceName(name),
      StoreOptions(options))
    out.pointee = try makeHandle(.storedKeyedLimiter, engine)
    return AGR_OK
  }
}

/// `agr_keyed_limiter_try_acquire` of what is no limiter of this process or of a region.
func tryAcquireKeyInStore(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ length: Int, _ tokens: Int64,
  _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    retryAfter?.pointee = 0
    let stored: Handle<StoredKeyedLimiter> = try handle(limiter, .storedKeyedLimiter, "limiter")
    return try stored.pointee.acquire(
      stored.pointee.key(key, length), tokens, maxWait: 0, retryAfter, error)
  }
}
