import Foundation
import Glibc
import TestSupport
import Testing

/// A guest writes at random and flushes; kvmlite is killed at a random moment; what the guest was told
/// to be safe must be there, by the word of qemu-img.
@Suite(
  "kill -9 under a writing guest loses nothing that was flushed", .needsKVM, .needsQEMUImage,
  .limited)
struct GuestKillTests {
  private static let blocks = 1024
  private static let size = blocks * NumberedWrite.blockSize
  /// No guest makes so many writes between two flushes: one in sixteen is followed by one.
  private static let mostUnsafe: UInt32 = 1000
  /// How many kills of each kind.
  private static let rounds = UInt32(Trials.rounds(34))

  enum Image: String, CaseIterable, CustomTestStringConvertible {
    case raw, qcow2
    case overlay = "overlay with small clusters"
    var testDescription: String { rawValue }
  }

  enum Bus: String, CaseIterable {
    case mmio, ide
    var guest: String { self == .mmio ? "disk-virtio" : "disk-ide" }
  }

  private struct Lost: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private var image: String { "\(scratch.path)/image" }
  private var base: String { "\(scratch.path)/base" }

  /// What each block of a new image holds: the base has numbers, too.
  private func make(_ kind: Image) throws -> [UInt32] {
    switch kind {
    case .raw: _ = try scratch.file("image", [UInt8](repeating: 0, count: Self.size))
    case .qcow2: try qemuImage("create", "-f", "qcow2", image, "\(Self.size)")
    case .overlay:
      var words: [UInt32] = []
      for block in 0..<UInt32(Self.blocks) {
        let value = block % 3 == 0 ? 0 : 1 << 28 | block
        for sector in 0..<UInt32(8) {
          words.append(value == 0 ? 0 : value << 3 | sector)
          words += [UInt32](repeating: value, count: 127)
        }
      }
      _ = try scratch.file("base", unsafe words.withUnsafeBytes { unsafe Array($0) })
      try qemuImage(
        "create", "-f", "qcow2", "-o", "cluster_size=4096", "-b", base, "-F", "raw", image)
      return (0..<UInt32(Self.blocks)).map { $0 % 3 == 0 ? 0 : 1 << 28 | $0 }
    }
    return [UInt32](repeating: 0, count: Self.blocks)
  }

  @discardableResult
  private func qemuImage(_ arguments: String..., allowed: [Int32] = [0]) throws -> Int32 {
    let process = try ChildProcess("/usr/bin/qemu-img", arguments)
    guard case .exited(let status) = try process.waitForEnd(), allowed.contains(status) else {
      throw Lost("qemu-img \(arguments): \(process.outputText) \(process.errorText)")
    }
    return status
  }

  /// Lets the guest write from number `first` on, kills it, and returns the number of the last write
  /// that it knew to be safe, or the one before `first`.
  private func killedRun(
    _ kind: Image, _ bus: Bus, from first: UInt32, _ numbers: inout SplitMix
  ) throws -> UInt32 {
    // The first time something must have become safe, or a single round says nothing.
    let acknowledged = max(first == 1 ? 2 : 0, Int(numbers.next() % 16))
    let format = kind == .raw ? "raw" : "qcow2"
    let process = try Kvmlite.start(
      ["--disk", "\(image),bus=\(bus.rawValue),format=\(format)", "guest:\(bus.guest)"],
      input: .pipe)
    process.type("x \(first)\n")
    try process.waitForOutput(bytes: 4 * acknowledged)
    // The random moment itself: nothing is waited for, and any length will do.
    usleep(UInt32(numbers.next() % 4000))
    process.send(SIGKILL)
    #expect(try process.waitForEnd() == .killed(SIGKILL))
    // A number that isn't whole isn't an acknowledgement.
    let last = process.output.prefix(process.output.count / 4 * 4).suffix(4)
    return last.isEmpty ? first - 1 : last.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// Lets qemu-img look for damage; what is lost space alone, we repair.
  private func check() throws {
    // 3 says that clusters are leaked and nothing else is wrong.
    guard try qemuImage("check", "-q", image, allowed: [0, 3]) == 3 else { return }
    #expect(try Kvmlite.run("disk", "check", "--repair", image).end == .exited(0))
    try qemuImage("check", "-q", image)
  }

  /// The words of the disk, as qemu-img reads them.
  private func contents(_ kind: Image) throws -> [UInt32] {
    var path = image
    if kind != .raw {
      path = "\(scratch.path)/contents"
      try qemuImage("convert", "-O", "raw", image, path)
    }
    let bytes = try Data(contentsOf: URL(filePath: path))
    return unsafe bytes.withUnsafeBytes { unsafe Array($0.bindMemory(to: UInt32.self)) }
  }

  /// Holds each block against what may be there, and takes what is there over into `model`.
  private func verify(
    _ kind: Image, _ model: inout [UInt32], safe: ClosedRange<UInt32>, _ account: String
  ) throws {
    for number in safe.dropFirst() {
      let write = NumberedWrite(number, blocks: Self.blocks)
      model[write.block] = write.value
    }
    var later: [Int: Set<UInt32>] = [:]
    for number in safe.upperBound + 1...safe.upperBound + Self.mostUnsafe {
      let write = NumberedWrite(number, blocks: Self.blocks)
      later[write.block, default: []].insert(write.value)
    }
    let words = try contents(kind)
    try #require(words.count == Self.size / 4)
    for block in 0..<Self.blocks {
      for sector in 0..<8 {
        let start = block * 1024 + sector * 128
        let value = NumberedWrite.value(of: words[start..<start + 128], sector: sector)
        guard let value, value == model[block] || later[block]?.contains(value) == true else {
          let found = value.map(String.init) ?? "garbage"
          throw Lost(
            "\(account): block \(block), sector \(sector): \(found) where \(model[block]) is safe")
        }
        if sector == 7 { model[block] = value }
      }
    }
  }

  @Test("204 times, on each kind of image and bus alike", arguments: Image.allCases, Bus.allCases)
  func kills(kind: Image, bus: Bus) throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var numbers = SplitMix(seed)
    var model = try make(kind)
    let baseBytes = try? Data(contentsOf: URL(filePath: base))
    var first: UInt32 = 1
    var safe: UInt32 = 0
    for round in 1...Self.rounds {
      let last = try killedRun(kind, bus, from: first, &numbers)
      let account = "\(kind.rawValue) on \(bus), seed \(seed), kill \(round)"
      try #require(last >= first - 1 && last < first + 1_000_000, "\(account): \(last)")
      safe += last - (first - 1)
      if kind != .raw { try check() }
      try verify(kind, &model, safe: first - 1...last, account)
      first = last + Self.mostUnsafe + 1
    }
    #expect(safe > Self.rounds)
    #expect(try baseBytes == (baseBytes == nil ? nil : Data(contentsOf: URL(filePath: base))))
  }
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where there is no qemu-img; fails it there with KVMLITE_REQUIRE_QEMU_IMG.
  static var needsQEMUImage: Self {
    .enabled(
      if: ProcessInfo.processInfo.environment["KVMLITE_REQUIRE_QEMU_IMG"] != nil
        || FileManager.default.isExecutableFile(atPath: "/usr/bin/qemu-img"), "needs qemu-img")
  }
}
