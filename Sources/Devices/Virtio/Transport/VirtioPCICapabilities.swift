import Host

/// The capabilities by which a driver finds the structures (virtio 1.2, 4.1.4).
enum VirtioPCICapabilities {
  private enum Kind: UInt8 {
    case common = 1
    case notify = 2
    case isr = 3
    case device = 4
    case window = 5
  }

  /// All five; `window` answers for the registers of the last one.
  static func all(window: VirtioPCIWindow) -> [PCICapability] {
    typealias Region = VirtioPCI.Region
    let step = UInt32(Region.notifyStep)
    return [
      make(.common, Region.common, VirtioPCICommon.size),
      make(.notify, Region.notify, Region.size - Region.notify, more: bytes(step)),
      make(.isr, Region.isr, 1),
      make(.device, Region.device, Region.notify - Region.device),
      make(.window, 0, 0, more: bytes(0), registers: window),
    ]
  }

  /// struct virtio_pci_cap, less ID and pointer.
  private static func make(
    _ kind: Kind, _ offset: UInt64, _ length: UInt64, more: [UInt8] = [],
    registers: (any Device)? = nil
  ) -> PCICapability {
    let header = [UInt8(16 + more.count), kind.rawValue, UInt8(VirtioPCI.Region.bar), 0, 0, 0]
    let place = bytes(UInt32(offset)) + bytes(UInt32(length))
    return PCICapability(
      id: PCICapability.vendorSpecificID, body: header + place + more, registers: registers)
  }

  private static func bytes(_ value: UInt32) -> [UInt8] {
    [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: value >> $0) }
  }
}

/// The capability through which firmware reaches the structures without a mapped range: registers for
/// range, offset and length, and a window on what they choose (virtio 1.2, 4.1.4.9).
final class VirtioPCIWindow: Device {
  private enum Field {
    static let header: ClosedRange<UInt64> = 0...3
    static let bar: UInt64 = 4
    static let offset: UInt64 = 8
    static let length: UInt64 = 12
    static let data: ClosedRange<UInt64> = 16...19
  }

  private struct Choice {
    var bar: UInt8 = 0
    var offset: UInt32 = 0
    var length: UInt32 = 0
  }

  let name: StaticString = "virtio-window"
  let widestAccess = 4
  private let target: VirtioPCIRegisters
  private let choice = RankedMutex(.last, Choice())

  init(_ target: VirtioPCIRegisters) { self.target = target }

  func reset() { choice.withLock { $0 = Choice() } }

  func save(to state: inout StateWriter) {
    let choice = choice.withLock { $0 }
    state.write("windowBAR", choice.bar)
    state.write("windowOffset", choice.offset)
    state.write("windowLength", choice.length)
  }

  func restore(from state: StateReader) throws(StateError) {
    var new = Choice()
    new.bar = try state.read("windowBAR")
    new.offset = try state.read("windowOffset")
    new.length = try state.read("windowLength")
    choice.withLock { [new] in $0 = new }
  }

  /// What the window shows; nil unless the registers choose 1, 2 or 4 aligned bytes of range 4.
  private func chosen() -> (offset: UInt64, width: Int)? {
    let choice = choice.withLock { $0 }
    guard [1, 2, 4].contains(choice.length), choice.offset % choice.length == 0,
      Int(choice.bar) == VirtioPCI.Region.bar, UInt64(choice.offset) < VirtioPCI.Region.size
    else { return nil }
    return (UInt64(choice.offset), Int(choice.length))
  }

  func read(offset: UInt64, width: Int) -> UInt64 {
    if offset == Field.data.lowerBound {
      return chosen().map { target.read(offset: $0.offset, width: $0.width) } ?? 0
    }
    let choice = choice.withLock { $0 }
    var bytes = VirtioConfigurationBytes(count: 16)
    bytes.set(UInt8(20), at: 2)
    bytes.set(UInt8(5), at: 3)
    bytes.set(choice.bar, at: Int(Field.bar))
    bytes.set(choice.offset, at: Int(Field.offset))
    bytes.set(choice.length, at: Int(Field.length))
    return bytes.read(offset, width)
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    let word = UInt32(truncatingIfNeeded: value)
    switch offset {
    case Field.bar: choice.withLock { $0.bar = UInt8(truncatingIfNeeded: value) }
    case Field.offset where width == 4: choice.withLock { $0.offset = word }
    case Field.length where width == 4: choice.withLock { $0.length = word }
    case Field.data.lowerBound:
      if let chosen = chosen() {
        let mask = UInt64.max >> UInt64(64 - 8 * chosen.width)
        target.write(offset: chosen.offset, width: chosen.width, value: value & mask)
      }
    default: break
    }
  }
}
