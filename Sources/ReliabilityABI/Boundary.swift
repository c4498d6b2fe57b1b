import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

// The conventions of the boundary, stated once.
//
// - A handle points to a header with the engine right behind it, in memory from the platform's
//   allocator. The header's first word tells its type, so that NULL, a handle of another kind and
//   most handles that were destroyed are refused by name.
// - An engine is counted by its owner and by the policies that hold it; nothing on a hot path touches
//   the count.
// - Entry points translate and delegate: everything a caller can get wrong is thrown as a `Failure`
//   by them or by the core, and becomes a status and an `agr_error` here.
// - Structures are read and written by the prefix that both sides know (`struct_size`).

// MARK: - Handles

/// The kinds of handle, as the first word of a box.
enum HandleKind: UInt64 {
  case retryBudget = 0x6167_725f_6275_6467
  case breaker = 0x6167_725f_6272_656b
  case limiter = 0x6167_725f_6c69_6d69
  case keyedLimiter = 0x6167_725f_6b65_7964
  case idempotency = 0x6167_725f_6964_656d
  case durableIdempotency = 0x6167_725f_6964_7374
  /// A breaker but for the lowest bit.
  case storedBreaker = 0x6167_725f_6272_656a
  case storedKeyedLimiter = 0x6167_725f_6b79_7374
  case lock = 0x6167_725f_6c6f_636b
  /// A limiter but for the lowest bit, so that both are told in one comparison.
  case storedLimiter = 0x6167_725f_6c69_6d68
  case policy = 0x6167_725f_706f_6c69
  case call = 0x6167_725f_6361_6c6c
  case store = 0x6167_725f_7374_6f72
  case region = 0x6167_725f_7265_6769
}

/// What lies before an engine in memory.
private struct HandleHeader: ~Copyable {
  let kind: Atomic<UInt64>
  let references: Atomic<Int>
}

/// Where the engine begins: right behind the header, in the same cache line.
private let engineOffset = 16

/// A handle that has been checked: a pointer to the engine itself.
typealias Handle<Engine: ~Copyable> = UnsafeMutablePointer<Engine>

/// Checks a handle that a caller gave. Bits of `ignoring` do not tell its kind from others.
@inline(__always)
func handle<Engine: ~Copyable>(
  _ pointer: OpaquePointer?, _ kind: HandleKind, _ field: StaticString, ignoring: UInt64 = 0
) throws(Failure) -> Handle<Engine> {
  guard let pointer else { throw .argument(field, "must not be NULL") }
  let raw = UnsafeMutableRawPointer(pointer)
  guard Int(bitPattern: raw) & 15 == 0 else { throw .argument(field, "is not a handle") }
  let header = raw.assumingMemoryBound(to: HandleHeader.self)
  guard header.pointee.kind.load(ordering: .relaxed) | ignoring == kind.rawValue | ignoring else {
    throw .argument(field, "is not a handle of this kind, or was destroyed")
  }
  return (raw + engineOffset).assumingMemoryBound(to: Engine.self)
}

/// The engine of a handle if it is one of this kind.
@inline(__always)
func handleIfKind<Engine: ~Copyable>(
  _ pointer: OpaquePointer?, _ kind: HandleKind
) -> Handle<Engine>? {
  guard let pointer else { return nil }
  let raw = UnsafeMutableRawPointer(pointer)
  guard Int(bitPattern: raw) & 15 == 0,
    raw.assumingMemoryBound(to: HandleHeader.self).pointee.kind.load(ordering: .relaxed)
      == kind.rawValue
  else { return nil }
  return (raw + engineOffset).assumingMemoryBound(to: Engine.self)
}

/// The engine of a handle that was checked before.
@inline(__always)
func uncheckedHandle<Engine: ~Copyable>(_ pointer: OpaquePointer) -> Handle<Engine> {
  (UnsafeMutableRawPointer(pointer) + engineOffset).assumingMemoryBound(to: Engine.self)
}

