/// The 16-byte receive FIFO of a 16550A; with FIFOs off, its first place is the RBR.
struct ReceiveFIFO: Sendable {
  static let capacity = 16

  /// How many bytes wait.
  private(set) var count = 0
  private var bytes = InlineArray<16, UInt8>(repeating: 0)
  private var first = 0
  // One bit a place: the character there is a break.
  private var breaks: UInt16 = 0

  /// Whether a break waits anywhere.
  var hasBreaks: Bool { breaks != 0 }

  /// Puts a byte at the end; there must be room.
  mutating func append(_ byte: UInt8, isBreak: Bool) {
    let place = (first &+ count) & 15
    bytes[place] = byte
    if isBreak { breaks |= 1 << UInt16(place) }
    count &+= 1
  }

  /// The bytes that wait, the top one first.
  var waiting: [UInt8] { (0..<count).map { bytes[(first &+ $0) & 15] } }

  /// Takes the byte at the top; an empty FIFO gives what it gave last, as the register would.
  mutating func removeFirst() -> UInt8 {
    guard count > 0 else { return bytes[(first &- 1) & 15] }
    let byte = bytes[first]
    breaks &= ~(1 << UInt16(first))
    first = (first &+ 1) & 15
    count &-= 1
    return byte
  }

  /// Whether the top character is a break; tells it once.
  mutating func takeBreakOfFirst() -> Bool {
    let bit: UInt16 = 1 << UInt16(first)
    guard count > 0 && breaks & bit != 0 else { return false }
    breaks &= ~bit
    return true
  }

  /// Empties the FIFO.
  mutating func removeAll() {
    count = 0
    breaks = 0
  }
}

extension ReceiveFIFO {
  func save(to state: inout StateWriter) {
    state.write("received", waiting)
    let mask = (0..<count).reduce(0 as UInt16) { mask, index in
      breaks >> UInt16((first &+ index) & 15) & 1 == 0 ? mask : mask | 1 << UInt16(index)
    }
    state.write("breaks", mask)
    state.write("last", bytes[(first &- 1) & 15])
  }

  /// What was saved of a FIFO with room for `limit`.
  init(_ state: StateReader, limit: Int) throws(StateError) {
    let waiting = try state.readBytes("received", limit: limit)
    let mask = try state.read("breaks", as: UInt16.self)
    guard mask >> UInt16(waiting.count) == 0 else { throw .impossible("breaks") }
    bytes[Self.capacity - 1] = try state.read("last")
    for (index, byte) in waiting.enumerated() {
      append(byte, isBreak: mask >> UInt16(index) & 1 != 0)
    }
  }
}
