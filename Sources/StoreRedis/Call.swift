import CAutoGLMReliability
import Platform

/// A command in the making: a script with its keys and arguments, and where it goes.
struct Call: ~Copyable {
  let script: Script
  let slot: Int
  /// Whether doing it twice is like doing it once.
  let isRepeatable: Bool
  private(set) var tail = Bytes()
  private(set) var parts = 0
  /// Of one of its keys.
  private(set) var fault: Fault?
  /// Whether its keys are in several slots.
  private(set) var crossesSlots = false

  static let longestKey = 1 << 20

  /// `keys` of which there are so many are appended before any argument.
  init(_ script: Script, _ key: agr_store_key, keys: Int, isRepeatable: Bool = true) {
    self.script = script
    self.isRepeatable = isRepeatable
    do throws(Fault) {
      slot = try Call.name(of: key).slot
    } catch {
      slot = 0
      fault = error
    }
    argument(Int64(keys))
  }

  mutating func key(
    _ store: Store, _ group: StaticString, _ key: agr_store_key, _ hasKey: Bool = true
  ) {
    guard fault == nil else { return }
    let form: KeyName
    do throws(Fault) {
      form = try Call.name(of: key)
    } catch {
      fault = error
      return
    }
    if form.slot != slot { crossesSlots = true }
    var name = Bytes()
    if let prefix = store.settings.pointee.prefix { name.append(prefix.base, prefix.count) }
    name.append(":")
    name.append(group)
    name.append(form.isTagged ? ":" : ":{")
    name.append(key.space, key.space_length)
    if !form.isTagged { name.append("}") }
    if hasKey {
      name.append(":")
      name.append(key.data, key.length)
    }
    parts &+= 1
    tail.part(name.base, name.count)
    if name.isVoid { tail.makeVoid() }
  }

  private static func name(of key: agr_store_key) throws(Fault) -> KeyName {
    guard let space = key.space, key.space_length >= 1, key.space_length <= 63 else {
      throw .argument("space", "must be 1 ... 63 bytes")
    }
    guard key.length <= longestKey else {
      throw Fault(
        status: AGR_ERR_NEVER_FITS, field: "key_length", message: "must be 0 ... 1,048,576")
    }
    guard key.data != nil || key.length == 0 else {
      throw .argument("key", "must not be NULL with a length")
    }
    guard let name = KeyName(space, key.space_length) else {
      throw .argument("space", "must not begin with }")
    }
    return name
  }

  mutating func argument(_ number: Int64) {
    parts &+= 1
    tail.part(number)
  }

  mutating func argument(_ bytes: UnsafeRawPointer?, _ length: Int) {
    parts &+= 1
    tail.part(bytes, length)
  }

  mutating func argument(_ text: StaticString) { argument(text.utf8Start, text.utf8CodeUnitCount) }

  /// 16 bytes, or none for two zeros.
  mutating func argument(_ pair: (UInt64, UInt64)) {
    var pair = pair
    argument(&pair, pair.0 == 0 && pair.1 == 0 ? 0 : 16)
  }

  /// A duration, rounded up to microseconds, never 0.
  mutating func argument(duration: Int64) {
    argument(max(1, duration / 1000 &+ (duration % 1000 > 0 ? 1 : 0)))
  }
}
