import Synchronization

/// A stretch of addresses in which functions can have ranges.
package struct PCIWindow: Hashable, Sendable {
  /// The first address.
  package let start: UInt64
  /// How many there are.
  package let count: UInt64

  /// A window on `count` addresses from `start` on.
  package init(start: UInt64, count: UInt64) {
    self.start = start
    self.count = count
  }

  /// Whether all `size` addresses from `address` on are inside.
  func holds(_ address: UInt64, _ size: UInt64) -> Bool {
    address >= start && size <= count && address &- start <= count &- size
  }
}

/// The ranges of all functions in one space, ports or memory, to be looked up by address.
///
/// Ranges move while VCPUs look them up. Each start is one atomic number, so a look-up takes no lock;
/// what it finds was there at some time during it. Where ranges overlap, the one answers whose
/// function comes first.
final class PCIRanges: Sendable {
  /// How many ranges there can be: more than 32 devices have.
  static let capacity = 256
  private static let nowhere = UInt64.max

  struct Range: Sendable {
    let size: UInt64
    let device: any Device
    let widestAccess: Int
    /// The function's name.
    let name: StaticString
  }

  let windows: [PCIWindow]
  private let ranges: [Range]
  // Apart from the rest, so that the search touches numbers alone and retains nothing.
  private let sizes: [UInt64]
  /// Where each is; nothing for a bus without ranges, since the type's first use costs 40 us.
  private let starts: Starts?

  private final class Starts: Sendable {
    let values: InlineArray<256, Atomic<UInt64>> = InlineArray { _ in Atomic(PCIRanges.nowhere) }
  }

  init(windows: [PCIWindow], _ ranges: [Range]) {
    precondition(ranges.count <= Self.capacity)
    self.windows = windows
    self.ranges = ranges
    sizes = ranges.map(\.size)
    starts = ranges.isEmpty ? nil : Starts()
  }

  /// Range `index` is at `place` now.
  func move(_ index: Int, to place: BusAddress?) {
    let start: UInt64 =
      switch place {
      case .port(let port): UInt64(port)
      case .memory(let address): address
      case nil: Self.nowhere
      }
    starts?.values[index].store(start, ordering: .releasing)
  }

  /// The first range that any of `width` bytes at `address` is in, with its start; -1 if there is none.
  private func find(_ address: UInt64, width: Int) -> (index: Int, start: UInt64) {
    guard let starts else { return (-1, 0) }
    var index = 0
    while index < sizes.count {
      let start = starts.values[index].load(ordering: .acquiring)
      let isHit =
        start <= address
        ? address &- start < sizes[index] : start &- address < UInt64(width)
      if isHit { return (index, start) }
      index &+= 1
    }
    return (-1, 0)
  }

  func name(at address: UInt64) -> StaticString? {
    let (index, _) = find(address, width: 1)
    return index >= 0 ? ranges[index].name : nil
  }

  // As on a bus, accesses are cut until a device takes the pieces whole. One that hits nothing isn't:
  // else a range that comes meanwhile would answer to a part of it.

  func read(_ address: UInt64, width: Int) -> UInt64 {
    let (index, start) = find(address, width: width)
    guard index >= 0 else { return UInt64.max >> UInt64(64 - width * 8) }
    if takesWhole(index, start, address, width) {
      return ranges[index].device.read(offset: address &- start, width: width)
    }
    let half = width / 2
    let low = read(address, width: half)
    return low | read(address &+ UInt64(half), width: half) << UInt64(half * 8)
  }

  func write(_ address: UInt64, width: Int, value: UInt64) {
    let (index, start) = find(address, width: width)
    guard index >= 0 else { return }
    if takesWhole(index, start, address, width) {
      ranges[index].device.write(offset: address &- start, width: width, value: value)
    } else {
      let half = width / 2
      write(address, width: half, value: value & (1 << UInt64(half * 8) - 1))
      write(address &+ UInt64(half), width: half, value: value >> UInt64(half * 8))
    }
  }

  // A byte is always taken whole: devices take at least one, and it was found there.
  private func takesWhole(_ index: Int, _ start: UInt64, _ address: UInt64, _ width: Int) -> Bool {
    let offset = address &- start
    return start <= address && width <= ranges[index].widestAccess
      && UInt64(width) <= sizes[index] &- offset
  }
}

/// A window's place on the port or the MMIO bus: passes accesses on to whichever range is there.
final class PCIWindowDevice: Device {
  let name: StaticString
  let widestAccess: Int
  let window: PCIWindow
  private let ranges: PCIRanges

  init(_ name: StaticString, _ window: PCIWindow, _ ranges: PCIRanges, widestAccess: Int) {
    self.name = name
    self.window = window
    self.ranges = ranges
    self.widestAccess = widestAccess
  }

  func name(at offset: UInt64) -> StaticString? { ranges.name(at: window.start &+ offset) }

  func read(offset: UInt64, width: Int) -> UInt64 {
    ranges.read(window.start &+ offset, width: width)
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    ranges.write(window.start &+ offset, width: width, value: value)
  }
}
