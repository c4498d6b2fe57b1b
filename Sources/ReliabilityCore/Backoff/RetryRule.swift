import Platform

/// What kind of end a call had, as the retry sees it.
package enum ErrorClass: Int32, BitwiseCopyable {
  case success = 1
  /// Worth another try, with exponential backoff.
  case transient
  /// Rate-limited or overloaded: another try after a fixed delay.
  case temporary
  /// Another try would end the same.
  case permanent
  case cancelled
  /// Sent, and no reply: it may have had its effect.
  case unknown

  /// What a breaker is told.
  package var outcome: CallOutcome {
    switch self {
    case .success: .success
    case .transient, .unknown: .failure
    case .temporary: .backpressure
    case .permanent, .cancelled: .neutral
    }
  }
}

/// What a code is a code of.
package enum Domain: Int32, BitwiseCopyable {
  case none = 0
  case http, errno, user
}

/// One line of a table of rules.
package struct RetryRule: BitwiseCopyable {
  package var domain: Domain
  package var first: Int32
  package var last: Int32
  package var errorClass: ErrorClass
  package var maxRetries: UInt32
  /// `byDefault`: the configuration's.
  package var firstDelay: Int64

  package static let byDefault: Int64 = -1
  package static let unlimited: UInt32 = .max

  package init(
    _ domain: Domain, _ first: Int32, _ last: Int32, _ errorClass: ErrorClass,
    retries: UInt32 = unlimited, delay: Int64 = byDefault
  ) {
    self.domain = domain
    self.first = first
    self.last = last
    self.errorClass = errorClass
    maxRetries = retries
    firstDelay = delay
  }

  /// From a caller's numbers.
  package init(
    checking domain: Int32, first: Int32, last: Int32, errorClass: Int32, retries: UInt32,
    delay: Int64
  ) throws(Failure) {
    guard let known = Domain(rawValue: domain), known != .none else {
      throw .argument("rules.domain", "must be AGR_DOMAIN_HTTP, _ERRNO or _USER")
    }
    guard first <= last else {
      throw .argument("rules.code_min", "must not be above code_max")
    }
    guard let kind = ErrorClass(rawValue: errorClass) else {
      throw .argument("rules.error_class", "must be one of AGR_CLASS_*")
    }
    guard delay == RetryRule.byDefault || Time.isValid(delay) else {
      throw .argument("rules.first_delay_ns", "must be AGR_DELAY_DEFAULT, or 0 ... AGR_TIME_MAX_NS")
    }
    self.init(known, first, last, kind, retries: retries, delay: delay)
  }

  package func matches(_ domain: Domain, _ code: Int32) -> Bool {
    self.domain == domain && first <= code && code <= last
  }

  /// The default table, by index; `nil` behind its end. HTTP classes follow RFC 9110 and what the
  /// clients of the large providers retry; counts and first delays are the project's.
  package static func standard(_ index: Int) -> RetryRule? {
    switch index {
    case 0: RetryRule(.errno, ETIMEDOUT, ETIMEDOUT, .unknown, retries: 3, delay: Time.second)
    case 1: RetryRule(.http, 503, 503, .temporary, retries: 2, delay: 2 * Time.second)
    case 2: RetryRule(.http, 401, 401, .transient, retries: 1, delay: 0)
    case 3: RetryRule(.http, 408, 408, .unknown, retries: 3, delay: Time.second)
    case 4: RetryRule(.http, 429, 429, .temporary)
    case 5: RetryRule(.http, 409, 409, .transient)
    case 6: RetryRule(.http, 425, 425, .transient)
    case 7: RetryRule(.http, 501, 501, .permanent)
    case 8: RetryRule(.http, 505, 506, .permanent)
    case 9: RetryRule(.http, 500, 599, .transient)
    case 10: RetryRule(.http, 400, 499, .permanent)
    case 11: RetryRule(.http, 100, 399, .success)
    case 12: RetryRule(.errno, ECANCELED, ECANCELED, .cancelled)
    case 13: RetryRule(.errno, ECONNRESET, ECONNRESET, .unknown)
    case 14: RetryRule(.errno, EPIPE, EPIPE, .unknown)
    case 15: RetryRule(.errno, 1, .max, .transient)
    default: nil
    }
  }

  package static let standardCount = 16

  /// The most rules that a table of a caller's may have.
  package static let maximumCount = 64

  /// The rule of the default table that a code falls under.
  package static func standard(for domain: Domain, _ code: Int32) -> RetryRule? {
    var index = 0
    while let rule = standard(index) {
      if rule.matches(domain, code) { return rule }
      index &+= 1
    }
    return nil
  }

  /// What stands in for a rule when none matches.
  package static func unmatched(_ domain: Domain, _ code: Int32) -> RetryRule {
    RetryRule(domain, code, code, .transient)
  }
}
