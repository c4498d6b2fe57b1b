/// SipHash-1-3 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012; one compression and three
/// finalisation rounds). Keyed by a secret seed, so that nobody can choose keys that collide.
package struct SipHash {
  private let k0: UInt64
  private let k1: UInt64

  package init(seed: UInt64) {
    var stream = SplitMix64(seed: seed)
    self.init(k0: stream.next(), k1: stream.next())
  }

  package init(k0: UInt64, k1: UInt64) {
    self.k0 = k0
    self.k1 = k1
  }

  /// `count` bytes from `bytes`, which may be `nil` when `count` is 0.
  package func hash(_ bytes: UnsafeRawPointer?, _ count: Int) -> UInt64 {
    var state = State(k0, k1)
    var offset = 0
    if let bytes {
      while offset &+ 8 <= count {
        state.compress(
          UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        offset &+= 8
      }
    }
    let rest = UInt64(truncatingIfNeeded: count &- offset)
    var last = UInt64(truncatingIfNeeded: count) &<< 56
    if let bytes, rest > 0 {
      if count >= 8 {
        // The rest is the end of the last eight bytes.
        let end = bytes.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
        last |= UInt64(littleEndian: end) &>> (64 &- 8 &* rest)
      } else {
        for index in 0..<count {
          let byte = bytes.load(fromByteOffset: index, as: UInt8.self)
          last |= UInt64(byte) &<< UInt64(truncatingIfNeeded: index &* 8)
        }
      }
    }
    state.compress(last)
    return state.finish()
  }

  private struct State {
    var v0, v1, v2, v3: UInt64

    @inline(__always)
    init(_ k0: UInt64, _ k1: UInt64) {
      v0 = k0 ^ 0x736f_6d65_7073_6575
      v1 = k1 ^ 0x646f_7261_6e64_6f6d
      v2 = k0 ^ 0x6c79_6765_6e65_7261
      v3 = k1 ^ 0x7465_6462_7974_6573
    }

    @inline(__always)
    mutating func round() {
      v0 &+= v1
      v1 = rotate(v1, 13) ^ v0
      v0 = rotate(v0, 32)
      v2 &+= v3
      v3 = rotate(v3, 16) ^ v2
      v0 &+= v3
      v3 = rotate(v3, 21) ^ v0
      v2 &+= v1
      v1 = rotate(v1, 17) ^ v2
      v2 = rotate(v2, 32)
    }

    @inline(__always)
    mutating func compress(_ word: UInt64) {
      v3 ^= word
      round()
      v0 ^= word
    }

    @inline(__always)
    mutating func finish() -> UInt64 {
      v2 ^= 0xff
      round()
      round()
      round()
      return v0 ^ v1 ^ v2 ^ v3
    }

    @inline(__always)
    private func rotate(_ value: UInt64, _ by: UInt64) -> UInt64 {
      (value &<< by) | (value &>> (64 &- by))
    }
  }
}
