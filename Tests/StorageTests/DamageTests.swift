import Host
import Memory
import TestSupport
import Testing

@testable import Storage

@Suite("qcow2 images that turn out to be damaged", .limited)
struct DamageTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// An image of 32 clusters of data, in which the entries of `changes` have been changed.
  private func makeImage(_ changes: [UInt64: UInt64]) throws -> String {
    let path = scratch.file("image")
    var new = DiskImage.NewImage()
    new.size = 1 << 20
    new.clusterSize = 4096
    try DiskImage.create(path, new)
    do {
      let disk = try DiskImage.open(path, .init()).store
      try disk.write([UInt8](repeating: 7, count: 128 << 10), at: 0)
    }
    let file = try HostDiskFile(path, isReadOnly: false)
    let header = try Qcow2Image.readHeader(file)
    let table = try #require(try Qcow2Tables(file, header).l2Table(0))
    for (cluster, entry) in changes {
      try file.write(entry.bigEndianBytes.span, at: table + cluster * 8)
    }
    return path
  }

  private func isMarked(_ path: String) throws -> Bool {
    let header = try Qcow2Image.readHeader(HostDiskFile(path, isReadOnly: true))
    return header.incompatible & Qcow2Header.Incompatible.corrupt != 0
  }

  @Test(
    "are marked, and written no more, once that shows",
    arguments: [
      // A table of the image's own, and where no cluster begins.
      Qcow2Entry.copied | 4096, Qcow2Entry.copied | 0x10200,
    ])
  func marked(entry: UInt64) throws {
    let path = try makeImage([3: entry])
    do {
      let disk = try DiskImage.open(path, .init()).store
      try disk.write([1], at: 0)
      try disk.flush()
      #expect(try !isMarked(path))
      #expect(throws: StorageError.self) { try disk.write([1], at: 3 * 4096) }
      #expect(try isMarked(path))
      let before = try contents(of: path)
      // What is sound can still be read; nothing is written, and no flush says that all is well.
      #expect(try disk.read(1, at: 4096) == [7])
      for change in 0..<4 {
        #expect(throws: StorageError.self) {
          switch change {
          case 0: try disk.write([2], at: 4096)
          case 1: try disk.writeZeroes(at: 0, count: 65536, mayUnmap: true)
          case 2: try disk.discard(at: 0, count: 65536)
          default: try disk.flush()
          }
        }
      }
      #expect(try contents(of: path) == before)
    }
    if QEMUImage.isThere {
      #expect(try QEMUImage.run("info", path).contains("corrupt: true"))
    }
    let again = try DiskImage.open(path, .init())
    #expect(again.store.isReadOnly)
    #expect(again.warnings.contains { $0.description.contains("marked as damaged") })
    #expect(try again.store.read(1, at: 0) == [1])
  }

  @Test("by a read that finds it, too; but not where the image is only read")
  func reading() throws {
    let path = try makeImage([3: Qcow2Entry.copied | 0x10200])
    var options = DiskImage.Options()
    options.isReadOnly = true
    do {
      let disk = try DiskImage.open(path, options).store
      #expect(throws: StorageError.self) { try disk.read(1, at: 3 * 4096) }
    }
    #expect(try !isMarked(path))
    let disk = try DiskImage.open(path, .init()).store
    #expect(throws: StorageError.self) { try disk.read(1, at: 3 * 4096) }
    #expect(try isMarked(path))
    #expect(throws: StorageError.self) { try disk.write([1], at: 0) }
  }

  @Test("a base's damage is not its overlay's")
  func base() throws {
    let base = try makeImage([3: Qcow2Entry.copied | 0x10200])
    let path = scratch.file("overlay")
    var new = DiskImage.NewImage()
    new.base = base
    try DiskImage.create(path, new)
    let disk = try DiskImage.open(path, .init()).store
    #expect(throws: StorageError.self) { try disk.write([1], at: 3 * 4096) }
    try disk.write([1], at: 512 << 10)
    try disk.flush()
    #expect(try !isMarked(path) && !isMarked(base))
  }

  @Test("the mark goes when a repair has left nothing lost")
  func repaired() throws {
    let path = try makeImage([:])
    do {
      let file = try HostDiskFile(path, isReadOnly: false)
      try file.write(Qcow2Header.Incompatible.corrupt.bigEndianBytes.span, at: 72)
    }
    #expect(try isMarked(path))
    _ = try DiskCheck.run(path, repairs: true)
    #expect(try !isMarked(path))
    #expect(try !DiskImage.open(path, .init()).store.isReadOnly)
  }
}