/// Behind the engine: the region that its state lies in, which is kept for as long as the engine is.
private func keeper<Engine: ~Copyable>(
  _ engine: Handle<Engine>
) -> UnsafeMutablePointer<Handle<Region>?> {
  let offset = (MemoryLayout<Engine>.size &+ 7) & ~7
  return (UnsafeMutableRawPointer(engine) + offset).assumingMemoryBound(to: Handle<Region>?.self)
}

/// Moves an engine behind a header, and returns the handle for the caller. Retains the region.
func makeHandle<Engine: ~Copyable>(
  _ kind: HandleKind, _ engine: consuming Engine, in region: Handle<Region>? = nil
) throws(Failure) -> OpaquePointer {
  guard let memory = platform_allocate(engineOffset &+ MemoryLayout<Engine>.size &+ 16) else {
    throw .noMemory
  }
  if let region {
    retain(region)
    keeper((memory + engineOffset).assumingMemoryBound(to: Engine.self)).pointee = region
  }
  memory.bindMemory(to: HandleHeader.self, capacity: 1).initialize(
    to: HandleHeader(kind: Atomic(kind.rawValue), references: Atomic(1)))
  (memory + engineOffset).bindMemory(to: Engine.self, capacity: 1).initialize(to: engine)
  return OpaquePointer(memory)
}

// MARK: - Handles in a pool

/// How far apart handles of so many bytes lie in an array: whole cache lines.
func handleStride(_ bytes: Int) -> Int { (engineOffset &+ bytes &+ 63) & ~63 }

/// Makes zeroed memory the place of a handle that is not in use; `index` is its place in the pool.
func prepareHandle(_ memory: UnsafeMutableRawPointer, _ index: UInt32) {
  memory.bindMemory(to: HandleHeader.self, capacity: 1).initialize(
    to: HandleHeader(kind: Atomic(0), references: Atomic(Int(index))))
}

/// Opens a pooled handle, which is good from here on. What is behind it is zero, or what the last one left.
@inline(__always)
func openHandle<Engine: BitwiseCopyable>(
  _ pointer: OpaquePointer, _ kind: HandleKind
) -> Handle<Engine> {
  let engine: Handle<Engine> = uncheckedHandle(pointer)
  header(engine).pointee.kind.store(kind.rawValue, ordering: .relaxed)
  return engine
}

/// The caller's handle for a pooled value.
func pooledPointer<Engine: BitwiseCopyable>(_ engine: Handle<Engine>) -> OpaquePointer {
  OpaquePointer(header(engine))
}

/// The place of a pooled handle in its pool.
@inline(__always)
func poolIndex<Engine: BitwiseCopyable>(_ engine: Handle<Engine>) -> UInt32 {
  UInt32(truncatingIfNeeded: header(engine).pointee.references.load(ordering: .relaxed))
}

/// Ends the use of a pooled handle, and tells its place in the pool.
@inline(__always)
func closeHandle<Engine: BitwiseCopyable>(_ engine: Handle<Engine>) -> UInt32 {
  header(engine).pointee.kind.store(0, ordering: .relaxed)
  return poolIndex(engine)
}

@inline(__always)
private func header<Engine: ~Copyable>(
  _ engine: Handle<Engine>
) -> UnsafeMutablePointer<HandleHeader> {
  (UnsafeMutableRawPointer(engine) - engineOffset).assumingMemoryBound(to: HandleHeader.self)
}

/// What kind an engine is that was checked for another kind like it.
@inline(__always)
func isOfKind<Engine: ~Copyable>(_ engine: Handle<Engine>, _ kind: HandleKind) -> Bool {
  header(engine).pointee.kind.load(ordering: .relaxed) == kind.rawValue
}

func retain<Engine: ~Copyable>(_ engine: Handle<Engine>) {
  header(engine).pointee.references.wrappingAdd(1, ordering: .relaxed)
}

