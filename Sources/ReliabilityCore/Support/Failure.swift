/// What was wrong with a call: never with the library. The boundary turns it into a status.
package struct Failure: Error {
  package enum Kind {
    case argument, noMemory, capacity, state, neverFits, parse, system, region, mismatch, store
  }

  package let kind: Kind
  /// The field, argument or component at fault, as the header spells it.
  package let field: StaticString
  package let message: StaticString
  /// The `errno` of a system call; 0 for every other kind.
  package let systemError: Int32

  package init(
    _ kind: Kind, _ field: StaticString, _ message: StaticString, systemError: Int32 = 0
  ) {
    self.kind = kind
    self.field = field
    self.message = message
    self.systemError = systemError
  }

  package static func argument(_ field: StaticString, _ message: StaticString) -> Failure {
    Failure(.argument, field, message)
  }

  package static let noMemory = Failure(.noMemory, "", "an allocation failed")
}
