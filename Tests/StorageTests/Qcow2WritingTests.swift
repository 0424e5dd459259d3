import Host
import Memory
import TestSupport
import Testing

@testable import Storage

@Suite("qcow2 images that kvmlite writes", .enabled(if: QEMUImage.isThere, "no qemu-img"), .limited)
struct Qcow2WritingTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// Writes, zeroes and discards at random, and keeps account of what must be there.
  private func exercise(
    _ disk: any BlockStore, _ model: inout [UInt8], steps: Int, seed: UInt64, discards: Bool = true
  ) throws {
    var numbers = SplitMix(seed)
    for step in 0..<steps {
      let start = Int(numbers.next() % UInt64(model.count / 512)) * 512
      let longest = numbers.next() % 4 == 0 ? 300_000 : 9000
      let count = min(model.count - start, (1 + Int(numbers.next() % UInt64(longest / 512))) * 512)
      switch numbers.next() % 6 {
      case 0:
        try disk.writeZeroes(at: UInt64(start), count: UInt64(count), mayUnmap: step % 2 == 0)
        for index in start..<start + count { model[index] = 0 }
      case 1 where discards:
        try disk.discard(at: UInt64(start), count: UInt64(count))
        // What a discarded range holds is the store's choice.
        model.replaceSubrange(start..<start + count, with: try disk.read(count, at: UInt64(start)))
      case 2:
        #expect(try disk.read(count, at: UInt64(start)) == Array(model[start..<start + count]))
      default:
        let bytes = numbers.bytes(count)
        try disk.write(bytes, at: UInt64(start))
        model.replaceSubrange(start..<start + count, with: bytes)
      }
      if step % 50 == 49 { try disk.flush() }
    }
    try disk.flush()
  }

  private func judge(_ image: String, _ model: [UInt8]) throws {
    try QEMUImage.run("check", image)
    let raw = try scratch.file("expected", model)
    try QEMUImage.run("compare", "-f", "raw", "-F", "qcow2", raw, image)
  }

  @Test(
    "random work on every cluster size passes qemu-img check and compare",
    arguments: Trials.cases([512, 4096, 65536, 2_097_152]), ["0.10", "1.1"])
  func random(size: Int, version: String) throws {
    let image = scratch.file("image")
    try QEMUImage.run(
      "create", "-f", "qcow2", "-o", "cluster_size=\(size),compat=\(version)", image, "12M")
    var model = [UInt8](repeating: 0, count: 12 << 20)
    do {
      let disk = try DiskImage.open(image, .init()).store
      try exercise(disk, &model, steps: Trials.rounds(300), seed: UInt64(size))
    }
    try judge(image, model)
  }

  /// 3 MiB, part of which packs well.
  private func baseContents() -> [UInt8] {
    var numbers = SplitMix(1)
    return numbers.bytes(2 << 20) + (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 >> 9) }
  }

  /// Exercises an overlay of 4 MiB on a base that holds `model`.
  private func exerciseOverlay(
    on base: String, _ format: String, _ model: [UInt8], size: Int, version: String
  ) throws {
    var expected = model + [UInt8](repeating: 0, count: 1 << 20)
    let image = scratch.file("image")
    try QEMUImage.run(
      "create", "-f", "qcow2", "-o", "cluster_size=\(size),compat=\(version)", "-F", format, "-b",
      base, image, "4M")
    let before = try contents(of: base)
    do {
      let disk = try DiskImage.open(image, .init()).store
      try exercise(disk, &expected, steps: Trials.rounds(200), seed: 5)
    }
    #expect(try contents(of: base) == before)
    try judge(image, expected)
  }

  @Test(
    "overlays on raw bases leave the base as it was", arguments: Trials.cases([512, 4096, 65536]),
    ["0.10", "1.1"])
  func overlay(size: Int, version: String) throws {
    let model = baseContents()
    let raw = try scratch.file("raw", model)
    try exerciseOverlay(on: raw, "raw", model, size: size, version: version)
  }

  @Test(
    "overlays on compressed bases leave the base as it was", .needsCompression,
    arguments: Trials.cases([512, 4096, 65536]), ["0.10", "1.1"])
  func overlayOnCompressed(size: Int, version: String) throws {
    let model = baseContents()
    let raw = try scratch.file("raw", model)
    let packed = scratch.file("packed")
    try QEMUImage.run("convert", "-c", "-f", "raw", "-O", "qcow2", raw, packed)
    try exerciseOverlay(on: packed, "qcow2", model, size: size, version: version)
  }

  @Test("compressed clusters are replaced when they are written", .needsCompression)
  func overCompressed() throws {
    var model = (0..<2 << 20).map { UInt8(truncatingIfNeeded: $0 >> 7) }
    let raw = try scratch.file("raw", model)
    for method in ["zlib", "zstd"] {
      let image = scratch.file("image-\(method)")
      try QEMUImage.run(
        "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=\(method)", raw, image)
      do {
        let disk = try DiskImage.open(image, .init()).store
        try exercise(disk, &model, steps: Trials.rounds(100), seed: 9)
      }
      try judge(image, model)
      model = try contents(of: raw)
    }
  }

  @Test("threads at once lose nothing")
  func threads() async throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", "-o", "cluster_size=4096", image, "8M")
    var model = [UInt8](repeating: 0, count: 8 << 20)
    let rounds = Trials.rounds(1500)
    do {
      let disk = try DiskImage.open(image, .init()).store
      // Each has every fourth sector: all work on the same clusters.
      try await withThrowingTaskGroup(of: Void.self) { group in
        for worker in 0..<4 {
          group.addTask {
            var numbers = SplitMix(UInt64(worker))
            let memory = try MemoryView(scratch: 512)
            for _ in 0..<rounds {
              let sector = numbers.next() % 4096 * 4 + UInt64(worker)
              let byte = UInt8(truncatingIfNeeded: sector &* 7 &+ 1)
              memory.copy(from: [UInt8](repeating: byte, count: 512).span, at: 0)
              try disk.write(from: [memory], at: sector * 512)
              if sector % 64 == 0 { try disk.flush() }
            }
          }
        }
        try await group.waitForAll()
      }
      for worker in 0..<4 {
        var numbers = SplitMix(UInt64(worker))
        for _ in 0..<rounds {
          let sector = Int(numbers.next() % 4096 * 4) + worker
          let byte = UInt8(truncatingIfNeeded: sector &* 7 &+ 1)
          for index in sector * 512..<(sector + 1) * 512 { model[index] = byte }
          _ = numbers
        }
      }
    }
    try judge(image, model)
  }

  @Test("an image that is closed has no lost space", .needsCompression)
  func closed() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", image, "1M")
    try QEMUImage.io(image, ["write -c -P 3 0 64k", "write -c -P 4 64k 64k"])
    try DiskImage.open(image, .init()).store.write([1], at: 0)
    // Lost space would be status 3.
    try QEMUImage.run("check", image)
  }

  @Test("a repair keeps what QEMU has beyond the disk's end: a machine's state")
  func machineState() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", image, "1M")
    try QEMUImage.io(image, ["write -P 3 0 1M", "write -b -P 5 0 256k"])
    let header = try Qcow2Image.readHeader(HostDiskFile(image, isReadOnly: true))
    do {
      // Something to be mended: a cluster that nobody uses.
      let file = try HostDiskFile(image, isReadOnly: false)
      var tables = try Qcow2Tables(file, header)
      _ = try tables.allocate(1)
      try tables.writeBack()
    }
    #expect(try DiskCheck.run(image, repairs: true).leakedClusters == 1)
    try QEMUImage.run("check", image)
    try QEMUImage.io(image, ["read -b -P 5 0 256k"])
  }

  @Test("an image with dirty bitmaps that wasn't closed is repaired, and its bitmaps end")
  func dirtyBitmaps() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "1M")
    try QEMUImage.run("bitmap", "--add", image, "bitmap")
    try QEMUImage.io(image, ["write -P 3 0 512k"])
    do {
      let file = try HostDiskFile(image, isReadOnly: false)
      try file.write(Qcow2Header.Incompatible.dirty.bigEndianBytes.span, at: 72)
    }
    #expect(try DiskCheck.run(image, repairs: true).isRepaired)
    try QEMUImage.run("check", image)
    let disk = try DiskImage.open(image, .init()).store
    #expect(try disk.read(512 << 10, at: 0) == [UInt8](repeating: 3, count: 512 << 10))
  }

  @Test("a snapshot's writes are read back, and thrown away")
  func snapshot() throws {
    let bytes = [UInt8](repeating: 3, count: 1 << 20)
    let path = try scratch.file("raw", bytes)
    var options = DiskImage.Options()
    options.isSnapshot = true
    var model = bytes
    let disk = try DiskImage.open(path, options).store
    try exercise(disk, &model, steps: Trials.rounds(100), seed: 2)
    #expect(try disk.read(1 << 20, at: 0) == model)
    #expect(try contents(of: path) == bytes)
    #expect(Directory.names(in: scratch.path) == ["raw"])
  }

  @Test("QEMU and kvmlite refuse each other's images, and kvmlite says who has it")
  func locks() throws {
    let image = scratch.file("image")
    try QEMUImage.run("create", "-f", "qcow2", image, "1M")
    let disk = try DiskImage.open(image, .init()).store
    #expect(throws: QEMUImage.Failure.self) { try QEMUImage.run("info", image) }
    #expect(disk.size == 1 << 20)
  }
}
