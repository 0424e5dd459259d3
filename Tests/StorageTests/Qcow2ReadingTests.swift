import Host
import Memory
import Storage
import Testing
import TestSupport

@Suite(
  "qcow2 images of qemu-img", .enabled(if: QEMUImage.isThere, "qemu-img isn't installed"), .limited)
struct Qcow2ReadingTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// 3 MiB and a bit: data that packs well, data that doesn't, zeros.
  private func contents() -> [UInt8] {
    var numbers = SplitMix(7)
    var bytes = numbers.bytes(1 << 20)
    bytes += (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 >> 8) }
    bytes += [UInt8](repeating: 0, count: 1 << 20)
    bytes += numbers.bytes(5 * 512)
    return bytes
  }

  private func readBack(_ path: String) throws -> [UInt8] {
    var options = DiskImage.Options()
    options.isReadOnly = true
    let disk = try DiskImage.open(path, options).store
    var numbers = SplitMix(3)
    var bytes: [UInt8] = []
    while bytes.count < Int(disk.size) {
      let count = min(Int(disk.size) - bytes.count, 1 + Int(numbers.next() % 300_000))
      bytes += try disk.read(count, at: UInt64(bytes.count))
    }
    return bytes
  }

  @Test(
    "every cluster size and version reads as it was written",
    arguments: Trials.cases([512, 1024, 4096, 16384, 65536, 262_144, 2_097_152]), ["0.10", "1.1"])
  func clusterSizes(size: Int, version: String) throws {
    let bytes = contents()
    let raw = try scratch.file("raw", bytes)
    let image = scratch.file("image")
    try QEMUImage.run(
      "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=\(size),compat=\(version)", raw,
      image)
    #expect(try readBack(image) == bytes)
  }

  @Test(
    "compressed clusters", .needsCompression, arguments: ["zlib", "zstd"],
    Trials.cases([512, 4096, 65536, 2_097_152]))
  func compressed(method: String, size: Int) throws {
    let bytes = contents()
    let raw = try scratch.file("raw", bytes)
    let image = scratch.file("image")
    try QEMUImage.run(
      "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
      "cluster_size=\(size),compression_type=\(method)", raw, image)
    #expect(try readBack(image) == bytes)
  }

  @Test(
    "a build without zlib and zstd says so of compressed clusters, how to have them, and leaves the image",
    .enabled(if: Decompression.lack != nil, "built with zlib and zstd"),
    arguments: ["zlib", "zstd"])
  func withoutCompression(method: String) throws {
    let raw = try scratch.file("raw", contents())
    let image = scratch.file("image")
    try QEMUImage.run(
      "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=\(method)", raw, image)
    do {
      let disk = try DiskImage.open(image, .init()).store
      let error = try #require(throws: StorageError.self) { try disk.read(512, at: 1 << 20) }
      #expect("\(error)".contains("built without zlib and zstd"))
      #expect("\(error)".contains("--traits CompressedDisks"))
      // A part of a cluster needs the rest of it; a whole one doesn't.
      #expect(throws: error) { try disk.write([1], at: 1 << 20) }
      try disk.write([UInt8](repeating: 7, count: 65536), at: 1 << 20)
      #expect(try disk.read(512, at: 1 << 20) == [UInt8](repeating: 7, count: 512))
    }
    try QEMUImage.run("check", image)
  }

  @Test("preallocated images", arguments: ["metadata", "falloc", "full"])
  func preallocated(how: String) throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", "-o", "preallocation=\(how)", image, "3M")
    try QEMUImage.io(image, ["write -P 7 1M 70k"])
    var expected = [UInt8](repeating: 0, count: 3 << 20)
    for index in 1 << 20..<(1 << 20) + 70 * 1024 { expected[index] = 7 }
    #expect(try readBack(image) == expected)
  }

  @Test("refcounts of all sizes", arguments: Trials.cases([1, 2, 4, 8, 16, 32, 64]))
  func refcountBits(bits: Int) throws {
    let bytes = contents()
    let raw = try scratch.file("raw", bytes)
    let image = scratch.file("image")
    try QEMUImage.run(
      "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096,refcount_bits=\(bits)", raw,
      image)
    #expect(try readBack(image) == bytes)
    do {
      let disk = try DiskImage.open(image, .init()).store
      try disk.write([UInt8](repeating: 9, count: 1 << 20), at: 2 << 20)
    }
    try QEMUImage.run("check", image)
    #expect(try readBack(image)[2 << 20] == 9)
  }

  @Test(
    "bases, 1 to 4 of them, larger and smaller, raw and qcow2",
    arguments: Trials.cases([1, 2, 3, 4]))
  func chains(depth: Int) throws {
    var expected = contents()
    _ = try scratch.file("level0", expected)
    var numbers = SplitMix(UInt64(depth))
    var format = "raw"
    for level in 1...depth {
      let size = level % 2 == 0 ? 2 << 20 : 4 << 20
      let image = scratch.file("level\(level)")
      try QEMUImage.run(
        "create", "-f", "qcow2", "-o", "cluster_size=\(512 << (2 * level))", "-F", format, "-b",
        "level\(level - 1)", image, "\(size)")
      expected = Array(expected.prefix(size))
      expected += [UInt8](repeating: 0, count: size - expected.count)
      var commands: [String] = []
      for _ in 0..<10 {
        let start = Int(numbers.next() % UInt64(size / 512 - 40)) * 512
        let count = Int(1 + numbers.next() % 40) * 512
        let byte = UInt8(numbers.next() % 4)
        commands.append(
          byte == 0 ? "write -z \(start) \(count)" : "write -P \(byte) \(start) \(count)")
        for index in start..<start + count { expected[index] = byte }
      }
      try QEMUImage.io(image, commands)
      format = "qcow2"
    }
    #expect(try readBack(scratch.file("level\(depth)")) == expected)
  }

  @Test(
    "what kvmlite doesn't know is refused by its name",
    arguments: [
      ("extended_l2=on,cluster_size=64k", "extended L2"),
      ("data_file=DIR/data", "external data file"),
      // Not LUKS, for which qemu-img measures the processor: that takes seconds, and fails on a busy one.
      ("encrypt.format=aes,encrypt.key-secret=s", "encrypted"),
    ])
  func refused(options: String, word: String) throws {
    let image = scratch.file("image")
    let options = options.replacing("DIR", with: scratch.path)
    try QEMUImage.run(
      "create", "--object", "secret,id=s,data=x", "-f", "qcow2", "-o", options, image, "1M")
    let error = #expect(throws: DiskError.self) { try DiskImage.open(image, .init()) }
    #expect(error?.kind == .malformed)
    #expect(error?.description.contains(word) == true)
  }

  @Test("internal snapshots are refused, and what removes them is said")
  func snapshots() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", image, "1M")
    try QEMUImage.run("snapshot", "-c", "one", image)
    let error = #expect(throws: DiskError.self) { try DiskImage.open(image, .init()) }
    #expect(error?.description.contains("qemu-img snapshot -d") == true)
  }

  @Test("a terabyte opens without reading it")
  func large() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", image, "1T")
    let disk = try DiskImage.open(image, .init()).store
    #expect(disk.size == 1 << 40)
    #expect(try disk.read(512, at: (1 << 40) - 512) == [UInt8](repeating: 0, count: 512))
    try disk.write([UInt8](repeating: 1, count: 512), at: (1 << 40) - 512)
    #expect(try disk.read(512, at: (1 << 40) - 512) == [UInt8](repeating: 1, count: 512))
  }
}
