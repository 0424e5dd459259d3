import Memory
import Network

/// What stands before each frame: struct virtio_net_hdr (virtio 1.2, 5.1.6).
struct VirtioNetHeader: Equatable {
  static let count = NetworkFrame.headerCount

  private enum Flag {
    static let needsChecksum: UInt8 = 1
    static let isValid: UInt8 = 2
  }

  private enum Segmentation {
    static let none: UInt8 = 0
    static let tcp4: UInt8 = 1
    static let udp: UInt8 = 3
    static let tcp6: UInt8 = 4
    static let congestion: UInt8 = 0x80
  }

  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0

  init() {}

  /// The header at the start of what a driver has for the device.
  init(_ chain: DescriptorChain) {
    flags = chain.load(0, as: UInt8.self)
    segmentation = chain.load(1, as: UInt8.self)
    headerLength = chain.load(2, as: UInt16.self)
    segmentSize = chain.load(4, as: UInt16.self)
    checksumStart = chain.load(6, as: UInt16.self)
    checksumOffset = chain.load(8, as: UInt16.self)
  }

  init(_ view: MemoryView) {
    flags = view.load(0, as: UInt8.self)
    segmentation = view.load(1, as: UInt8.self)
    headerLength = view.load(2, as: UInt16.self)
    segmentSize = view.load(4, as: UInt16.self)
    checksumStart = view.load(6, as: UInt16.self)
    checksumOffset = view.load(8, as: UInt16.self)
  }

  /// Puts it at the start of `view`, with the number of buffers that the frame is in.
  func store(in view: MemoryView, buffers: UInt16) {
    view.store(flags, 0)
    view.store(segmentation, 1)
    view.store(headerLength, 2)
    view.store(segmentSize, 4)
    view.store(checksumStart, 6)
    view.store(checksumOffset, 8)
    view.store(buffers, 10)
  }

  /// What there is to do with the frame; nil if the header says what can't be.
  private var offloads: NetworkOffloads? {
    var offloads: NetworkOffloads = flags & Flag.needsChecksum != 0 ? .checksum : []
    switch segmentation & ~Segmentation.congestion {
    case Segmentation.none: return segmentation == 0 ? offloads : nil
    case Segmentation.tcp4: offloads.insert(.tcp4)
    case Segmentation.tcp6: offloads.insert(.tcp6)
    case Segmentation.udp: offloads.insert(.udp)
    default: return nil
    }
    if segmentation & Segmentation.congestion != 0 { offloads.insert(.congestion) }
    return offloads
  }

  /// Makes it what a back end may rely on, for a frame of `count` bytes for which these offloads are
  /// agreed on; false if the frame is to be dropped.
  mutating func makeSound(count: Int, allowed: NetworkOffloads) -> Bool {
    guard count >= NetworkFrame.shortest, count <= NetworkFrame.longest,
      let offloads, offloads.isSubset(of: allowed)
    else { return false }
    // Flags of later specifications don't matter to a device (5.1.6.2.2).
    flags &= Flag.needsChecksum
    if flags == 0 {
      (checksumStart, checksumOffset) = (0, 0)
    } else {
      guard Int(checksumStart) + Int(checksumOffset) + 2 <= count else { return false }
    }
    guard segmentation != Segmentation.none else {
      (headerLength, segmentSize) = (0, 0)
      return true
    }
    // Each piece needs a checksum of its own, and room for data (5.1.6.2.1).
    guard flags != 0, segmentSize > 0 else { return false }
    // Only a hint, and not to be relied on (5.1.6.2.2).
    headerLength = UInt16(min(Int(headerLength), count, Int(UInt16.max)))
    return true
  }

  /// The same for a frame to a guest: false if the guest didn't agree to get it.
  mutating func makeSound(forGuestWith allowed: NetworkOffloads) -> Bool {
    guard let offloads, offloads.isSubset(of: allowed) else { return false }
    let known = Flag.needsChecksum | Flag.isValid
    flags &= allowed.contains(.checksum) ? known : 0
    return true
  }
}
