/// A value that one thread at a time uses, and whose changes threads can wait for.
@safe public final class Guarded<Value>: @unchecked Sendable {
  // Sound as Sendable: the value is reached only inside the lock.
  private let monitor = Monitor()
  private var value: Value

  /// Takes over `value`.
  public init(_ value: sending Value) { self.value = value }

  /// Runs `body` alone with the value.
  public func locked<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try monitor.locked { () throws(Failure) in try body(&value) }
  }

  /// Waits until `body` gives something other than nil, and returns that. `body` runs alone with the
  /// value, now and after each `wakeAll()`.
  public func waiting<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result?
  ) throws(Failure) -> Result {
    try monitor.locked { () throws(Failure) in
      while true {
        if let result = try body(&value) { return result }
        monitor.wait()
      }
    }
  }

  /// Waits until `body` holds, which runs alone with the value, but no longer than until `deadline`
  /// (`Clock.monotonicNanoseconds`); returns whether it holds.
  package func waits(until deadline: UInt64, for body: (inout Value) -> Bool) -> Bool {
    monitor.locked {
      while !body(&value) {
        guard monitor.wait(until: deadline) else { return body(&value) }
      }
      return true
    }
  }

  /// Wakes all who wait, to look again.
  public func wakeAll() { monitor.wakeAll() }
}