/// The owner's end of a handle: nobody is let in by it any more, and its reference is dropped. Who
/// asks a second time changes nothing.
func destroy<Engine: ~Copyable>(_ engine: Handle<Engine>, _ kind: HandleKind) {
  if retire(engine, kind) { release(engine) }
}

/// Lets nobody in by a handle any more; says whether this was the call that did it.
func retire<Engine: ~Copyable>(_ engine: Handle<Engine>, _ kind: HandleKind) -> Bool {
  header(engine).pointee.kind.compareExchange(
    expected: kind.rawValue, desired: 0, ordering: .relaxed
  ).exchanged
}

/// Drops one reference; the last one frees the engine.
func release<Engine: ~Copyable>(_ engine: Handle<Engine>) {
  let header = header(engine)
  guard
    header.pointee.references.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0
  else { return }
  header.pointee.kind.store(0, ordering: .relaxed)
  let region = keeper(engine).pointee
  engine.deinitialize(count: 1)
  platform_free(header)
  if let region { release(region) }
}

// MARK: - Statuses

@inline(__always)
func status(_ constant: Int) -> agr_status { agr_status(truncatingIfNeeded: constant) }

extension Failure {
  var status: agr_status {
    switch kind {
    case .argument: ReliabilityABI.status(AGR_ERR_ARGUMENT)
    case .noMemory: ReliabilityABI.status(AGR_ERR_NO_MEMORY)
    case .capacity: ReliabilityABI.status(AGR_ERR_CAPACITY)
    case .state: ReliabilityABI.status(AGR_ERR_STATE)
    case .neverFits: ReliabilityABI.status(AGR_ERR_NEVER_FITS)
    case .parse: ReliabilityABI.status(AGR_ERR_PARSE)
    case .system: ReliabilityABI.status(AGR_ERR_SYSTEM)
    case .region: ReliabilityABI.status(AGR_ERR_REGION)
    case .mismatch: ReliabilityABI.status(AGR_ERR_MISMATCH)
    case .store: ReliabilityABI.status(AGR_ERR_STORE)
    }
  }

  /// Writes the failure where the caller wants it, and returns its status.
  func report(_ error: UnsafeMutablePointer<agr_error>?) -> agr_status {
    guard let error else { return status }
    error.pointee.status = status
    error.pointee.system_errno = systemError
    withUnsafeMutableBytes(of: &error.pointee.field) { copyText(field, $0) }
    withUnsafeMutableBytes(of: &error.pointee.message) { copyText(message, $0) }
    return status
  }
}

/// Copies a text into a fixed array, cut to fit, and ends it with NUL.
func copyText(_ text: StaticString, _ into: UnsafeMutableRawBufferPointer) {
  let count = min(text.utf8CodeUnitCount, into.count &- 1)
  guard let base = into.baseAddress, count >= 0 else { return }
  memcpy(base, text.utf8Start, count)
  memset(base + count, 0, into.count &- count)
}

/// Runs the body of an entry point: its status, or that of its failure.
@inline(__always)
func guarded(
  _ error: UnsafeMutablePointer<agr_error>?, _ body: () throws(Failure) -> Int
) -> agr_status {
  do throws(Failure) { return status(try body()) } catch let failure {
    return failure.report(error)
  }
}

// MARK: - Pointers and structures

/// An output that must be given.
@inline(__always)
func required<T>(
  _ pointer: UnsafeMutablePointer<T>?, _ field: StaticString
) throws(Failure) -> UnsafeMutablePointer<T> {
  guard let pointer else { throw .argument(field, "must not be NULL") }
  return pointer
}

/// The most bytes that a structure of a later version may claim to have.
private let largestStructure: UInt32 = 4096

/// Checks a structure's own size.
private func checkSize(_ size: UInt32, _ field: StaticString) throws(Failure) {
  guard size >= 8 && size <= largestStructure && size % 8 == 0 else {
    throw .argument(field, "struct_size must be the sizeof of the structure")
  }
}

