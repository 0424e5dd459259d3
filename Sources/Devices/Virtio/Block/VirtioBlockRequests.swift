import Memory
import Storage

/// What the requests of a block device do (virtio 1.2, 5.2.6).
struct VirtioBlockRequests {
  private enum Kind {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
  }

  private enum Status: UInt8 {
    case ok = 0
    case failed = 1
    case unsupported = 2
  }

  private static let headerLength = 16
  private static let segmentLength = 16

  private let store: any BlockStore
  private let serial: [UInt8]

  init(store: any BlockStore, serial: String) {
    self.store = store
    var bytes = Array(serial.utf8.prefix(VirtioBlock.serialLength))
    bytes += [UInt8](repeating: 0, count: VirtioBlock.serialLength - bytes.count)
    self.serial = bytes
  }

  /// Does one request and returns how many bytes it wrote into the driver's buffers, and what it was.
  func perform(
    _ chain: inout DescriptorChain, queue: Int, writesThrough: Bool
  ) throws(RingFault) -> (written: UInt32, DeviceRequest) {
    guard chain.readableCount >= Self.headerLength else {
      throw RingFault(queue: queue, .request("has less than its header of 16 bytes"))
    }
    guard let statusByte = chain.takeLastWritable() else {
      throw RingFault(queue: queue, .request("has no byte for its status"))
    }
    let kind = chain.load(0, as: UInt32.self)
    let sector = chain.load(8, as: UInt64.self)
    chain.dropReadable(Self.headerLength)
    var written = 0
    let status = run(kind, sector, chain, writesThrough, &written)
    statusByte.store(status.rawValue, 0)
    return (
      UInt32(truncatingIfNeeded: written) &+ 1, describe(kind, sector, chain, written, status)
    )
  }

  /// A request without data, by its first segment.
  private func describe(_ operation: StaticString, _ chain: DescriptorChain) -> DeviceRequest {
    guard chain.readableCount >= Self.segmentLength else { return DeviceRequest(operation) }
    return DeviceRequest(
      operation, sector: chain.load(0, as: UInt64.self),
      bytes: UInt64(chain.load(8, as: UInt32.self)) * VirtioBlock.sectorSize)
  }

  private func describe(
    _ kind: UInt32, _ sector: UInt64, _ chain: DescriptorChain, _ written: Int, _ status: Status
  ) -> DeviceRequest {
    var request =
      switch kind {
      case Kind.read: DeviceRequest("read", .toGuest, sector: sector, bytes: UInt64(written))
      case Kind.write:
        DeviceRequest(
          "write", .fromGuest, sector: sector,
          bytes: status == .ok ? UInt64(chain.readableCount) : 0)
      case Kind.flush: DeviceRequest("flush")
      case Kind.identify: DeviceRequest("GET_ID", .toGuest, bytes: UInt64(written))
      case Kind.discard: describe("discard", chain)
      case Kind.writeZeroes: describe("write zeroes", chain)
      default: DeviceRequest("unknown request")
      }
    switch status {
    case .ok: request.result = .ok
    case .failed: request.result = .failed
    case .unsupported: request.result = .unsupported
    }
    return request
  }

  private func run(
    _ kind: UInt32, _ sector: UInt64, _ chain: DescriptorChain, _ writesThrough: Bool,
    _ written: inout Int
  ) -> Status {
    do throws(StorageError) {
      switch kind {
      case Kind.read:
        guard let offset = place(sector, chain.writableCount) else { return .failed }
        try store.read(into: chain.writable, at: offset)
        written = chain.writableCount
      case Kind.write:
        guard let offset = place(sector, chain.readableCount) else { return .failed }
        if store.isReadOnly { return .failed }
        try store.write(from: chain.readable, at: offset)
        if writesThrough { try store.flush() }
      case Kind.flush: try store.flush()
      case Kind.identify: written = chain.fill(from: serial.span)
      case Kind.discard: return try discard(chain)
      case Kind.writeZeroes: return try writeZeroes(chain, writesThrough)
      default: return .unsupported
      }
      return .ok
    } catch { return .failed }
  }

  /// Where `count` bytes from `sector` on are; nil unless they are whole sectors of the disk.
  private func place(_ sector: UInt64, _ count: Int) -> UInt64? {
    let (offset, overflow) = sector.multipliedReportingOverflow(by: VirtioBlock.sectorSize)
    guard !overflow, UInt64(count) % VirtioBlock.sectorSize == 0, offset <= store.size,
      UInt64(count) <= store.size - offset
    else { return nil }
    return offset
  }

  // MARK: Segments without data

  private struct Segment {
    let offset: UInt64
    let count: UInt64
    let flags: UInt32
  }

  /// The segments of a discard or write-zeroes request; nil if one is not on the disk or too long.
  private func segments(_ chain: DescriptorChain) -> [Segment]? {
    let count = chain.readableCount / Self.segmentLength
    guard count > 0, count <= VirtioBlock.mostSegments,
      chain.readableCount % Self.segmentLength == 0
    else { return nil }
    var segments: [Segment] = []
    for index in 0..<count {
      let start = index * Self.segmentLength
      let sectors = chain.load(start + 8, as: UInt32.self)
      let length = UInt64(sectors) * VirtioBlock.sectorSize
      guard sectors <= VirtioBlock.mostSectors,
        let offset = place(chain.load(start, as: UInt64.self), Int(length))
      else { return nil }
      let flags = chain.load(start + 12, as: UInt32.self)
      segments.append(Segment(offset: offset, count: length, flags: flags))
    }
    return segments
  }

  private func discard(_ chain: DescriptorChain) throws(StorageError) -> Status {
    guard !store.isReadOnly, let segments = segments(chain) else { return .failed }
    // No flag has a meaning here (5.2.6.2).
    guard segments.allSatisfy({ $0.flags == 0 }) else { return .unsupported }
    for segment in segments { try store.discard(at: segment.offset, count: segment.count) }
    return .ok
  }

  private func writeZeroes(
    _ chain: DescriptorChain, _ writesThrough: Bool
  ) throws(StorageError) -> Status {
    guard !store.isReadOnly, let segments = segments(chain) else { return .failed }
    guard segments.allSatisfy({ $0.flags & ~1 == 0 }) else { return .unsupported }
    for segment in segments {
      try store.writeZeroes(
        at: segment.offset, count: segment.count, mayUnmap: segment.flags & 1 != 0)
    }
    if writesThrough { try store.flush() }
    return .ok
  }
}
