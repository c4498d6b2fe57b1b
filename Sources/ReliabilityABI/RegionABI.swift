public import CAutoGLMReliability
import Platform
import ReliabilityCore

private func regionDefaults() -> agr_region_config {
  agr_region_config(
    struct_size: UInt32(MemoryLayout<agr_region_config>.size), mode: 0o600, owner: -1,
    max_objects: 64, disposition: RegionRequest.Disposition.openOrCreate.rawValue)
}

@inline(__always)
private func regionHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<Region> {
  try handle(pointer, .region, "region")
}

private func readRequest(
  _ config: UnsafePointer<agr_region_config>?
) throws(Failure) -> RegionRequest {
  let config = try readStructure(config, defaults: regionDefaults(), "config", optional: true)
  guard config.mode & 0o600 == 0o600, config.mode & ~0o666 == 0 else {
    throw .argument("mode", "must be 0600, 0660, 0666 or what lies between")
  }
  guard config.owner >= -1 && config.owner < Int64(UInt32.max) else {
    throw .argument("owner", "must be -1 or a user id")
  }
  guard config.max_objects >= 1 && config.max_objects <= UInt32(RegionDirectory.maximumCount)
  else { throw .argument("max_objects", "must be 1 ... 65,536") }
  guard let disposition = RegionRequest.Disposition(rawValue: config.disposition) else {
    throw .argument("disposition", "must be one of AGR_REGION_*")
  }
  return RegionRequest(
    mode: config.mode,
    owner: config.owner == -1 ? platform_user() : UInt32(truncatingIfNeeded: config.owner),
    entries: Int(config.max_objects), disposition: disposition)
}

@implementation @_cdecl("agr_region_config_init")
public func agr_region_config_init(
  _ config: UnsafeMutablePointer<agr_region_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, regionDefaults())
}

@implementation @_cdecl("agr_region_open")
public func agr_region_open(
  _ name: UnsafePointer<CChar>?, _ bytes: UInt64, _ config: UnsafePointer<agr_region_config>?,
  _ out_region: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_region, "out_region")
    out.pointee = nil
    var request = try readRequest(config)
    guard bytes <= RegionHeader.maximumBytes else {
      throw .argument("bytes", "must be 0, or at most 2^40")
    }
    request.bytes = bytes
    if name == nil {
      out.pointee = try makeHandle(.region, request.openUnnamed())
    } else {
      out.pointee = try makeHandle(.region, request.open(ObjectName(name, "name")))
    }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_region_open_fd")
public func agr_region_open_fd(
  _ fd: Int32, _ config: UnsafePointer<agr_region_config>?,
  _ out_region: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_region, "out_region")
    out.pointee = nil
    let request = try readRequest(config)
    guard fd >= 0 else { throw .argument("fd", "must be a descriptor") }
    let file = try RegionFile(platform_duplicate(fd), "fd", "the descriptor cannot be used")
    out.pointee = try makeHandle(.region, request.adopt(file, "fd"))
    return AGR_OK
  }
}

@implementation @_cdecl("agr_region_fd")
public func agr_region_fd(
  _ region: OpaquePointer?, _ out_fd: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let region = try regionHandle(region)
    try required(out_fd, "out_fd").pointee = region.pointee.file
    return AGR_OK
  }
}

@implementation @_cdecl("agr_region_close")
public func agr_region_close(_ region: OpaquePointer?) {
  guard let region = try? regionHandle(region) else { return }
  destroy(region, .region)
}

@implementation @_cdecl("agr_region_unlink")
public func agr_region_unlink(
  _ name: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    var path = RegionRequest.path(try ObjectName(name, "name"))
    let status = platform_region_unlink(&path)
    if status == 0 &- platform_error_missing { return AGR_NOT_FOUND }
    guard status == 0 else { throw .system("name", "the name cannot be taken away", 0 &- status) }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_region_remove")
public func agr_region_remove(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let region = try regionHandle(region)
    let name = try ObjectName(name, "name")
    return try region.pointee.directory.remove(name) ? AGR_OK : AGR_NOT_FOUND
  }
}

@implementation @_cdecl("agr_region_next_object")
public func agr_region_next_object(
  _ region: OpaquePointer?, _ cursor: UnsafeMutablePointer<UInt64>?,
  _ out_object: UnsafeMutablePointer<agr_region_object>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let region = try regionHandle(region)
    let cursor = try required(cursor, "cursor")
    let out = try checkOutput(out_object, "out_object")
    var found: RegionDirectory.Place?
    try region.pointee.directory.forEach { place, isNamed in
      if isNamed && UInt64(truncatingIfNeeded: place.entry) >= cursor.pointee { found = place }
      return found == nil
    }
    guard let found else { return AGR_EMPTY }
    cursor.pointee = UInt64(truncatingIfNeeded: found.entry) &+ 1
    var object = agr_region_object()
    object.kind = Int32(truncatingIfNeeded: found.record.kind)
    object.state_bytes = found.record.bytes
    withUnsafeMutableBytes(of: &object.name) { bytes in
      for index in 0..<ObjectRecord.nameBytes {
        bytes.storeBytes(of: found.record.name.byte(index), toByteOffset: index, as: UInt8.self)
      }
    }
    writeStructure(object, to: out)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_region_snapshot_read")
public func agr_region_snapshot_read(
  _ region: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_region_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let region = try regionHandle(region)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    var named: UInt32 = 0
    var used: UInt32 = 0
    let end = try region.pointee.directory.forEach { _, isNamed in
      used &+= 1
      if isNamed { named &+= 1 }
      return true
    }
    writeStructure(
      agr_region_snapshot(
        struct_size: 0, objects: named,
        max_objects: UInt32(truncatingIfNeeded: region.pointee.entries), used_objects: used,
        bytes: region.pointee.bytes, used_bytes: end, free_bytes: region.pointee.bytes &- end),
      to: out)
    return AGR_OK
  }
}
