import Memory
import Storage
import Synchronization

/// A virtio block device (virtio 1.2, 5.2) in front of a disk's contents.
///
/// Each queue has its own thread, which waits for the host while it does one request after the
/// other; data goes between the disk and the guest's buffers without a copy here.
package final class VirtioBlock: VirtioDevice {
  /// Feature bits (5.2.3).
  enum Feature {
    static let segmentMax = VirtioFeatures.bit(2)
    static let readOnly = VirtioFeatures.bit(5)
    static let blockSize = VirtioFeatures.bit(6)
    static let flush = VirtioFeatures.bit(9)
    static let topology = VirtioFeatures.bit(10)
    static let multiqueue = VirtioFeatures.bit(12)
    static let discard = VirtioFeatures.bit(13)
    static let writeZeroes = VirtioFeatures.bit(14)
  }

  /// The size of each queue.
  package static let queueSize: UInt16 = 256
  /// What the specification counts in, whatever the block size.
  static let sectorSize: UInt64 = 512
  /// At most so many sectors in one segment of a discard or write-zeroes request: 512 MiB.
  static let mostSectors: UInt32 = 1 << 20
  /// At most so many segments in one such request.
  static let mostSegments = 16
  /// How long a serial number is (5.2.6).
  static let serialLength = 20
  /// The host's page cache works in pages: so do we advise.
  private static let physicalBlockExponent: UInt8 = 3

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-block" }
  /// A block device.
  package var type: UInt16 { 2 }
  /// What it offers.
  package let features: VirtioFeatures
  /// One queue or several, of one size.
  package let queueSizes: [UInt16]
  /// The host's disk may take its time.
  package var hasOwnThreads: Bool { true }

  private let requests: VirtioBlockRequests
  private let configuration: VirtioConfigurationBytes

  /// A disk with `queueCount` queues; of `serial` the first 20 bytes count.
  package init(_ store: any BlockStore, serial: String = "", queueCount: Int = 1) {
    var features: VirtioFeatures = [
      Feature.segmentMax, Feature.blockSize, Feature.flush, Feature.topology,
    ]
    if store.isReadOnly {
      features.insert(Feature.readOnly)
    } else {
      features.formUnion([Feature.discard, Feature.writeZeroes])
    }
    if queueCount > 1 { features.insert(Feature.multiqueue) }
    self.features = features
    queueSizes = [UInt16](repeating: Self.queueSize, count: queueCount)
    requests = VirtioBlockRequests(store: store, serial: serial)
    configuration = Self.makeConfiguration(store, queueCount)
  }

  /// struct virtio_blk_config, 5.2.4.
  private static func makeConfiguration(
    _ store: any BlockStore, _ queueCount: Int
  ) -> VirtioConfigurationBytes {
    var bytes = VirtioConfigurationBytes(count: 60)
    bytes.set(store.size / sectorSize, at: 0)
    bytes.set(UInt32(queueSize) - 2, at: 12)  // seg_max: header and status take two descriptors
    bytes.set(UInt32(sectorSize), at: 20)  // blk_size
    bytes.set(physicalBlockExponent, at: 24)
    bytes.set(UInt16(1) << UInt16(physicalBlockExponent), at: 26)  // min_io_size
    bytes.set(UInt16(queueCount), at: 34)
    bytes.set(mostSectors, at: 36)  // max_discard_sectors
    bytes.set(UInt32(mostSegments), at: 40)
    bytes.set(UInt32(1) << UInt32(physicalBlockExponent), at: 44)  // discard_sector_alignment
    bytes.set(mostSectors, at: 48)  // max_write_zeroes_sectors
    bytes.set(UInt32(mostSegments), at: 52)
    bytes.set(UInt8(1), at: 56)  // write_zeroes_may_unmap
    return bytes
  }

  /// Answers a read of the configuration space.
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    configuration.read(offset, width)
  }

  /// Requests of all kinds.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    VirtioQueueRole("requestq", isRead: true, isWritten: true)
  }

  /// Does all requests of a queue.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
    // Without flushes a driver takes what is written for safe (5.2.6.2).
    let writesThrough = !queue.features.contains(Feature.flush)
    try queue.drain { chain throws(RingFault) in
      let (written, request) = try requests.perform(
        &chain, queue: queue.index, writesThrough: writesThrough)
      queue.request = request
      return written
    }
  }
}
