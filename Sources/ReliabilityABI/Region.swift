import Platform
import ReliabilityCore

/// A mapping of a region, with its directory.
struct Region: ~Copyable {
  let base: UnsafeMutableRawPointer
  let bytes: UInt64
  let entries: Int
  let file: Int32
  /// Tells this process from the others.
  let process: AtomicWords

  /// Takes the file over, and maps it. With `fresh` a region of so many entries is made of it.
  init(
    _ file: consuming RegionFile, bytes: UInt64, fresh: Int?, _ field: StaticString
  ) throws(Failure) {
    guard let process = processNumber() else { throw .noMemory }
    var file = file
    var error: Int32 = 0
    guard let memory = platform_map_shared(file.number, bytes, &error) else {
      throw .system(field, "the memory cannot be mapped", error)
    }
    let words = AtomicWords(at: memory)
    let entries: Int
    do throws(Failure) {
      if let fresh {
        RegionHeader.write(words, bytes: bytes, entries: UInt64(truncatingIfNeeded: fresh))
      }
      entries = try RegionHeader.check(words, bytes: bytes, field)
    } catch {
      platform_unmap(memory, bytes)
      throw error
    }
    base = memory
    self.bytes = bytes
    self.entries = entries
    self.process = process
    self.file = file.take()
  }

  deinit {
    platform_unmap(base, bytes)
    platform_close(file)
  }

  var directory: RegionDirectory {
    RegionDirectory(AtomicWords(at: base), entries: entries, bytes: bytes)
  }
}

/// A descriptor that is closed unless somebody takes it.
struct RegionFile: ~Copyable {
  private(set) var number: Int32

  /// From what a function of the platform returned.
  init(_ result: Int32, _ field: StaticString, _ message: StaticString) throws(Failure) {
    guard result >= 0 else { throw .system(field, message, 0 &- result) }
    number = result
  }

  deinit { if number >= 0 { platform_close(number) } }

  mutating func take() -> Int32 {
    let taken = number
    number = -1
    return taken
  }
}

extension Failure {
  static func system(
    _ field: StaticString, _ message: StaticString, _ error: Int32
  ) -> Failure {
    Failure(.system, field, message, systemError: error)
  }
}

// MARK: - Opening

/// How a region is to be opened.
struct RegionRequest {
  enum Disposition: Int32 {
    case openOrCreate = 0
    case open, create
  }

  let mode: UInt32
  let owner: UInt32
  let entries: Int
  let disposition: Disposition
  /// 0: whatever it has.
  var bytes: UInt64 = 0

  private static let standardBytes: UInt64 = 1 << 20

  /// Finds the file of a name, or makes it.
  func open(_ name: ObjectName) throws(Failure) -> Region {
    var path = RegionRequest.path(name)
    // Between a look and the next step others may create the file or take its name away.
    for _ in 0..<100 {
      if disposition != .create {
        let found = platform_region_find(&path)
        if found >= 0 || found != 0 &- platform_error_missing || disposition == .open {
          return try adopt(RegionFile(found, "name", "the region cannot be opened"), "name")
        }
      }
      let file = try RegionFile(
        platform_region_new(1), "name", "there can be no file in /dev/shm")
      let fresh = try make(file)
      let linked = platform_region_link(fresh.file, &path)
      if linked == 0 { return fresh }
      guard linked == 0 &- platform_error_exists && disposition == .openOrCreate else {
        throw .system("name", "the region cannot be created", 0 &- linked)
      }
    }
    throw Failure(.state, "name", "the region comes and goes")
  }

  /// A region without a name.
  func openUnnamed() throws(Failure) -> Region {
    let file = try RegionFile(platform_region_new(0), "name", "there can be no such memory")
    let region = try make(file)
    let sealed = platform_region_seal(region.file)
    guard sealed == 0 else { throw .system("name", "the memory cannot be sealed", 0 &- sealed) }
    return region
  }

  private func make(_ file: consuming RegionFile) throws(Failure) -> Region {
    let wanted = bytes == 0 ? RegionRequest.standardBytes : bytes
    let page = UInt64(RegionHeader.page)
    guard wanted <= RegionHeader.maximumBytes else {
      throw .argument("bytes", "must be 0, or at most 2^40")
    }
    let size = (wanted &+ page &- 1) & ~(page &- 1)
    guard size > RegionDirectory.dataStart(entries: entries) else {
      throw .argument("bytes", "is less than max_objects needs")
    }
    let status = platform_region_size(file.number, size, mode)
    guard status == 0 else { throw .system("bytes", "there is no such memory", 0 &- status) }
    return try Region(file, bytes: size, fresh: entries, "name")
  }

