/// An entry of an L2 table: where a cluster of the disk is. ("Cluster mapping")
enum Qcow2Entry: Equatable, Sendable {
  /// The base's, or zeros without one.
  case unallocated
  /// Zeros; a cluster may be set aside at `host`.
  case zero(host: UInt64?)
  /// At `host`. `isCopied` says that nobody else uses it.
  case data(host: UInt64, isCopied: Bool)
  /// `count` bytes or fewer, compressed, at `host`.
  case compressed(host: UInt64, count: Int)

  static let copied: UInt64 = 1 << 63
  static let isCompressed: UInt64 = 1 << 62
  static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
  static let isZero: UInt64 = 1

  /// Decodes `word` of an image of that header.
  init(_ word: UInt64, _ header: Qcow2Header) throws(StorageError) {
    if word & Self.isCompressed != 0 {
      // "Compressed Clusters Descriptor": the offset has x bits, the sectors beyond the first the
      // rest of 62.
      let bits = UInt64(62 - (header.clusterBits - 8))
      let host = word & ((1 << bits) - 1)
      let sectors = (word & (Self.isCompressed - 1)) >> bits
      guard host >= header.clusterSize, host < 1 << 56 else {
        throw .corrupt("a compressed cluster at \(host)")
      }
      self = .compressed(host: host, count: Int((sectors + 1) * 512 - host % 512))
      return
    }
    let host = word & Self.offsetMask
    guard host % header.clusterSize == 0 else {
      throw .corrupt("a cluster at \(host), where none begins")
    }
    if header.version >= 3, word & Self.isZero != 0 {
      self = .zero(host: host == 0 ? nil : host)
    } else {
      self = host == 0 ? .unallocated : .data(host: host, isCopied: word & Self.copied != 0)
    }
  }

  /// The clusters of the file that the entry holds a reference to, by number.
  func hostClusters(_ header: Qcow2Header) -> ClosedRange<UInt64>? {
    let bits = UInt64(header.clusterBits)
    switch self {
    case .unallocated, .zero(host: nil): return nil
    case .zero(let host?), .data(let host, _): return host >> bits...host >> bits
    case .compressed(let host, let count):
      return host >> bits...(host + UInt64(count) - 1) >> bits
    }
  }
}
