import Host
import Synchronization

/// MSI-X: a function's interrupt vectors with their table and pending bits (PCI 3.0, 6.8.2).
///
/// Each vector is an event. While the driver lets it through, a route takes each raise to the
/// processors, and this code has no part in it; while it is masked, the event remembers, and that
/// memory is the pending bit. So it makes no difference who raises: a device of kvmlite's, another
/// process or the kernel.
package final class MSIX: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "msix" }
  /// Takes up to eight bytes in one piece.
  package var widestAccess: Int { 8 }

  /// How many vectors there are, 1 to 2048.
  package let count: Int
  /// Where the pending bits start in the range; the table is at 0.
  package let pendingOffset: UInt64
  /// How large a memory range for both must be: a power of two, at least a page.
  package let size: UInt64

  fileprivate struct Entry {
    var address: UInt64 = 0
    var data: UInt32 = 0
    // All are masked after a reset (6.8.2.9).
    var isMasked = true
    /// What the route has.
    var routed: InterruptMessage?
  }

  /// What the function's registers say.
  struct Control {
    /// Message Control's enable and function mask.
    var isEnabled = false
    var isMasked = false
    /// Bus Master Enable, without which the function can't write messages.
    var mayMaster = false
  }

  private struct State {
    var entries: [Entry]
    var control = Control()
  }

  private let events: [SharedEvent]
  private let routes: [any MessageRoute]
  private let state: RankedMutex<State>
  private let enabled = Atomic(false)
  private static let entrySize: UInt64 = 16

  init(count: Int, _ router: any MessageRouter) throws(Errno) {
    precondition((1...2048).contains(count), "MSI-X has 1 to 2048 vectors")
    var events: [SharedEvent] = []
    for _ in 0..<count { events.append(try SharedEvent()) }
    self.count = count
    self.events = events
    routes = events.map { router.makeRoute(for: $0) }
    state = RankedMutex(.messages, State(entries: Array(repeating: Entry(), count: count)))
    let half = max(UInt64(count) * Self.entrySize, 2048)
    size = (2 * half).nextPowerOfTwo
    pendingOffset = size / 2
  }

  // MARK: For the device

  /// Whether the driver has chosen MSI-X: then the device must not use its pin.
  package var isEnabled: Bool { enabled.load(ordering: .acquiring) }

  /// Raises vector `index`; nothing happens while MSI-X is disabled or for a vector that isn't there,
  /// such as virtio's 0xFFFF for none.
  package func raise(_ index: Int) {
    guard isEnabled, events.indices.contains(index) else { return }
    events[index].event.raise()
  }

  /// The event of vector `index`, below `count`, for another process or the kernel to raise.
  package func event(_ index: Int) -> SharedEvent { events[index] }

  // MARK: For the function

  /// Takes what the registers say now.
  func set(_ control: Control) {
    state.withLock { state in
      if control.isEnabled && !state.control.isEnabled {
        // What was raised before it was wanted is nobody's.
        for event in events { event.event.consume() }
      }
      follow(control, &state)
    }
  }

  private func follow(_ control: Control, _ state: inout State) {
    state.control = control
    for index in 0..<count { update(index, &state) }
    enabled.store(control.isEnabled, ordering: .releasing)
  }

  private func update(_ index: Int, _ state: inout State) {
    let entry = state.entries[index]
    let control = state.control
    let passes =
      control.isEnabled && control.mayMaster && !control.isMasked && !entry.isMasked
    let message =
      passes ? InterruptMessage(address: entry.address & ~3, data: entry.data) : nil
    guard message != entry.routed else { return }
    state.entries[index].routed = message
    routes[index].set(message)
  }

  // MARK: For the driver

  /// Answers from the table or the pending bits; zeros between and behind.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    let value = state.withLock { state in quadword(offset & ~7, state) }
    return value >> ((offset & 7) * 8) & UInt64.max >> UInt64(clamping: 64 - width * 8)
  }

  private func quadword(_ offset: UInt64, _ state: borrowing State) -> UInt64 {
    if offset >= pendingOffset { return pending(from: (offset - pendingOffset) &* 8, state) }
    let index = offset / Self.entrySize
    guard index < UInt64(count) else { return 0 }
    let entry = state.entries[Int(index)]
    if offset & 8 == 0 { return entry.address }
    return UInt64(entry.data) | (entry.isMasked ? 1 << 32 : 0)
  }

  private func pending(from first: UInt64, _ state: borrowing State) -> UInt64 {
    guard state.control.isEnabled, first < UInt64(count) else { return 0 }
    var bits: UInt64 = 0
    for index in Int(first)..<min(Int(first) + 64, count) {
      guard state.entries[index].routed == nil, events[index].event.isRaised else { continue }
      bits |= 1 << (UInt64(index) & 63)
    }
    return bits
  }

  /// Changes the table. Pending bits are read-only, and only writes of 4 or 8 bytes at a multiple of
  /// theirs count (6.8.2).
  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard width >= 4, offset & UInt64(width &- 1) == 0, offset < pendingOffset else { return }
    let index = offset / Self.entrySize
    guard index < UInt64(count) else { return }
    state.withLock { state in
      Self.store(value, offset & 15, &state.entries[Int(index)])
      if width == 8 { Self.store(value >> 32, offset & 15 | 4, &state.entries[Int(index)]) }
      update(Int(index), &state)
    }
  }

  private static func store(_ value: UInt64, _ field: UInt64, _ entry: inout Entry) {
    let word = value & 0xFFFF_FFFF
    switch field {
    case 0: entry.address = entry.address & ~0xFFFF_FFFF | word
    case 4: entry.address = entry.address & 0xFFFF_FFFF | word << 32
    case 8: entry.data = UInt32(word)
    default: entry.isMasked = word & 1 != 0
    }
  }
}

