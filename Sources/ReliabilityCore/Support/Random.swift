/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
package struct SplitMix64 {
  package var state: UInt64

  @inline(__always)
  package init(seed: UInt64) { state = seed }

  @inline(__always)
  package mutating func next() -> UInt64 {
    state &+= SplitMix64.increment
    return SplitMix64.mix(state)
  }

  package static let increment: UInt64 = 0x9E37_79B9_7F4A_7C15

  /// The output function: stream element `i` is `mix(seed + i·increment)`.
  @inline(__always)
  package static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z &>> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z &>> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z &>> 31)
  }
}

/// Uniform in [0, 1): the top 53 bits.
@inline(__always)
package func unitInterval(_ random: UInt64) -> Double {
  Double(random &>> 11) * 0x1p-53
}
