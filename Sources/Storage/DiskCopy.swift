import Host
import Memory

/// Copies what is on disks.
enum DiskCopy {
  /// How much is copied at a time.
  static let chunk: UInt64 = 2 << 20

  /// Whether a view has nothing but zeros.
  static func isZero(_ view: MemoryView, _ start: Int, _ count: Int) -> Bool {
    var position = start
    let end = start + count
    while position + 8 <= end {
      if view.load(position, as: UInt64.self) != 0 { return false }
      position += 8
    }
    while position < end {
      if view.load(position, as: UInt8.self) != 0 { return false }
      position += 1
    }
    return true
  }

  /// Calls `body` for each run of data in `view`, in steps of `grain` bytes, zeros left out.
  static func forEachRun(
    of view: MemoryView, count: Int, grain: Int,
    _ body: (Int, Int) throws(StorageError) -> Void
  ) throws(StorageError) {
    var start = 0
    while start < count {
      if isZero(view, start, min(grain, count - start)) {
        start += grain
        continue
      }
      var end = start + grain
      while end < count, !isZero(view, end, min(grain, count - end)) { end += grain }
      try body(start, min(end, count) - start)
      start = end
    }
  }

  /// Copies all that isn't zeros from `source` to `target`, which is zeros; `progress` is told how
  /// many bytes of the disk are done.
  static func copy(
    _ source: any BlockStore, to target: any BlockStore, progress: (UInt64) -> Void
  ) throws(StorageError) {
    let buffer = try scratch()
    var failure: StorageError?
    let end = DiskMap.forEach(of: source) { extent in
      guard failure == nil else { return }
      if extent.kind == .data || extent.kind == .compressed {
        failure = copy(extent, source, target, buffer, progress)
      }
      progress(extent.start + extent.count)
    }
    if let error = failure ?? end { throw error }
  }

  private static func copy(
    _ extent: DiskExtent, _ source: any BlockStore, _ target: any BlockStore,
    _ buffer: MemoryView, _ progress: (UInt64) -> Void
  ) -> StorageError? {
    do throws(StorageError) {
      var position = extent.start
      let end = extent.start + extent.count
      while position < end {
        let count = Int(min(chunk, end - position))
        let part = buffer.slice(0, count: count)
        try source.read(into: [part], at: position)
        try forEachRun(of: part, count: count, grain: 4096) { start, length throws(StorageError) in
          try target.write(
            from: [part.slice(start, count: length)], at: position + UInt64(start))
        }
        position += UInt64(count)
        progress(position)
      }
      return nil
    } catch { return error }
  }

  static func scratch() throws(StorageError) -> MemoryView {
    do throws(Errno) { return try MemoryView(scratch: Int(chunk)) } catch { throw .host(error) }
  }
}

extension DiskImage {
  /// Copies the disk in the image at `source` to a new image at `target`, which stands on its own.
  /// `progress` is told how many bytes of how many are done.
  package static func convert(
    _ source: String, format: DiskFormat?, to target: String, _ new: NewImage,
    progress: (UInt64, UInt64) -> Void
  ) throws(DiskError) {
    var options = Options()
    options.isReadOnly = true
    options.format = format
    let opened = try open(source, options).store
    let file = try NewDiskFile(target, replaces: new.replaces)
    do throws(DiskError) {
      let store = try emptyStore(in: file.file, target, new, size: opened.size)
      do throws(StorageError) {
        try DiskCopy.copy(opened, to: store) { progress($0, opened.size) }
        try store.flush()
      } catch { throw DiskError("\(source) to \(target)", error) }
      try file.commit()
    } catch {
      file.abandon()
      throw error
    }
  }

  private static func emptyStore(
    in file: HostDiskFile, _ path: String, _ new: NewImage, size: UInt64
  ) throws(DiskError) -> any BlockStore {
    do throws(StorageError) {
      if new.format == .qcow2 {
        guard new.clusterSize.nonzeroBitCount == 1, (512...2 << 20).contains(new.clusterSize) else {
          throw .unsupported("clusters of \(new.clusterSize) bytes")
        }
        let plan = Qcow2Image.Plan(
          size: size, clusterBits: new.clusterSize.trailingZeroBitCount, base: nil)
        let header = try Qcow2Image.make(plan, in: file)
        return try Qcow2Disk(file, header, base: nil, isReadOnly: false)
      }
      if file.growsWithZeros {
        try file.setLength(size)
      } else {
        guard try file.length() >= size else { throw .host(.noSpace) }
        try file.zero(at: 0, count: size, mayUnmap: true)
      }
      return try RawDisk(file, isReadOnly: false)
    } catch { throw DiskError(path, error) }
  }
}
