import Host
import Memory
import Storage

/// Feeds the qcow2 code with arbitrary images: opens one, reads it, writes it, checks and repairs it.
///
/// The input is an image. Whatever it says, nothing may trap, run for long or take much memory, and
/// what was written must read back while the disk is open.
@_cdecl("LLVMFuzzerTestOneInput")
public func qcow2Fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  exercise(input, isReadOnly: true)
  exercise(input, isReadOnly: false)
  withImage(input) { path in
    if let found = try? DiskCheck.run(path, repairs: true), found.isRepaired, found.lost == 0 {
      // What was mended is sound.
      if let again = try? DiskCheck.run(path, repairs: false) {
        precondition(again.wrongRefcounts == 0 && again.leakedClusters == 0, "not mended")
      }
    }
  }
  return 0
}

// A file in memory, known to the code by its name in /proc.
private func withImage(_ bytes: [UInt8], _ body: (String) -> Void) {
  let path = "/dev/shm/kvmlite-qcow2-fuzz-\(LockHolder.currentProcess)"
  guard
    let file = try? FileDescriptor(opening: path, [.readWrite, .create, .truncate]),
    (try? file.writeAll(bytes.span)) != nil
  else { fatalError("no file in /dev/shm") }
  body(path)
  FileName.remove(path)
}

private let block: MemoryView = {
  guard let view = try? MemoryView(scratch: 65536) else { fatalError("no memory") }
  return view
}()

private func exercise(_ bytes: [UInt8], isReadOnly: Bool) {
  withImage(bytes) { path in
    var options = DiskImage.Options()
    options.format = .qcow2
    options.isReadOnly = isReadOnly
    guard let store = try? DiskImage.open(path, options).store, store.size > 0 else { return }
    let places = [0, store.size / 2 & ~511, store.size - min(store.size, 65536)]
    for place in places {
      let count = Int(min(65536, store.size - place))
      try? store.read(into: [block.slice(0, count: count)], at: place)
      guard !isReadOnly else { continue }
      let sector = block.slice(0, count: 512)
      sector.store(place ^ 0x5A5A, 0)
      if (try? store.write(from: [sector], at: place)) != nil {
        sector.store(0 as UInt64, 0)
        if (try? store.read(into: [sector], at: place)) != nil {
          precondition(sector.load(0, as: UInt64.self) == place ^ 0x5A5A, "read back")
        }
      }
      try? store.writeZeroes(at: place, count: UInt64(count), mayUnmap: place & 512 == 0)
      try? store.discard(at: place, count: UInt64(count))
      try? store.flush()
    }
    // Not all of a disk that may be petabytes large.
    var extents = 0
    struct Enough: Error {}
    do {
      _ = try DiskMap.forEach(of: store) { _ throws(Enough) in
        extents += 1
        if extents > 1000 { throw Enough() }
      }
    } catch {}
  }
}
