import CAutoGLMReliability
import CAutoGLMReliabilityRedis
import Platform

/// The functions of the driver.
enum RedisDriver {
  /// Where the store lies behind its table of functions.
  private static let storeOffset = 256

  static func make(_ config: UnsafePointer<agr_redis_config>?) throws(Fault) -> agr_store_driver {
    let settings = try Settings.make(config)
    let size = storeOffset &+ MemoryLayout<Store>.size
    let memory = platform_allocate(size &+ ScriptNames.bytes)
    let place = platform_allocate(MemoryLayout<Settings>.size)
    let kept = place?.bindMemory(to: Settings.self, capacity: 1)
    kept?.initialize(to: settings)
    guard let memory, let kept, let store = Store(kept, names: memory + size) else {
      settings.free()
      platform_free(memory)
      platform_free(place)
      throw .noMemory
    }
    let table = memory.bindMemory(to: agr_store_api.self, capacity: 1)
    table.initialize(to: functions())
    let made = (memory + storeOffset).bindMemory(to: Store.self, capacity: 1)
    made.initialize(to: store)
    return agr_store_driver(api: table, self: made)
  }

  private static func destroy(_ store: UnsafeMutablePointer<Store>) {
    store.pointee.free()
    platform_free(UnsafeMutableRawPointer(store) - storeOffset)
  }

  private static func functions() -> agr_store_api {
    var table = agr_store_api()
    table.struct_size = UInt32(MemoryLayout<agr_store_api>.size)
    let name: StaticString = "redis"
    table.name = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    table.ping = { store, timeout, error in
      RedisDriver.with(store, error) { $0.pointee.ping(timeout, error) }
    }
    table.destroy = { store in
      guard let store else { return }
      RedisDriver.destroy(store.assumingMemoryBound(to: Store.self))
    }
    setRuns(&table)
    setLeases(&table)
    setBreaker(&table)
    table.take = { store, buckets, count, timeout, refused, error in
      guard let buckets, count >= 1, count <= 4 else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.take(buckets, Int(count), timeout, refused, error)
      }
    }
    table.joins = { store, keys, count in
      guard let keys, count >= 1, count <= 4 else { return agr_status(AGR_ERR_ARGUMENT) }
      return RedisDriver.with(store, nil) { $0.pointee.joins(keys, Int(count)) }
    }
    return table
  }

  private static func setRuns(_ table: inout agr_store_api) {
    table.begin = { store, run, timeout, sink, out, error in
      guard let run, let sink, let out else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.begin(run.pointee, timeout, sink.pointee, out, error)
      }
    }
    table.read = { store, key, timeout, sink, out, error in
      guard let key, let sink, let out else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.read(key.pointee, timeout, sink.pointee, out, error)
      }
    }
    table.renew = { store, key, fence, lease, ttl, timeout, error in
      guard let key else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.renew(key.pointee, fence, lease: lease, ttl: ttl, timeout, error)
      }
    }
    table.complete = { store, key, fence, state, data, length, ttl, timeout, error in
      guard let key, data != nil || length == 0, length >= 0 else {
        return RedisDriver.missing(error)
      }
      return RedisDriver.with(store, error) {
        $0.pointee.complete(key.pointee, fence, state, data, length, ttl: ttl, timeout, error)
      }
    }
    table.give_back = { store, key, fence, unknown, ttl, timeout, error in
      guard let key else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.giveBack(key.pointee, fence, isUnknown: unknown != 0, ttl: ttl, timeout, error)
      }
    }
  }

  private static func setLeases(_ table: inout agr_store_api) {
    table.acquire = { store, lease, timeout, fence, retryAfter, error in
      guard let lease else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.acquire(lease.pointee, timeout, fence, retryAfter, error)
      }
    }
    table.extend = { store, lease, timeout, error in
      guard let lease else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.change(.extend, lease.pointee, timeout, error)
      }
    }
    table.release = { store, lease, timeout, error in
      guard let lease else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.change(.release, lease.pointee, timeout, error)
      }
    }
  }

  private static func setBreaker(_ table: inout agr_store_api) {
    table.breaker_read = { store, key, timeout, out, error in
      guard let key, let out else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.readBreaker(key.pointee, timeout, out, error)
      }
    }
    table.breaker_set = { store, key, desired, ttl, timeout, out, error in
      guard let key, let desired, let out else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.setBreaker(key.pointee, desired.pointee, ttl: ttl, timeout, out, error)
      }
    }
    table.probe = { store, key, generation, owner, ttl, timeout, retryAfter, error in
      guard let key, let owner else { return RedisDriver.missing(error) }
      return RedisDriver.with(store, error) {
        $0.pointee.probe(key.pointee, generation, owner, ttl: ttl, timeout, retryAfter, error)
      }
    }
  }

  private static func missing(_ error: UnsafeMutablePointer<agr_error>?) -> agr_status {
    agr_status(
      truncatingIfNeeded: fail(
        error, AGR_ERR_ARGUMENT, "a pointer that must be given is NULL, or a count out of range"))
  }

  private static func with(
    _ store: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<agr_error>?,
    _ body: (UnsafeMutablePointer<Store>) -> Int
  ) -> agr_status {
    guard let store else { return missing(error) }
    return agr_status(
      truncatingIfNeeded: body(store.assumingMemoryBound(to: Store.self)))
  }
}
