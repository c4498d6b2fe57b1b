public import CAutoGLMReliability
public import CAutoGLMReliabilityRedis

@implementation @_cdecl("agr_redis_config_init")
public func agr_redis_config_init(
  _ config: UnsafeMutablePointer<agr_redis_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size)
}

@implementation @_cdecl("agr_redis_open")
public func agr_redis_open(
  _ config: UnsafePointer<agr_redis_config>?,
  _ out_driver: UnsafeMutablePointer<agr_store_driver>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  do throws(Fault) {
    guard let out = out_driver else { throw .argument("out_driver", "must not be NULL") }
    out.pointee = agr_store_driver()
    out.pointee = try RedisDriver.make(config)
    return agr_status(truncatingIfNeeded: AGR_OK)
  } catch let fault {
    error?.pointee = agr_error()
    error?.pointee.status = agr_status(truncatingIfNeeded: fault.status)
    return agr_status(
      truncatingIfNeeded: fail(error, fault.status, fault.message, field: fault.field))
  }
}
