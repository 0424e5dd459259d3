import Host
import Synchronization

/// The guest's physical memory: RAM around the hole below 4 GiB, and ROM.
///
/// The regions are fixed when it is made, so every thread may use it without a lock. What is in
/// them is shared with the running guest.
public final class GuestMemory: Sendable {
  /// One stretch of guest-physical addresses with host memory behind it.
  public struct Region: Sendable {
    /// What the guest may do with the region.
    public enum Kind: Sendable {
      /// The guest reads and writes it.
      case ram
      /// The guest only reads it; its writes leave as MMIO exits. Needs `KVM_CAP_READONLY_MEM`.
      case rom
    }

    /// The first address.
    public let start: GuestAddress
    /// RAM or ROM.
    public let kind: Kind
    /// The host memory behind the region.
    public let mapping: Mapping

    /// The length in bytes, a multiple of 4096.
    public var count: UInt64 { UInt64(mapping.count) }

    /// All of `mapping` at `start`.
    public init(start: GuestAddress, kind: Kind, mapping: Mapping) {
      self.start = start
      self.kind = kind
      self.mapping = mapping
    }
  }

  /// A guest-physical range that isn't all in one region of memory.
  public struct OutOfBounds: Error, Equatable, Sendable, CustomStringConvertible {
    /// Where the range starts.
    public let address: GuestAddress
    /// How many bytes were asked for.
    public let count: UInt64

    /// Says which range has no memory behind it.
    public var description: String {
      "guest memory has no \(count) bytes at \(address)"
    }
  }

  /// All regions by rising address; none overlap.
  public let regions: [Region]
  /// How much RAM there is in all, in bytes.
  public let ramSize: UInt64

  /// Whether views to write to are noted in `written`; those that stay are always in `kept`.
  let logsWrites = Atomic(false)
  let written = AtomicLazyReference<WrittenPages>()
  let kept = AtomicLazyReference<WrittenPages>()

  /// Addresses from here to 4 GiB hold no RAM: they are for devices, the IOAPIC and the LAPIC.
  public static let holeStart: UInt64 = 0xC000_0000
  /// Where RAM goes on above the hole.
  public static let holeEnd: UInt64 = 0x1_0000_0000
  /// The most RAM that a guest can have: what 46 bits address, less the hole.
  public static let largestSize: UInt64 = (1 << 46) - (holeEnd - holeStart)
  /// Sizes are multiples of this many bytes.
  public static let pageSize: UInt64 = 4096

  /// Reserves `ramSize` bytes of RAM, a multiple of 4096 from 4096 to `largestSize`, and fills
  /// read-only regions with the bytes of `roms`, each padded with zeros to whole pages.
  ///
  /// Nothing is allocated until it is touched. Huge pages are advised above the first 2 MiB; below,
  /// where a small guest touches a page here and there, a huge page would only cost time and memory.
  /// RAM that `isShareable` can be given to other processes; it costs a start some time.
  public init(
    ramSize: UInt64, roms: [(start: GuestAddress, contents: [UInt8])] = [],
    isShareable: Bool = false
  ) throws(Errno) {
    func makeRAM(_ size: UInt64, from hugeOffset: Int) throws(Errno) -> Mapping {
      let size = Int(size)
      let mapping =
        isShareable ? try Mapping(shareable: size) : try Mapping(anonymous: size)
      mapping.adviseHugePages(from: hugeOffset)
      return mapping
    }
    var regions: [Region] = []
    let low = min(ramSize, Self.holeStart)
    try regions.append(Region(start: 0, kind: .ram, mapping: makeRAM(low, from: 2 << 20)))
    if ramSize > low {
      let mapping = try makeRAM(ramSize - low, from: 0)
      regions.append(Region(start: GuestAddress(Self.holeEnd), kind: .ram, mapping: mapping))
    }
    for rom in roms {
      let size = (rom.contents.count + Int(Self.pageSize) - 1) & ~(Int(Self.pageSize) - 1)
      let mapping = try Mapping(anonymous: size)
      MemoryView(mapping, 0, mapping.count).copy(from: rom.contents.span, at: 0)
      regions.append(Region(start: rom.start, kind: .rom, mapping: mapping))
    }
    self.regions = regions.sorted { $0.start < $1.start }
    self.ramSize = ramSize
  }

