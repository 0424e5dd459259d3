import KVM

/// The last exits of one VCPU, always kept, for the account of a crash: after a triple fault KVM has
/// reset the registers, and this is what is left.
package struct ExitHistory: Sendable {
  /// One exit, in numbers alone.
  package struct Record: Sendable {
    package var exit: Exit = .interrupted
    package var instructionPointer: UInt64 = 0
    package var data: UInt64 = 0
  }

  private var records = InlineArray<16, Record>(repeating: Record())
  private var count = 0

  @inline(__always)
  mutating func add(_ exit: Exit, instructionPointer: UInt64, data: UInt64) {
    records[count & 15] = Record(exit: exit, instructionPointer: instructionPointer, data: data)
    count &+= 1
  }

  /// How many exits there were in all.
  package var total: Int { count }

  /// The exits that are still known, oldest first.
  package var last: [Record] {
    (max(0, count - 16)..<count).map { records[$0 & 15] }
  }
}
