import CAutoGLMReliability
import ReliabilityCore

// What is asked of a driver's table before anything in it is called.

/// The table, with NULL for the functions that it does not have.
func readDriver(
  _ driver: UnsafePointer<agr_store_driver>?
) throws(Failure) -> (functions: agr_store_api, driver: UnsafeMutableRawPointer?) {
  guard let driver else { throw .argument("driver", "must not be NULL") }
  guard let table = driver.pointee.api else { throw .argument("api", "must not be NULL") }
  let functions = try readTable(table)
  guard functions.struct_size >= leastTable else {
    throw .argument("struct_size", "the table is without ping and destroy")
  }
  if functions.reserved != 0 { throw .argument("reserved", "must be 0") }
  guard functions.ping != nil else { throw .argument("ping", missing) }
  guard functions.destroy != nil else { throw .argument("destroy", missing) }
  try requireIdempotency(functions)
  try requireLeases(functions)
  try requireBreaker(functions)
  return (functions, driver.pointee.`self`)
}

/// A table with no more than ping and destroy.
private let leastTable: UInt32 = 32

private let missing: StaticString = "is missing: a group of functions is given whole"

private func requireIdempotency(_ functions: agr_store_api) throws(Failure) {
  let begin = functions.begin != nil
  let read = functions.read != nil
  let renew = functions.renew != nil
  let complete = functions.complete != nil
  let giveBack = functions.give_back != nil
  guard begin || read || renew || complete || giveBack else { return }
  guard begin else { throw .argument("begin", missing) }
  guard read else { throw .argument("read", missing) }
  guard renew else { throw .argument("renew", missing) }
  guard complete else { throw .argument("complete", missing) }
  guard giveBack else { throw .argument("give_back", missing) }
}

private func requireLeases(_ functions: agr_store_api) throws(Failure) {
  let acquire = functions.acquire != nil
  let extend = functions.extend != nil
  let release = functions.release != nil
  guard acquire || extend || release else { return }
  guard acquire else { throw .argument("acquire", missing) }
  guard extend else { throw .argument("extend", missing) }
  guard release else { throw .argument("release", missing) }
}

private func requireBreaker(_ functions: agr_store_api) throws(Failure) {
  let read = functions.breaker_read != nil
  let set = functions.breaker_set != nil
  let probe = functions.probe != nil
  guard read || set || probe else { return }
  guard read else { throw .argument("breaker_read", missing) }
  guard set else { throw .argument("breaker_set", missing) }
  guard probe else { throw .argument("probe", missing) }
}
