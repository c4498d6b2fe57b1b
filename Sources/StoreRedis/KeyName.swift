import CAutoGLMReliability

/// What the keys of a space are called on the server, and the slot of a cluster that they are in.
///
/// A key is PREFIX:GROUP:{SPACE}:KEY, or PREFIX:GROUP:SPACE:KEY when the space has a tag of its own. The server takes
/// the slot from what is between the first brace that opens and the first behind it that closes; that is always in the
/// space, whatever a caller's key holds.
struct KeyName {
  /// Whether the space has a tag, and gets no braces.
  let isTagged: Bool
  let slot: Int

  /// `nil`: in any form the slot would depend on the key.
  init?(_ space: UnsafeRawPointer, _ count: Int) {
    let bytes = space.assumingMemoryBound(to: UInt8.self)
    func find(_ byte: UInt8, from start: Int) -> Int? {
      var index = start
      while index < count {
        if bytes[index] == byte { return index }
        index &+= 1
      }
      return nil
    }
    // All of it in braces would be the keys of the space without them.
    if let open = find(0x7b, from: 0), let close = find(0x7d, from: open), close > open &+ 1,
      open > 0 || close &+ 1 < count
    {
      isTagged = true
      slot = Servers.slot(bytes + (open &+ 1), close &- open &- 1)
      return
    }
    isTagged = false
    let end = find(0x7d, from: 0) ?? count
    guard end > 0 else { return nil }
    slot = Servers.slot(bytes, end)
  }
}

extension Store {
  /// What `agr_store_joins_fn` says. That there are servers beside the first tells a cluster.
  func joins(_ keys: UnsafePointer<agr_store_key>, _ count: Int) -> Int {
    guard servers.isCluster else { return AGR_OK }
    var slot = -1
    for index in 0..<count {
      // What is no key is told when buckets are taken from.
      guard let space = keys[index].space, keys[index].space_length >= 1,
        keys[index].space_length <= 63, let name = KeyName(space, keys[index].space_length)
      else { return AGR_OK }
      if slot >= 0 && slot != name.slot { return AGR_MISMATCH }
      slot = name.slot
    }
    return AGR_OK
  }
}
