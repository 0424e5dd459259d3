import Host

/// What a look at an image found.
package struct DiskCheck: Sendable {
  /// What is wrong, in words: the first hundred.
  package private(set) var complaints: [String] = []
  /// How many things are wrong.
  package private(set) var complaintCount = 0
  /// Clusters of the disk whose contents can't be found.
  package internal(set) var lost = 0
  /// Clusters of the file that are used more often than their refcount says.
  package internal(set) var wrongRefcounts = 0
  /// Entries whose flag doesn't agree with the refcount.
  package internal(set) var wrongFlags = 0
  /// Clusters of the file that nothing uses and that aren't free: lost space, nothing else.
  package internal(set) var leakedClusters = 0
  /// Clusters of the disk that have data in the file.
  package internal(set) var dataClusters = 0
  /// Clusters of the disk that are marked as zeros.
  package internal(set) var zeroClusters = 0
  /// Clusters of the disk that are compressed.
  package internal(set) var compressedClusters = 0
  /// Where the last used cluster of the file ends.
  package internal(set) var imageEnd: UInt64 = 0
  /// Whether it was left with refcounts that may be wrong.
  package internal(set) var isMarkedDirty = false
  /// Whether somebody found it damaged before.
  package internal(set) var isMarkedCorrupt = false
  /// Whether it has dirty bitmaps of QEMU's, because of which lost space isn't looked for.
  package internal(set) var hasBitmaps = false
  /// Whether refcounts and flags have been set right.
  package internal(set) var isRepaired = false

  /// Whether nothing is wrong but space that may be lost.
  package var isSound: Bool { complaintCount == 0 && !isMarkedCorrupt }

  mutating func complain(_ text: String) {
    complaintCount += 1
    if complaints.count < 100 { complaints.append(text) }
  }

  /// Checks the qcow2 image at `path`, which nobody may write meanwhile. With `repairs`, refcounts and
  /// flags are then set right; what points nowhere stays as it is.
  package static func run(_ path: String, repairs: Bool) throws(DiskError) -> DiskCheck {
    let file = try DiskImage.openFile(path, isReadOnly: !repairs)
    guard try DiskImage.guessFormat(file) == .qcow2 else {
      throw DiskError(.usage, path, "a raw image, in which there is nothing that could be checked")
    }
    let header = try Qcow2Image.header(of: file)
    do throws(StorageError) { return try run(file, header, repairs: repairs) } catch {
      throw DiskError(path, error)
    }
  }

  static func run(
    _ file: any DiskFile, _ header: Qcow2Header, repairs: Bool
  ) throws(StorageError) -> DiskCheck {
    var check = try Qcow2Check(file, header)
    try check.run()
    let report = check.report
    let isClean =
      report.isSound && report.leakedClusters == 0 && !report.isMarkedDirty
    guard repairs && !isClean else { return report }
    if report.hasBitmaps {
      // Whoever doesn't know them ends them with its first write. Then their clusters are nobody's.
      // ("Autoclear feature bits")
      try file.write(UInt64(0).bigEndianBytes.span, at: 88)
      try file.flush()
      var header = header
      header.autoclear = 0
      check = try Qcow2Check(file, header)
      try check.run()
    }
    try check.repair()
    return check.report
  }
}
