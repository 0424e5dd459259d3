import Foundation
import Host

/// A point in time that only bounds a hang: no test passes or fails by how long something takes.
package struct Deadline: Sendable {
  private let end: UInt64

  /// How many times as long as usual is waited: KVMLITE_PATIENCE, for hosts made of software.
  package static let patience =
    ProcessInfo.processInfo.environment["KVMLITE_PATIENCE"].flatMap(Double.init) ?? 1

  /// `seconds` from now, or more where KVMLITE_PATIENCE says so.
  package init(seconds: Double = 90) {
    end = Clock.monotonicNanoseconds + UInt64(seconds * Self.patience * 1e9)
  }

  /// Whether the time is up.
  package var isOver: Bool { Clock.monotonicNanoseconds >= end }

  /// What is left, for `poll`.
  package var milliseconds: Int32 {
    let now = Clock.monotonicNanoseconds
    return now >= end ? 0 : Int32((end - now) / 1_000_000 + 1)
  }

  /// The point in time, as `Clock.monotonicNanoseconds` counts.
  package var nanoseconds: UInt64 { end }
}

/// Something didn't come before its deadline.
package struct Overdue: Error, CustomStringConvertible {
  /// What was waited for, and what came instead.
  package let description: String

  /// Says what was waited for.
  package init(_ description: String) { self.description = description }
}
