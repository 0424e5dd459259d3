import Host
import Memory
import Storage
import Synchronization
import Testing
import TestSupport

@Suite("Raw disks", .limited)
struct RawDiskTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func open(_ path: String, readOnly: Bool = false) throws -> any BlockStore {
    var options = DiskImage.Options()
    options.isReadOnly = readOnly
    return try DiskImage.open(path, options).store
  }

  @Test("segments of all lengths, more than one call takes, arrive in order")
  func manySegments() throws {
    var numbers = SplitMix(1)
    let bytes = numbers.bytes(1 << 20)
    let path = try scratch.file("disk", [UInt8](repeating: 0, count: 1 << 20))
    let disk = try open(path)
    var segments: [MemoryView] = []
    let memory = try segment(bytes)
    var position = 0
    while position < bytes.count {
      let length = min(bytes.count - position, Int(numbers.next() % 700))
      segments.append(memory.slice(position, count: length))
      position += length
    }
    #expect(segments.count > 1024)
    try disk.write(from: segments, at: 0)
    #expect(try contents(of: path) == bytes)
    memory.zero(0, count: memory.count)
    try disk.read(into: segments, at: 0)
    #expect(memory.bytes == bytes)
  }

  @Test("what is not on the disk is refused, and nothing is written")
  func ranges() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 7, count: 4096))
    let disk = try open(path)
    #expect(disk.size == 4096)
    #expect(throws: StorageError.outOfRange) { try disk.write([1, 2], at: 4095) }
    #expect(throws: StorageError.outOfRange) { try disk.read(1, at: .max) }
    #expect(throws: StorageError.outOfRange) {
      try disk.writeZeroes(at: 1, count: .max, mayUnmap: true)
    }
    #expect(try contents(of: path) == [UInt8](repeating: 7, count: 4096))
  }

  @Test("zeros are zeros, with and without the space")
  func zeros() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 7, count: 65536))
    let disk = try open(path)
    try disk.writeZeroes(at: 1000, count: 9000, mayUnmap: false)
    try disk.discard(at: 20480, count: 4096)
    var expected = [UInt8](repeating: 7, count: 65536)
    for index in 1000..<10000 { expected[index] = 0 }
    for index in 20480..<24576 { expected[index] = 0 }
    #expect(try contents(of: path) == expected)
  }

  @Test("a last sector that isn't whole is filled up with zeros")
  func partialSector() throws {
    let disk = try open(try scratch.file("disk", [UInt8](repeating: 7, count: 700)))
    #expect(disk.size == 1024)
    #expect(
      try disk.read(1024, at: 0)
        == [UInt8](repeating: 7, count: 700) + [UInt8](repeating: 0, count: 324))
  }

  @Test("a file that was cut off under the disk is an error, not zeros")
  func truncated() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 7, count: 8192))
    let disk = try open(path)
    try FileDescriptor(opening: path, [.writeOnly]).setLength(1024)
    #expect(throws: StorageError.truncated) { try disk.read(4096, at: 0) }
    #expect(try disk.read(1024, at: 0) == [UInt8](repeating: 7, count: 1024))
  }

  private final class Places: Sendable {
    private let end = Atomic<UInt64>(0)
    func next() -> UInt64 { end.add(512, ordering: .relaxed).oldValue }
  }

  @Test("a file that grows while several flush it is not taken for one that was cut off")
  func growing() async throws {
    let path = try scratch.file("image", [])
    let file = try HostDiskFile(path, isReadOnly: false)
    let places = Places()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask {
          for _ in 0..<3000 {
            try file.write([UInt8](repeating: 1, count: 512).span, at: places.next())
            try file.flush()
          }
        }
      }
      try await group.waitForAll()
    }
  }

  @Test("a read-only disk takes no write")
  func readOnly() throws {
    let disk = try open(
      try scratch.file("disk", [UInt8](repeating: 7, count: 512)), readOnly: true)
    #expect(throws: StorageError.readOnly) { try disk.write([1], at: 0) }
    #expect(throws: StorageError.readOnly) { try disk.discard(at: 0, count: 512) }
  }

  @Test("a guest can't turn its guessed raw disk into another format, in one write or several")
  func magic() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 7, count: 4096))
    let disk = try open(path)
    let header: [UInt8] = [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3]
    #expect(throws: StorageError.host(.notPermitted)) { try disk.write(header, at: 0) }
    for (offset, byte) in header.prefix(3).enumerated() {
      try disk.write([byte], at: UInt64(offset))
    }
    #expect(throws: StorageError.host(.notPermitted)) { try disk.write([0xFB, 0], at: 3) }
    #expect(try disk.read(5, at: 0) == [0x51, 0x46, 0x49, 7, 7])
    // Whoever says that it is raw may.
    var options = DiskImage.Options()
    options.format = .raw
    let other = try DiskImage.open(try scratch.file("told", [0, 0, 0, 0]), options).store
    try other.write(header, at: 0)
    #expect(try other.read(8, at: 0) == header)
  }

  @Test("two writers refuse each other, two readers don't")
  func locks() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 7, count: 512))
    do {
      let first = try open(path)
      #expect(throws: DiskError.self) { try open(path) }
      #expect(throws: DiskError.self) { try open(path, readOnly: true) }
      #expect(first.size == 512)
    }
    let readers = [try open(path, readOnly: true), try open(path, readOnly: true)]
    #expect(throws: DiskError.self) { try open(path) }
    #expect(readers.count == 2)
  }

  @Test("what can't be a disk is refused in words")
  func refusals() throws {
    #expect(throws: DiskError.self) { try open(scratch.path) }
    #expect(throws: DiskError.self) { try open("/dev/null") }
    #expect(throws: DiskError.self) { try open(scratch.file("none")) }
  }
}
