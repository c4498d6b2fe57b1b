import ReliabilityCore

/// Memory for parts of engines that are tested by themselves.
struct Yard: ~Copyable {
  private let memory: Block

  init() throws { memory = try Block(bytes: 1 << 20) }

  var words: AtomicWords { memory.words }

  var pairs: AtomicPairs { AtomicPairs(at: memory.start) }

  func window(_ size: Int, next: UInt64 = 0) -> CountWindow {
    var ground = ground()
    let window = CountWindow(size: size, &ground)
    if next != 0 { window.begin(next: next) }
    return window
  }

  func window(length: Int64) -> TimeWindow {
    var ground = ground()
    return TimeWindow(length: length, &ground)
  }

  func ground() -> Ground {
    Ground(
      shared: Arena(at: memory.start), local: Arena(at: memory.start + 1 << 19), process: nil)
  }
}
