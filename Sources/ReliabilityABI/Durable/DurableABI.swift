public import CAutoGLMReliability
import ReliabilityCore

@implementation @_cdecl("agr_idempotency_create_in_store")
public func agr_idempotency_create_in_store(
  _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_idempotency_config>?,
  _ options: UnsafePointer<agr_store_options>?, _ out_cache: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_cache, "out_cache")
    out.pointee = nil
    let store = try storeHandle(store)
    let config = try readStructure(config, defaults: idempotencyDefaults(), "config")
    let options = try readStructure(
      options, defaults: storeOptionDefaults(), "options", optional: true)
    let engine = try DurableCache(
      readConfiguration(config, alwaysEvicts: true), store: store, name: SpaceName(name),
      StoreOptions(options), hashSeed: seedOrRandom(config.seed))
    out.pointee = try makeHandle(.durableIdempotency, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_idempotency_lost_fence")
public func agr_idempotency_lost_fence(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ out_fence: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_fence, "out_fence")
    out.pointee = 0
    guard let durable = durableHandle(cache) else {
      throw .argument("cache", "is not a cache in a store")
    }
    guard let fence = try durable.pointee.lostFence(of: lease_id, now: now()) else {
      return AGR_STALE
    }
    out.pointee = fence
    return AGR_OK
  }
}
