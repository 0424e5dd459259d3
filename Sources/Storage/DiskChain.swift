import Host
import Memory

/// What changes an overlay's relation to its base.
extension DiskImage {
  /// Writes what the overlay at `path` has of its own into its base, and empties the overlay. Returns
  /// how many bytes that was. All other overlays on that base are damaged by it.
  package static func commit(
    _ path: String, progress: (UInt64, UInt64) -> Void
  ) throws(DiskError) -> UInt64 {
    let file = try openFile(path, isReadOnly: false)
    let header = try qcow2Header(of: file)
    let (basePath, format) = try Qcow2Image.base(of: header, at: path)
    var options = Options()
    options.format = format
    let base = try open(basePath, options).store
    guard base.size >= header.size else {
      throw DiskError(
        .usage, path,
        "larger than its base; first: qemu-img resize -f \(format.rawValue) \(basePath) "
          + "\(header.size)")
    }
    do throws(StorageError) {
      let overlay = try Qcow2Disk(file, header, base: base, isReadOnly: false)
      let count = try write(overlay, into: base, progress)
      try base.flush()
      // Once more: what was freed is noted only after a flush, and the base must not change later.
      try base.flush()
      try overlay.empty()
      try restamp(file, header, basePath, format)
      return count
    } catch { throw DiskError("\(path) to \(basePath)", error) }
  }

  private static func qcow2Header(of file: HostDiskFile) throws(DiskError) -> Qcow2Header {
    guard try guessFormat(file) == .qcow2 else {
      throw DiskError(.usage, file.path, "a raw image, which has no base")
    }
    return try Qcow2Image.header(of: file)
  }

  private static func write(
    _ overlay: Qcow2Disk, into base: any BlockStore, _ progress: (UInt64, UInt64) -> Void
  ) throws(StorageError) -> UInt64 {
    let buffer = try DiskCopy.scratch()
    var position: UInt64 = 0
    var written: UInt64 = 0
    while position < overlay.size {
      let extent = try DiskMap.extent(
        of: overlay, at: position, limit: min(DiskCopy.chunk, overlay.size - position), depth: 0)
      if extent.depth == 0 && extent.kind != .hole {
        written += extent.count
        if extent.kind == .zero {
          try base.writeZeroes(at: position, count: extent.count, mayUnmap: true)
        } else {
          let part = buffer.slice(0, count: Int(extent.count))
          try overlay.read(into: [part], at: position)
          try base.write(from: [part], at: position)
        }
      }
      position += extent.count
      progress(position, overlay.size)
    }
    return written
  }

  /// Notes in an overlay's header what its base is like now.
  private static func restamp(
    _ file: HostDiskFile, _ header: Qcow2Header, _ basePath: String, _ format: DiskFormat
  ) throws(StorageError) {
    guard let name = header.backingName else { return }
    let stamp = (try? FileFacts(of: basePath)).map { BaseStamp($0) }
    try setBase(file, (name, format, stamp))
  }

  /// Puts the overlay at `path` on another base, or, without a name, on none.
  ///
  /// What it showed of the old base and the new one doesn't have is copied into it first; `isUnsafe`
  /// leaves that out and changes only the name, for a base that was moved.
  package static func rebase(
    _ path: String, to name: String?, format: DiskFormat?, isUnsafe: Bool,
    progress: (UInt64, UInt64) -> Void
  ) throws(DiskError) {
    let file = try openFile(path, isReadOnly: false)
    let header = try qcow2Header(of: file)
    var new: (name: String, format: DiskFormat, stamp: BaseStamp?)?
    var newBase: (any BlockStore)?
    if let name {
      let (opened, stamp) = try openBase(name, format: format, for: path)
      if (try? FileFacts(of: resolve(name, from: path)).identity) == file.facts.identity {
        throw DiskError(.usage, path, "can't be its own base")
      }
      new = (name, opened.format, stamp)
      newBase = opened.store
    }
    var oldBase: (any BlockStore)?
    if !isUnsafe && header.backingName != nil {
      let (basePath, format) = try Qcow2Image.base(of: header, at: path)
      var options = Options()
      options.format = format
      options.isReadOnly = true
      oldBase = try open(basePath, options).store
    }
    do throws(StorageError) {
      if !isUnsafe {
        let overlay = try Qcow2Disk(file, header, base: oldBase, isReadOnly: false)
        try keep(overlay, old: oldBase, new: newBase, progress)
        try overlay.flush()
      }
      try setBase(file, new)
    } catch { throw DiskError(path, error) }
  }

