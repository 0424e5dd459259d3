import Host

/// What a base was like when an overlay was put on it, by which a later change shows. kvmlite keeps
/// it in a header extension of its own, which other programs carry along unread.
struct BaseStamp: Equatable, Sendable {
  var length: UInt64
  var modified: Int64
  var nanoseconds: Int64

  init(_ facts: FileFacts) {
    length = facts.length
    modified = facts.modified
    nanoseconds = facts.modifiedNanoseconds
  }

  /// Reads the extension's data; nil if it isn't one of ours.
  init?(_ data: [UInt8]) {
    guard data.count == 24 else { return nil }
    let fields = BigEndianBytes(data)
    length = fields.uint64(0)
    modified = Int64(bitPattern: fields.uint64(8))
    nanoseconds = Int64(bitPattern: fields.uint64(16))
  }

  var data: [UInt8] {
    length.bigEndianBytes + UInt64(bitPattern: modified).bigEndianBytes
      + UInt64(bitPattern: nanoseconds).bigEndianBytes
  }
}

/// What a file of a disk was like at a moment, by which a later change shows; of a block device only the
/// name.
package struct DiskStamp: Equatable, Sendable {
  /// The file's path.
  package let path: String
  /// Its length and when it was written last, as bytes.
  package let data: [UInt8]

  /// A stamp from elsewhere.
  package init(path: String, data: [UInt8]) { (self.path, self.data) = (path, data) }

  /// What the file at `path` is like now.
  package init(ofImage path: String) throws(DiskError) {
    do throws(Errno) { try self.init(HostDiskFile(path, isReadOnly: true)) } catch {
      throw DiskError(opening: path, error)
    }
  }

  init(_ file: HostDiskFile) throws(Errno) {
    path = file.path
    let facts = try file.descriptor.facts()
    data = facts.kind == .regular ? BaseStamp(facts).data : []
  }

  /// Whether the file that has this path now is as it was then; nil where that can't be known, as of a
  /// device.
  package func isCurrent() throws(Errno) -> Bool? {
    let facts = try FileFacts(of: path)
    return data.isEmpty ? nil : facts.kind == .regular && BaseStamp(facts).data == data
  }
}

extension ReportingDisk {
  /// Lets others have its files, to which nobody here writes until `lock()`.
  package func unlock() { for file in files { file.descriptor.unlockAll() } }

  /// Takes them back; throws if somebody has them.
  package func lock() throws(DiskError) {
    for file in files { try ImageLock.take(file, isReadOnly: !file.descriptor.openedFor().writes) }
  }

  /// What its files are like now, each before what it is based on.
  package func stamps() throws(Errno) -> [DiskStamp] {
    var stamps: [DiskStamp] = []
    for file in files { stamps.append(try DiskStamp(file)) }
    return stamps
  }
}

extension Qcow2Header {
  /// What the base was like, if kvmlite put this on it.
  var baseStamp: BaseStamp? {
    extensions.first { $0.type == Extension.baseStamp }.flatMap { BaseStamp($0.data) }
  }

  /// Sets the base, its format and what it is like; nil for none.
  mutating func setBase(_ base: (name: String, format: DiskFormat, stamp: BaseStamp?)?) {
    backingName = base?.name
    setExtension(Extension.backingFormat, base.map { Array($0.format.rawValue.utf8) })
    setExtension(Extension.baseStamp, base?.stamp?.data)
  }
}
