public import CAutoGLMReliability
import Platform
import ReliabilityCore

private func budgetDefaults() -> agr_retry_budget_config {
  agr_retry_budget_config(
    struct_size: UInt32(MemoryLayout<agr_retry_budget_config>.size), min_per_second: 10,
    ratio: 0.2, quota: 100, initial: 100)
}

private func readConfiguration(
  _ config: agr_retry_budget_config
) throws(Failure) -> RetryBudget.Configuration {
  try RetryBudget.Configuration(
    minPerSecond: config.min_per_second, ratio: config.ratio, quota: config.quota,
    initial: config.initial)
}

@inline(__always)
private func budgetHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<RetryBudget> {
  try handle(pointer, .retryBudget, "budget")
}

@implementation @_cdecl("agr_retry_budget_config_init")
public func agr_retry_budget_config_init(
  _ config: UnsafeMutablePointer<agr_retry_budget_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, budgetDefaults())
}

@implementation @_cdecl("agr_retry_budget_create")
public func agr_retry_budget_create(
  _ config: UnsafePointer<agr_retry_budget_config>?,
  _ out_budget: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_retry_budget_create_at(config, now(), out_budget, error)
}

@implementation @_cdecl("agr_retry_budget_create_at")
public func agr_retry_budget_create_at(
  _ config: UnsafePointer<agr_retry_budget_config>?, _ now_ns: Int64,
  _ out_budget: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_budget, "out_budget")
    out.pointee = nil
    let config = try readStructure(config, defaults: budgetDefaults(), "config")
    let engine = try RetryBudget(readConfiguration(config), now: now_ns)
    out.pointee = try makeHandle(.retryBudget, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_retry_budget_create_in_region")
public func agr_retry_budget_create_in_region(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_retry_budget_config>?,
  _ out_budget: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_retry_budget_create_in_region_at(region, name, config, now(), out_budget, error)
}

@implementation @_cdecl("agr_retry_budget_create_in_region_at")
public func agr_retry_budget_create_in_region_at(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_retry_budget_config>?, _ now_ns: Int64,
  _ out_budget: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_budget, "out_budget")
    out.pointee = nil
    let config = try readStructure(config, defaults: budgetDefaults(), "config")
    out.pointee = try openShared(
      RetryBudget.self, .retryBudget, region, name, readConfiguration(config), now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_retry_budget_destroy")
public func agr_retry_budget_destroy(_ budget: OpaquePointer?) {
  guard let budget = try? budgetHandle(budget) else { return }
  destroy(budget, .retryBudget)
}

@implementation @_cdecl("agr_retry_budget_withdraw")
public func agr_retry_budget_withdraw(
  _ budget: OpaquePointer?, _ cost: UInt32, _ out_retry_after_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_retry_budget_withdraw_at(budget, cost, now(), out_retry_after_ns, error)
}

@implementation @_cdecl("agr_retry_budget_withdraw_at")
public func agr_retry_budget_withdraw_at(
  _ budget: OpaquePointer?, _ cost: UInt32, _ now_ns: Int64,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let budget = try budgetHandle(budget)
    out_retry_after_ns?.pointee = 0
    switch try budget.pointee.withdraw(cost, now: now_ns) {
    case .admitted: return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_EXHAUSTED
    }
  }
}

@implementation @_cdecl("agr_retry_budget_deposit")
public func agr_retry_budget_deposit(
  _ budget: OpaquePointer?, _ requests: UInt32, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_retry_budget_deposit_at(budget, requests, now(), error)
}

@implementation @_cdecl("agr_retry_budget_deposit_at")
public func agr_retry_budget_deposit_at(
  _ budget: OpaquePointer?, _ requests: UInt32, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let budget = try budgetHandle(budget)
    try budget.pointee.deposit(requests: requests, now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_retry_budget_balance")
public func agr_retry_budget_balance(
  _ budget: OpaquePointer?, _ out_thousandths: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_retry_budget_balance_at(budget, now(), out_thousandths, error)
}

@implementation @_cdecl("agr_retry_budget_balance_at")
public func agr_retry_budget_balance_at(
  _ budget: OpaquePointer?, _ now_ns: Int64, _ out_thousandths: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let budget = try budgetHandle(budget)
    try required(out_thousandths, "out_thousandths").pointee =
      try budget.pointee.balance(now: now_ns)
    return AGR_OK
  }
}
