/// A doubly linked list of slot numbers; the links lie in a slab that the caller passes along.
///
/// Invariant: a slot is in at most one of the lists that share a slab of links.
package struct IndexList: BitwiseCopyable {
  package struct Link: BitwiseCopyable {
    var previous: UInt32
    var next: UInt32
  }

  static let none: UInt32 = .max

  private(set) var first = IndexList.none
  private(set) var last = IndexList.none

  var isEmpty: Bool { first == IndexList.none }
  var hasOne: Bool { first == last && first != IndexList.none }

  mutating func append(_ slot: Int, _ links: borrowing Slab<Link>) {
    let number = UInt32(truncatingIfNeeded: slot)
    links[slot] = Link(previous: last, next: IndexList.none)
    if last == IndexList.none { first = number } else { links.at(Int(last)).pointee.next = number }
    last = number
  }

  mutating func remove(_ slot: Int, _ links: borrowing Slab<Link>) {
    let link = links[slot]
    if link.previous == IndexList.none {
      first = link.next
    } else {
      links.at(Int(link.previous)).pointee.next = link.next
    }
    if link.next == IndexList.none {
      last = link.previous
    } else {
      links.at(Int(link.next)).pointee.previous = link.previous
    }
  }

  mutating func popFirst(_ links: borrowing Slab<Link>) -> Int? {
    guard first != IndexList.none else { return nil }
    let slot = Int(first)
    remove(slot, links)
    return slot
  }
}