// MARK: - State

extension MSIX {
  /// Masks all vectors and forgets what was raised.
  func reset() {
    let entries = Array(repeating: Entry(), count: count)
    state.withLock { state in take(entries, raised: [], Control(), &state) }
  }

  /// Writes the table, 16 bytes a vector as the driver sees them, and which events are raised: what a
  /// route has passed on isn't among them.
  func save(to state: inout StateWriter) {
    let (entries, isEnabled) = self.state.withLock { ($0.entries, $0.control.isEnabled) }
    var table: [UInt8] = []
    for entry in entries {
      for value in [entry.address, UInt64(entry.data) | (entry.isMasked ? 1 << 32 : 0)] {
        for byte in 0..<8 { table.append(UInt8(truncatingIfNeeded: value >> UInt64(byte * 8))) }
      }
    }
    state.write("table", table)
    state.write(
      "raised", isEnabled ? events.map { $0.event.isRaised ? 1 : 0 } : entries.map { _ in 0 })
  }

  /// Takes both back, under `control`, and raises what was raised.
  func restore(from state: StateReader, _ control: Control) throws(StateError) {
    let table = try state.readBytes("table", count: count * Int(Self.entrySize))
    let raised = try state.readBytes("raised", count: count)
    let entries = try (0..<count).map { (index) throws(StateError) in
      try Entry(table.span.extracting(index * 16..<index * 16 + 16))
    }
    guard raised.allSatisfy({ $0 <= (control.isEnabled ? 1 : 0) }) else {
      throw .impossible("raised")
    }
    let indices = raised.indices.filter { raised[$0] == 1 }
    self.state.withLock { state in take(entries, raised: indices, control, &state) }
  }

  private func take(
    _ entries: [Entry], raised: [Int], _ control: Control, _ state: inout State
  ) {
    // Off the routes first, so that none sends what is old.
    follow(Control(), &state)
    for event in events { event.event.consume() }
    for index in raised { events[index].event.raise() }
    state.entries = entries
    follow(control, &state)
  }
}

extension MSIX.Entry {
  fileprivate init(_ bytes: Span<UInt8>) throws(StateError) {
    func number(_ range: Range<Int>) -> UInt64 {
      range.reversed().reduce(0) { $0 << 8 | UInt64(bytes[$1]) }
    }
    address = number(0..<8)
    data = UInt32(number(8..<12))
    let vectorControl = number(12..<16)
    guard vectorControl <= 1 else { throw .impossible("table") }
    isMasked = vectorControl == 1
  }
}

extension UInt64 {
  /// The least power of two that isn't below a number up to 2 to the 62nd.
  fileprivate var nextPowerOfTwo: UInt64 {
    self <= 1 ? 1 : 1 << UInt64(64 - (self - 1).leadingZeroBitCount)
  }
}
