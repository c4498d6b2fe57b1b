/// Retries as a share of the traffic: a bucket of thousandths of a retry into which requests pay.
package struct RetryBudget: ~Copyable, Engine {
  package struct Configuration {
    package let minPerSecond: UInt32
    package let ratio: Double
    package let quota: UInt32
    package let initial: UInt32
    let bucket: Limiter.Configuration

    package init(
      minPerSecond: UInt32, ratio: Double, quota: UInt32, initial: UInt32
    ) throws(Failure) {
      guard minPerSecond <= RetryBudget.maximum else {
        throw .argument("min_per_second", "must be 0 ... 1,000,000")
      }
      guard ratio >= 0 && ratio <= 1000 else { throw .argument("ratio", "must be 0 ... 1000") }
      guard quota >= 1 && quota <= RetryBudget.maximum else {
        throw .argument("quota", "must be 1 ... 1,000,000")
      }
      guard initial <= quota else { throw .argument("initial", "must be 0 ... quota") }
      let rate = try TokenRate(
        capacity: Int64(quota) &* RetryBudget.whole, maxDebt: 0,
        tokens: Int64(minPerSecond) &* RetryBudget.whole, interval: Time.second)
      bucket = try Limiter.Configuration(
        rate: rate, initial: Int64(initial) &* RetryBudget.whole, maxReservations: 0,
        reservationTimeout: 1, observe: false)
      self.minPerSecond = minPerSecond
      self.ratio = ratio
      self.quota = quota
      self.initial = initial
    }
  }

  private let bucket: Limiter
  private let perRequest: Int64
  private let quota: UInt32

  private static let whole: Int64 = 1000
  private static let maximum: UInt32 = 1_000_000

  package init(
    _ configuration: Configuration, _ ground: inout Ground, _ memory: consuming Block
  ) {
    bucket = Limiter(configuration.bucket, &ground, memory)
    perRequest = Time.clamp(
      configuration.ratio * Double(RetryBudget.whole) + 0.5, limit: .max)
    quota = configuration.quota
  }

  package func begin(_ configuration: Configuration, _ beginning: Beginning) {
    bucket.begin(configuration.bucket, beginning)
  }

  package func settle(_ salt: UInt64) { bucket.settle(salt) }

  package init(_ configuration: Configuration, now: Int64) throws(Failure) {
    try requireTime(now, "now_ns")
    self = try RetryBudget.alone(configuration, Beginning(seed: 0, now: now))
  }

  /// Takes whole retries out, if they are there.
  package func withdraw(_ cost: UInt32, now: Int64) throws(Failure) -> TakeDecision {
    guard cost <= quota else {
      throw Failure(.neverFits, "cost", "more than the quota: it could never be there")
    }
    return try bucket.tryAcquire(Int64(cost) &* RetryBudget.whole, now: now)
  }

  /// Puts in what first attempts earn.
  package func deposit(requests: UInt32, now: Int64) throws(Failure) {
    let earned = Int64(requests).multipliedReportingOverflow(by: perRequest)
    try bucket.deposit(
      earned.overflow
        ? TokenRate.maximumTokens : Swift.min(earned.partialValue, TokenRate.maximumTokens),
      now: now)
  }

  package func balance(now: Int64) throws(Failure) -> Int64 {
    try Swift.max(0, bucket.available(now: now))
  }
}
