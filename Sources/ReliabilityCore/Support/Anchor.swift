public import Synchronization

/// Makes what contains it be used where it lies: the compiler hands on its address, where it would copy a value of
/// pointers and numbers to the stack for each call. That is what an atomic does to a type, and this is one without
/// a use.
@frozen public struct Anchor: ~Copyable {
  @usableFromInline let atomic: Atomic<UInt8>

  package init() { atomic = Atomic(0) }
}