  /// A file that is there, if it may be trusted so far.
  func adopt(
    _ file: consuming RegionFile, _ field: StaticString
  ) throws(Failure) -> Region {
    var facts = platform_region_facts()
    let status = platform_region_look(file.number, &facts)
    guard status == 0 else { throw .system(field, "the region cannot be looked at", 0 &- status) }
    guard facts.is_file != 0 else { throw Failure(.region, field, "is not a file of memory") }
    guard facts.owner == owner else { throw Failure(.region, field, "is another user's region") }
    guard facts.mode & 0o777 & ~mode == 0 else {
      throw Failure(.region, field, "is a region that more may have than the mode allows")
    }
    guard facts.bytes >= UInt64(RegionHeader.page), facts.bytes <= RegionHeader.maximumBytes,
      facts.bytes % UInt64(RegionHeader.page) == 0
    else { throw Failure(.region, field, "is a region that was cut or extended") }
    let page = UInt64(RegionHeader.page)
    guard bytes == 0 || facts.bytes == (bytes &+ page &- 1) & ~(page &- 1) else {
      throw .argument("bytes", "is not the size of the region that is there")
    }
    let filled = platform_region_fill(file.number, facts.bytes)
    guard filled == 0 else { throw .system(field, "there is no such memory", 0 &- filled) }
    return try Region(file, bytes: facts.bytes, fresh: nil, field)
  }

  static func path(_ name: ObjectName) -> platform_region_path {
    var path = platform_region_path()
    withUnsafeMutableBytes(of: &path) { bytes in
      let prefix: StaticString = "/dev/shm/agr."
      let length = prefix.utf8CodeUnitCount
      guard let base = bytes.baseAddress, bytes.count > length &+ ObjectRecord.nameBytes else {
        return
      }
      memcpy(base, prefix.utf8Start, length)
      for index in 0..<ObjectRecord.nameBytes {
        bytes.storeBytes(of: name.byte(index), toByteOffset: length &+ index, as: UInt8.self)
      }
    }
    return path
  }
}

// MARK: - Objects

/// How often one looks whether another has completed what it was creating, before taking over.
private let patience = 40
private let pause: Int64 = 50_000

/// Finds an object of a region or creates it, and returns a handle to it.
func openShared<Object: SharedEngine & ~Copyable>(
  _ type: Object.Type, _ kind: HandleKind, _ region: OpaquePointer?,
  _ name: UnsafePointer<CChar>?, _ configuration: Object.Configuration, now: Int64,
  agreeing: (inout Object.Configuration, UInt64) -> Void = { _, _ in }
) throws(Failure) -> OpaquePointer {
  let region: Handle<Region> = try handle(region, .region, "region")
  let name = try ObjectName(name, "name")
  try requireTime(now, "now_ns")
  let fields = Object.fields(configuration)
  let place = try findShared(
    region,
    ObjectRecord(
      name: name, kind: Object.kind,
      bytes: UInt64(truncatingIfNeeded: Object.bytes(configuration)),
      beginning: Beginning(seed: processRandom(), now: now), hashSeed: processRandom(),
      fields: fields))
  guard place.record.kind == Object.kind else {
    throw Failure(.mismatch, "name", "is the name of an object of another kind")
  }
  try Object.compare(fields, place.record.fields, changing: false)
  let directory = region.pointee.directory
  let isNew = !directory.hasBegun(place.entry)
  if isNew { try Object.compare(fields, place.record.fields, changing: true) }
  var configuration = configuration
  agreeing(&configuration, place.record.hashSeed)
  guard place.record.bytes == UInt64(truncatingIfNeeded: Object.bytes(configuration)) else {
    throw Failure(.region, "region", "its directory was damaged")
  }
  let object = try Object.sharing(
    configuration, at: region.pointee.base + Int(truncatingIfNeeded: place.offset),
    process: region.pointee.process)
  if isNew {
    object.begin(configuration, place.record.beginning)
    directory.setBegun(place.entry)
  } else {
    try Object.compare(fields, object.present(), changing: true)
  }
  return try makeHandle(kind, object, in: region)
}

/// The place of an object. Where another is creating one, waits for it for a moment, then takes over.
private func findShared(
  _ region: Handle<Region>, _ record: ObjectRecord
) throws(Failure) -> RegionDirectory.Place {
  var seen: UInt64?
  var looks = 0
  for _ in 0..<4_000 {
    let abandoned = looks >= patience ? seen : nil
    switch try region.pointee.directory.find(record, abandoned: abandoned) {
    case .found(let place): return place
    case .busy(let state):
      looks = state == seen ? looks &+ 1 : 0
      seen = state
      platform_sleep_until_ns(systemNow() &+ pause)
    }
  }
  throw Failure(.state, "region", "others are creating objects without an end")
}