/// A caller's structure, with the defaults for the fields it does not have. `nil` gives the
/// defaults where `optional` allows it.
@inline(__always)
func readStructure<T: BitwiseCopyable>(
  _ pointer: UnsafePointer<T>?, defaults: @autoclosure () -> T, _ field: StaticString,
  optional: Bool = false
) throws(Failure) -> T {
  guard let pointer else {
    if optional { return defaults() }
    throw .argument(field, "must not be NULL")
  }
  let size = UnsafeRawPointer(pointer).loadUnaligned(as: UInt32.self)
  // The usual case, a caller of this very version, of which nothing has to be put together.
  if Int(size) == MemoryLayout<T>.size { return pointer.pointee }
  return try readPrefix(pointer, size, defaults())
}

/// A driver's functions; a longer table is of a later version, whose further functions are left alone.
func readTable(_ table: UnsafePointer<agr_store_api>) throws(Failure) -> agr_store_api {
  try checkSize(table.pointee.struct_size, "struct_size")
  var known = agr_store_api()
  memcpy(&known, table, min(MemoryLayout<agr_store_api>.size, Int(table.pointee.struct_size)))
  return known
}

/// A structure of an earlier or a later version.
@inline(never)
private func readPrefix<T: BitwiseCopyable>(
  _ pointer: UnsafePointer<T>, _ size: UInt32, _ defaults: T
) throws(Failure) -> T {
  let raw = UnsafeRawPointer(pointer)
  try checkSize(size, "struct_size")
  let known = MemoryLayout<T>.size
  var offset = known
  while offset < Int(size) {
    guard raw.load(fromByteOffset: offset, as: UInt8.self) == 0 else {
      throw .argument("struct_size", "fields of a later version must be zero")
    }
    offset &+= 1
  }
  var value = defaults
  memcpy(&value, raw, min(known, Int(size)))
  return value
}

/// Checks an output structure before anything is done.
func checkOutput<T: BitwiseCopyable>(
  _ pointer: UnsafeMutablePointer<T>?, _ field: StaticString
) throws(Failure) -> UnsafeMutablePointer<T> {
  let pointer = try required(pointer, field)
  try checkSize(UnsafeRawPointer(pointer).loadUnaligned(as: UInt32.self), field)
  return pointer
}

/// Fills in as much of an output structure as the caller has.
@inline(__always)
func writeStructure<T: BitwiseCopyable>(_ value: T, to pointer: UnsafeMutablePointer<T>) {
  let raw = UnsafeMutableRawPointer(pointer)
  let size = raw.loadUnaligned(as: UInt32.self)
  if Int(size) == MemoryLayout<T>.size {
    pointer.pointee = value
    raw.storeBytes(of: size, as: UInt32.self)
  } else {
    writePrefix(value, size, to: pointer)
  }
}

@inline(never)
private func writePrefix<T: BitwiseCopyable>(
  _ value: T, _ size: UInt32, to pointer: UnsafeMutablePointer<T>
) {
  let raw = UnsafeMutableRawPointer(pointer)
  var value = value
  memcpy(raw, &value, min(MemoryLayout<T>.size, Int(size)))
  if Int(size) > MemoryLayout<T>.size {
    memset(raw + MemoryLayout<T>.size, 0, Int(size) &- MemoryLayout<T>.size)
  }
  raw.storeBytes(of: size, as: UInt32.self)
}

/// Writes defaults into a configuration of `size` bytes.
func initialize<T: BitwiseCopyable>(
  _ pointer: UnsafeMutablePointer<T>?, _ size: UInt32, _ defaults: T
) {
  guard let pointer, size >= 8, size <= largestStructure else { return }
  UnsafeMutableRawPointer(pointer).storeBytes(of: size, as: UInt32.self)
  writeStructure(defaults, to: pointer)
}
