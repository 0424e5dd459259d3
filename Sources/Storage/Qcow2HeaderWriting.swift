/// A qcow2 header as bytes.
extension Qcow2Header {
  /// How many bytes a header of version 3 has here: with the compression method, which is there only
  /// in images that need it or have room for it.
  private static let length3 = 112

  /// The header with its extensions and the backing file's name; nil if a cluster has no room for it.
  func serialized() -> [UInt8]? {
    var bytes = Self.magic + version.bigEndianBytes
    // The name's place, known at the end.
    bytes += [UInt8](repeating: 0, count: 12)
    bytes += UInt32(clusterBits).bigEndianBytes
    bytes += size.bigEndianBytes
    bytes += UInt32(0).bigEndianBytes
    bytes += UInt32(l1Count).bigEndianBytes + l1Offset.bigEndianBytes
    bytes += refcountTableOffset.bigEndianBytes + UInt32(refcountTableClusters).bigEndianBytes
    bytes += UInt32(0).bigEndianBytes + UInt64(0).bigEndianBytes
    if version >= 3 {
      bytes += incompatible.bigEndianBytes + compatible.bigEndianBytes + autoclear.bigEndianBytes
      bytes += UInt32(refcountOrder).bigEndianBytes + UInt32(Self.length3).bigEndianBytes
      bytes += [compression.rawValue] + [UInt8](repeating: 0, count: 7)
    }
    for item in extensions {
      bytes += item.type.bigEndianBytes + UInt32(item.data.count).bigEndianBytes + item.data
      bytes += [UInt8](repeating: 0, count: -item.data.count & 7)
    }
    bytes += [UInt8](repeating: 0, count: 8)
    if let backingName {
      let name = Array(backingName.utf8)
      guard name.count <= 1023 else { return nil }
      bytes.replaceSubrange(8..<16, with: UInt64(bytes.count).bigEndianBytes)
      bytes.replaceSubrange(16..<20, with: UInt32(name.count).bigEndianBytes)
      bytes += name
    }
    return bytes.count <= Int(clusterSize) ? bytes : nil
  }

  /// Sets or removes the extension of a type.
  mutating func setExtension(_ type: UInt32, _ data: [UInt8]?) {
    extensions.removeAll { $0.type == type }
    if let data { extensions.append(Extension(type: type, data: data)) }
  }
}
