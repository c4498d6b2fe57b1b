/// What an object of a region is kept under and compared by.
package struct ObjectRecord {
  package static let nameBytes = 63
  package static let maximumFields = 20

  package let name: ObjectName
  package let kind: UInt64
  /// Of its state.
  package let bytes: UInt64
  package let beginning: Beginning
  /// Of a hash that all who use it must agree on.
  package let hashSeed: UInt64
  /// Its configuration.
  package let fields: InlineArray<20, UInt64>

  package init(
    name: ObjectName, kind: UInt64, bytes: UInt64, beginning: Beginning, hashSeed: UInt64,
    fields: InlineArray<20, UInt64>
  ) {
    self.name = name
    self.kind = kind
    self.bytes = bytes
    self.beginning = beginning
    self.hashSeed = hashSeed
    self.fields = fields
  }
}

/// A name of at most 63 bytes as words, the rest of them zero.
package struct ObjectName: BitwiseCopyable {
  package private(set) var words = InlineArray<8, UInt64>(repeating: 0)

  package init(words: InlineArray<8, UInt64>) { self.words = words }

  /// A name of a region or of an object, as a caller gives it.
  package init(_ text: UnsafePointer<CChar>?, _ field: StaticString) throws(Failure) {
    guard let text else { throw .argument(field, "must not be NULL") }
    var length = 0
    while length <= ObjectRecord.nameBytes {
      let byte = UInt8(bitPattern: text[length])
      if byte == 0 { break }
      guard ObjectName.isAllowed(byte), length > 0 || byte != UInt8(ascii: ".") else {
        throw .argument(field, "must consist of A-Z a-z 0-9 . _ - and not begin with a dot")
      }
      if length < ObjectRecord.nameBytes {
        words[length / 8] |= UInt64(byte) &<< UInt64(truncatingIfNeeded: length % 8 &* 8)
      }
      length &+= 1
    }
    guard length >= 1 && length <= ObjectRecord.nameBytes else {
      throw .argument(field, "must be 1 ... 63 bytes")
    }
  }

  package func byte(_ index: Int) -> UInt8 {
    guard index >= 0 && index < ObjectRecord.nameBytes else { return 0 }
    return UInt8(
      truncatingIfNeeded: words[index / 8] &>> UInt64(truncatingIfNeeded: index % 8 &* 8))
  }

  package static func == (a: ObjectName, b: ObjectName) -> Bool {
    for index in 0..<8 where a.words[index] != b.words[index] { return false }
    return true
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
      UInt8(ascii: "-"):
      true
    default: false
    }
  }
}
