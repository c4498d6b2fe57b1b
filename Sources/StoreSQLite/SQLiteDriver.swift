import CAutoGLMReliability
import CAutoGLMReliabilitySQLite
import Platform

/// The functions of the driver, each of which makes a question of its arguments.
enum SQLiteDriver {
  private typealias Store = UnsafeMutablePointer<SQLiteStore>

  /// Where the store lies behind its table of functions.
  private static let storeOffset = 256

  static func make(
    _ config: UnsafePointer<agr_sqlite_config>?
  ) throws(Trouble) -> agr_store_driver {
    let made = try SQLiteStore(Configuration(config))
    guard let memory = platform_allocate(storeOffset &+ MemoryLayout<SQLiteStore>.size) else {
      throw .noMemory
    }
    let table = memory.bindMemory(to: agr_store_api.self, capacity: 1)
    table.initialize(to: functions())
    let store = (memory + storeOffset).bindMemory(to: SQLiteStore.self, capacity: 1)
    store.initialize(to: made)
    guard ForkHandlers.add(store) else {
      store.deinitialize(count: 1)
      platform_free(memory)
      throw .noMemory
    }
    return agr_store_driver(api: table, self: store)
  }

  private static func destroy(_ store: Store) {
    ForkHandlers.remove(store)
    store.deinitialize(count: 1)
    platform_free(UnsafeMutableRawPointer(store) - storeOffset)
  }

  private static func functions() -> agr_store_api {
    var table = agr_store_api()
    table.struct_size = UInt32(MemoryLayout<agr_store_api>.size)
    let name: StaticString = "sqlite"
    table.name = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    table.ping = { store, timeout, error in
      SQLiteDriver.ask(store, .ping, timeout, error)
    }
    table.destroy = { store in
      guard let store else { return }
      SQLiteDriver.destroy(store.assumingMemoryBound(to: SQLiteStore.self))
    }
    setRuns(&table)
    setLeases(&table)
    return table
  }

  private static func setRuns(_ table: inout agr_store_api) {
    table.begin = { store, run, timeout, sink, out, error in
      guard let run, let sink, let out else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(store, .begin(run, sink, out), timeout, error)
    }
    table.read = { store, key, timeout, sink, out, error in
      guard let key, let sink, let out else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(store, .read(key, sink, out), timeout, error)
    }
    table.renew = { store, key, fence, lease, ttl, timeout, error in
      guard let key else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(
        store, .renew(key, fence: fence, lease: lease, ttl: ttl), timeout, error)
    }
    table.complete = { store, key, fence, state, data, length, ttl, timeout, error in
      guard let key, data != nil || length == 0, length >= 0 else {
        return SQLiteDriver.missing(error)
      }
      let bytes = UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : length)
      return SQLiteDriver.ask(
        store, .complete(key, fence: fence, state: state, bytes, ttl: ttl), timeout, error)
    }
    table.give_back = { store, key, fence, unknown, ttl, timeout, error in
      guard let key else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(
        store, .giveBack(key, fence: fence, outcomeUnknown: unknown != 0, ttl: ttl), timeout,
        error)
    }
  }

  private static func setLeases(_ table: inout agr_store_api) {
    table.acquire = { store, lease, timeout, fence, retryAfter, error in
      guard let lease, let fence, let retryAfter else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(store, .acquire(lease, fence, retryAfter), timeout, error)
    }
    table.extend = { store, lease, timeout, error in
      guard let lease else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(store, .extend(lease), timeout, error)
    }
    table.release = { store, lease, timeout, error in
      guard let lease else { return SQLiteDriver.missing(error) }
      return SQLiteDriver.ask(store, .release(lease), timeout, error)
    }
  }

  private static func missing(_ error: UnsafeMutablePointer<agr_error>?) -> agr_status {
    Trouble.argument("", "a pointer that must be given is NULL").report(error)
  }

  private static func ask(
    _ store: UnsafeMutableRawPointer?, _ question: Question, _ timeout: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> agr_status {
    guard let store else { return missing(error) }
    return store.assumingMemoryBound(to: SQLiteStore.self).pointee.ask(question, timeout, error)
  }
}