  /// Copies into an overlay what it shows of its old base where the new one has something else.
  private static func keep(
    _ overlay: Qcow2Disk, old: (any BlockStore)?, new: (any BlockStore)?,
    _ progress: (UInt64, UInt64) -> Void
  ) throws(StorageError) {
    let (one, other) = (try DiskCopy.scratch(), try DiskCopy.scratch())
    var position: UInt64 = 0
    while position < overlay.size {
      let range = overlay.clusters(position, min(DiskCopy.chunk, overlay.size - position))
      let extent = try overlay.tables.locked { tables throws(StorageError) in
        try tables.extent(range.lowerBound, limit: UInt64(range.count))
      }
      let end = min((range.lowerBound + extent.clusters) << overlay.clusterBits, overlay.size)
      if case .unallocated = extent.entry {
        let count = Int(end - position)
        try read(old, at: position, into: one.slice(0, count: count))
        try read(new, at: position, into: other.slice(0, count: count))
        var start = 0
        while start < count {
          let length = min(Int(overlay.clusterSize), count - start)
          if !areEqual(one, other, start, length) {
            try overlay.write(
              from: [one.slice(start, count: length)], at: position + UInt64(start))
          }
          start += length
        }
      }
      position = end
      progress(position, overlay.size)
    }
  }

  private static func read(
    _ store: (any BlockStore)?, at offset: UInt64, into view: MemoryView
  ) throws(StorageError) {
    let there = Int(min(UInt64(view.count), (store?.size ?? 0) - min(offset, store?.size ?? 0)))
    if let store, there > 0 { try store.read(into: [view.slice(0, count: there)], at: offset) }
    view.zero(there, count: view.count - there)
  }

  private static func areEqual(
    _ one: MemoryView, _ other: MemoryView, _ start: Int, _ count: Int
  ) -> Bool {
    // Clusters and disks are whole sectors.
    for position in stride(from: start, to: start + count, by: 8)
    where one.load(position, as: UInt64.self) != other.load(position, as: UInt64.self) {
      return false
    }
    return true
  }

  /// Changes the base in the header of an open image: in one write, after all else is safe.
  private static func setBase(
    _ file: HostDiskFile, _ base: (name: String, format: DiskFormat, stamp: BaseStamp?)?
  ) throws(StorageError) {
    var header = try Qcow2Image.readHeader(file)
    header.setBase(base)
    guard var bytes = header.serialized() else {
      throw .unsupported("a name so long: the header has no room for it")
    }
    // What was behind the old header must not be taken for a part of the new one.
    bytes += [UInt8](
      repeating: 0, count: min(4096, Int(header.clusterSize)) - min(4096, bytes.count))
    try file.flush()
    try file.write(bytes.span, at: 0)
    try file.flush()
  }
}

extension Qcow2Disk {
  /// Lets go all that the image has of its own: its base shows through everywhere.
  func empty() throws(StorageError) {
    try tables.locked { tables throws(StorageError) in
      try tables.prepareWriting()
      var cluster: UInt64 = 0
      let end = (size + clusterSize - 1) >> clusterBits
      while cluster < end {
        let extent = try tables.extent(cluster, limit: end - cluster)
        if extent.entry != .unallocated {
          for index in cluster..<cluster + extent.clusters {
            try tables.set(index, 0, givesSpaceBack: true)
          }
        }
        cluster += extent.clusters
      }
    }
    try flush()
  }
}
