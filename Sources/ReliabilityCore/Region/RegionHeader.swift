/// The first page of a region: what it must be, to be one of this version.
package enum RegionHeader {
  /// Where the directory begins.
  package static let bytes = 4096
  package static let page = 4096
  package static let maximumBytes: UInt64 = 1 << 40

  private static let magic: UInt64 = 0x4e47_4552_5247_4100  // "\0AGRREGN"
  /// To be raised with every change of what lies in a region: of the directory, and of any engine's state.
  private static let version: UInt64 = 1
  /// Looks otherwise where bytes have another order.
  private static let order: UInt64 = 0x0102_0304_0506_0708

  private static let magicWord = 0
  private static let versionWord = 1
  private static let orderWord = 2
  private static let bytesWord = 3
  private static let entriesWord = 4
  private static let sumWord = 5

  package static func write(_ words: AtomicWords, bytes: UInt64, entries: UInt64) {
    words.store(magicWord, magic)
    words.store(versionWord, version)
    words.store(orderWord, order)
    words.store(bytesWord, bytes)
    words.store(entriesWord, entries)
    words.storeReleasing(sumWord, sum(bytes, entries))
  }

  /// The number of entries, of a header that is right for memory of so many bytes. `field` is what it came by.
  package static func check(
    _ words: AtomicWords, bytes: UInt64, _ field: StaticString
  ) throws(Failure) -> Int {
    guard words.loadAcquiring(magicWord) == magic else {
      throw Failure(.region, field, "is not a region of this library")
    }
    guard words.load(orderWord) == order else {
      throw Failure(.region, field, "is a region of a machine with another order of bytes")
    }
    guard words.load(versionWord) == version else {
      throw Failure(.region, field, "is a region of another version of this library")
    }
    let entries = words.load(entriesWord)
    guard words.load(bytesWord) == bytes else {
      throw Failure(.region, field, "is a region that was cut or extended")
    }
    guard words.load(sumWord) == sum(bytes, entries), entries >= 1,
      entries <= UInt64(RegionDirectory.maximumCount),
      RegionDirectory.dataStart(entries: Int(truncatingIfNeeded: entries)) < bytes
    else { throw Failure(.region, field, "is a region that was damaged") }
    return Int(truncatingIfNeeded: entries)
  }

  private static func sum(_ bytes: UInt64, _ entries: UInt64) -> UInt64 {
    SplitMix64.mix(SplitMix64.mix(bytes ^ magic) ^ entries &* SplitMix64.increment ^ version)
  }
}
