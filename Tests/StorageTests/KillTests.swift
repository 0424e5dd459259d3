import Foundation
import Glibc
import Memory
import Storage
import TestSupport
import Testing

@Suite("kill -9 loses nothing that was flushed", .limited)
struct KillTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// The program beside the tests.
  private var writer: String {
    URL(filePath: Kvmlite.path).deletingLastPathComponent().appending(path: "storage-writer").path
  }

  /// Runs the writer, kills it at a random moment, and returns how much it said to be safe.
  private func killedRound(
    _ image: String, _ format: DiskFormat, _ round: UInt64, _ numbers: inout SplitMix
  ) throws -> UInt64 {
    let process = try ChildProcess(writer, [image, format.rawValue, "\(round)"])
    try process.waitForOutput("\n", times: Int(1 + numbers.next() % 12))
    // The random moment itself: nothing is waited for, and any length will do.
    usleep(UInt32(numbers.next() % 3000))
    process.send(SIGKILL)
    #expect(try process.waitForEnd() == .killed(SIGKILL))
    // A line that isn't whole isn't an acknowledgement.
    let lines = process.outputText.split(separator: "\n", omittingEmptySubsequences: false)
    return lines.dropLast().last.flatMap { UInt64($0) } ?? 0
  }

  /// Holds each block against what may be there, and takes what is there over into `model`.
  private func verify(
    _ disk: any BlockStore, _ model: inout [UInt64], round: UInt64, safe: UInt64
  ) throws {
    // What was written after the last flush may be there or not; how much that was, nobody knows.
    for number in 0..<safe {
      let work = Work(round: round, number: number)
      model[Int(work.block)] = work.value
    }
    // Between two flushes are some sixteen writes, and no more than a few hundred.
    var unsafe: [Int: Set<UInt64>] = [:]
    for number in safe..<safe + 500 {
      let work = Work(round: round, number: number)
      unsafe[Int(work.block), default: []].insert(work.value)
    }
    let memory = try MemoryView(scratch: Int(Work.blocks) * Work.blockSize)
    try disk.read(into: [memory], at: 0)
    for block in 0..<Int(Work.blocks) {
      let start = block * Work.blockSize
      let value = memory.load(start, as: UInt64.self)
      // One word of each sector: less than a sector is never written.
      let isWhole = stride(from: start + 504, to: start + Work.blockSize, by: 512)
        .allSatisfy { memory.load($0, as: UInt64.self) == value }
      if !isWhole || (value != model[block] && unsafe[block]?.contains(value) != true) {
        Issue.record("round \(round), block \(block): \(value) where \(model[block]) is safe")
        return
      }
      model[block] = value
    }
  }

  private func run(_ image: String, _ format: DiskFormat, usually: Int) throws {
    let rounds = UInt64(Trials.rounds(usually))
    var numbers = SplitMix(rounds)
    var model = [UInt64](repeating: 0, count: Int(Work.blocks))
    var safe: UInt64 = 0
    for round in 1...rounds {
      let flushed = try killedRound(image, format, round, &numbers)
      safe += flushed
      if format == .qcow2 {
        let found = try DiskCheck.run(image, repairs: true)
        #expect(found.isSound, "round \(round): \(found.complaints)")
        if round % 25 == 0 && QEMUImage.isThere { try QEMUImage.run("check", image) }
      }
      var options = DiskImage.Options()
      options.format = format
      options.isReadOnly = true
      try verify(try DiskImage.open(image, options).store, &model, round: round, safe: flushed)
    }
    #expect(safe > rounds)
  }

  @Test("raw, 100 kills")
  func raw() throws {
    let image = scratch.file("image")
    var new = DiskImage.NewImage()
    new.format = .raw
    new.size = Work.blocks * UInt64(Work.blockSize)
    try DiskImage.create(image, new)
    try run(image, .raw, usually: 100)
  }

  @Test("qcow2, 200 kills", arguments: [4096, 65536] as [UInt64])
  func qcow2(clusterSize: UInt64) throws {
    let image = scratch.file("image")
    var new = DiskImage.NewImage()
    new.size = Work.blocks * UInt64(Work.blockSize)
    new.clusterSize = clusterSize
    try DiskImage.create(image, new)
    try run(image, .qcow2, usually: 100)
  }

  @Test("an overlay, 50 kills")
  func overlay() throws {
    let base = try scratch.file(
      "base", [UInt8](repeating: 0, count: Int(Work.blocks) * Work.blockSize))
    let image = scratch.file("image")
    var new = DiskImage.NewImage()
    new.base = base
    new.baseFormat = .raw
    try DiskImage.create(image, new)
    try run(image, .qcow2, usually: 50)
    #expect(try contents(of: base).allSatisfy { $0 == 0 })
  }
}
