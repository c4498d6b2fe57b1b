public import CAutoGLMReliability
public import CAutoGLMReliabilitySQLite
import CSQLite
import Platform

@implementation @_cdecl("agr_sqlite_config_init")
public func agr_sqlite_config_init(
  _ config: UnsafeMutablePointer<agr_sqlite_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size)
}

@implementation @_cdecl("agr_sqlite_open")
public func agr_sqlite_open(
  _ config: UnsafePointer<agr_sqlite_config>?,
  _ out_driver: UnsafeMutablePointer<agr_store_driver>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  do throws(Trouble) {
    guard let out = out_driver else { throw .argument("out_driver", "must not be NULL") }
    out.pointee = agr_store_driver()
    out.pointee = try SQLiteDriver.make(config)
    return agr_status(truncatingIfNeeded: AGR_OK)
  } catch let trouble { return trouble.report(error) }
}