  /// Memory of these regions, as somebody else shares them who has the guest; nil if two of them
  /// overlap or one goes beyond the last address.
  public init?(regions: [Region]) {
    let sorted = regions.sorted { $0.start < $1.start }
    var end: UInt64 = 0
    for region in sorted {
      guard region.start.value >= end, let next = region.start.advanced(by: region.count) else {
        return nil
      }
      end = next.value
    }
    self.regions = sorted
    ramSize = sorted.reduce(0) { $0 &+ ($1.kind == .ram ? $1.count : 0) }
  }

  /// A view of `count` bytes of RAM or ROM from `address` on, all in one region.
  public func view(at address: GuestAddress, count: UInt64) throws(OutOfBounds) -> MemoryView {
    let (region, offset) = try place(of: address, count)
    return MemoryView(region.mapping, offset, Int(count))
  }

  /// The same for what a device writes, as by DMA: RAM alone.
  public func writableView(at address: GuestAddress, count: UInt64) throws(OutOfBounds)
    -> MemoryView
  {
    let (region, offset) = try place(of: address, count)
    guard region.kind == .ram else { throw OutOfBounds(address: address, count: count) }
    if logsWrites.load(ordering: .relaxed) { written.load()?.note(address, count) }
    return MemoryView(region.mapping, offset, Int(count))
  }

  private func place(of address: GuestAddress, _ count: UInt64) throws(OutOfBounds)
    -> (region: Region, offset: Int)
  {
    for index in regions.indices {
      let region = regions[index]
      guard address >= region.start else { break }
      let offset = address.value - region.start.value
      if offset <= region.count && count <= region.count - offset { return (region, Int(offset)) }
    }
    throw OutOfBounds(address: address, count: count)
  }

  /// Where an address of the guest is in this process.
  public struct Location: Equatable, Sendable {
    /// Which of `regions`, by its place among them.
    public let region: Int
    /// How far from the region's start, in bytes.
    public let offset: UInt64
    /// The address in this process, as a number to show.
    public let hostAddress: UInt64
  }

  /// Where `address` is in this process; nil where there is no memory.
  public func location(of address: GuestAddress) -> Location? {
    for index in regions.indices where regions[index].start <= address {
      let region = regions[index]
      let offset = address.value - region.start.value
      guard offset < region.count else { continue }
      // Only the number is handed out.
      let base = unsafe UInt64(UInt(bitPattern: region.mapping.base))
      return Location(region: index, offset: offset, hostAddress: base + offset)
    }
    return nil
  }

  /// Gives the host back the whole pages of RAM among `count` bytes from `address` on, which the
  /// guest doesn't need: they read as zeros after that. Returns how many bytes those were.
  @discardableResult
  public func giveBack(at address: GuestAddress, count: UInt64) throws(OutOfBounds) -> Int {
    try writableView(at: address, count: count).giveBack()
  }

  /// Copies `bytes` into the memory at `address`.
  public func write(_ bytes: Span<UInt8>, at address: GuestAddress) throws(OutOfBounds) {
    try view(at: address, count: UInt64(bytes.count)).copy(from: bytes, at: 0)
    if logsWrites.load(ordering: .relaxed) { written.load()?.note(address, UInt64(bytes.count)) }
  }

  /// Copies `count` bytes out of the memory at `address`.
  public func read(_ count: Int, at address: GuestAddress) throws(OutOfBounds) -> [UInt8] {
    let view = try view(at: address, count: UInt64(count))
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    view.copy(to: &span, from: 0)
    return bytes
  }

  /// Makes KVM forget how it translates the page that `address` is in; the contents stay. Without
  /// memory there, nothing happens.
  public func invalidateTranslations(ofPageAt address: GuestAddress) {
    let page = GuestAddress(address.value & ~(Self.pageSize - 1))
    for region in regions
    where region.start <= page && page.value - region.start.value < region.count {
      region.mapping.invalidateTranslations(
        at: Int(page.value - region.start.value), count: Int(Self.pageSize))
    }
  }

  /// How many bytes of RAM the guest, or its loader, has touched: those the host had to provide.
  public func touchedBytes() -> Int {
    regions.reduce(0) { $0 + ($1.kind == .ram ? $1.mapping.residentBytes() : 0) }
  }
}
