import Boot
import Memory
import Testing
import TestSupport

@Suite("Hostile images", .limited)
struct MutationTests {
  private static let interesting: [UInt64] = [
    0, 1, 2, 0x7F, 0xFF, 0x500, 0x1000, 0xFFFF, 0x10000, 0x10_0000, 0x7FF_FFFF, 0x7FFF_FFFF,
    0xBFFF_FFFF, 0xC000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 1 << 46, 1 << 63, UInt64.max - 1,
    UInt64.max,
  ]

  private func mutate(_ bytes: [UInt8], _ generator: inout SplitMix) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...4, using: &generator) {
      // Past byte 4, so that it stays an ELF file.
      let position = Int.random(in: 4..<bytes.count, using: &generator)
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: bytes[position] = UInt8.random(in: 0...255, using: &generator)
      case 1: bytes[position] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      case 2:
        let width = [2, 4, 8][Int.random(in: 0..<3, using: &generator)]
        let value = Self.interesting.randomElement(using: &generator) ?? 0
        // Aligned as the fields are, so that it becomes the value of one.
        let start = position / 4 * 4
        for (index, byte) in littleEndian(value, width).enumerated()
        where start + index < bytes.count { bytes[start + index] = byte }
      default:
        if Int.random(in: 0..<8, using: &generator) == 0 {
          bytes.removeLast(bytes.count - position)
        }
        if bytes.count <= 5 { return bytes }
      }
    }
    return bytes
  }

  /// Expects what `BootPlan` promises of every plan.
  private func check(_ plan: BootPlan, ram: UInt64) {
    var end: UInt64 = 0
    for piece in plan.pieces {
      let (last, overflows) = piece.start.value.addingReportingOverflow(piece.size)
      let isInside =
        last <= min(ram, GuestMemory.holeStart)
        || (piece.start.value >= GuestMemory.holeEnd
          && last <= ram + GuestMemory.holeEnd - GuestMemory.holeStart)
      if overflows || !isInside || piece.start.value < end || piece.contents.count > piece.size {
        Issue.record("\(piece.what) at \(piece.start), \(piece.size) bytes, RAM \(ram)")
      }
      end = last
    }
    for range in plan.tables.map({ [$0.acpi, $0.mp] }) ?? [] {
      let isFree = !plan.pieces.contains { $0.range.overlaps(range) }
      if !MemoryMap.firmware.contains(range) || range.upperBound > ram || !isFree {
        Issue.record("tables at \(range), RAM \(ram)")
      }
    }
    let entry = plan.entry.code.base + plan.entry.instructionPointer
    if !plan.pieces.contains(where: { $0.range.contains(entry) }) {
      Issue.record("entry \(entry) is in no piece")
    }
  }

  @Test(arguments: [true, false], [128 << 20, 5 << 30] as [UInt64])
  func noMutationTrapsOrLeavesRAM(is64Bit: Bool, ram: UInt64) {
    var elf = ELFBuilder(is64Bit: is64Bit)
    elf.segments = [
      .init(), .init(type: 4, contents: [UInt8](repeating: 4, count: 48)),
      .init(virtual: 0x4_0000, physical: 0x4_0000, contents: [1, 2, 3, 4], memorySize: 0x3000),
      .init(virtual: 0x8000, physical: 0x8000, contents: [], memorySize: 0x1000),
    ]
    var generator = SplitMix(is64Bit ? 64 : 32)
    var planned = 0
    let rounds = Trials.rounds(4_000)
    for _ in 0..<rounds {
      guard let plan = try? plan(mutate(elf.bytes, &generator), ram: ram) else { continue }
      planned += 1
      check(plan, ram: ram)
    }
    // Both ways must have been tried, or the test says nothing.
    #expect(planned > rounds / 20 && planned < rounds * 19 / 20)
  }

  /// Every format that tells the guest something, by a sound image of it.
  private static let kernels: [(name: String, bytes: [UInt8])] = [
    (
      "bzImage",
      BzImageBuilder(setupSects: 1, initSize: 0x4000, kernel: [UInt8](repeating: 1, count: 0x400))
        .bytes
    ),
    ("pvh", ELFBuilder.pvh().bytes), ("vmlinux", ELFBuilder.vmlinux.bytes),
    ("multiboot", ELFBuilder.multiboot().bytes),
    (
      "a.out",
      multibootHeader(
        flags: 0x1_0000, addresses: [0x10_0000, 0x10_0000, 0x10_0028, 0x10_1000, 0x10_0000])
        + [UInt8](repeating: 0xF4, count: 16)
    ),
  ]

  @Test(arguments: 0..<5, [1 << 20, 32 << 20, 5 << 30] as [UInt64])
  func noMutationOfAKernelTrapsOrLeavesRAM(index: Int, ram: UInt64) {
    let (name, bytes) = Self.kernels[index]
    var generator = SplitMix(UInt64(index) + ram)
    var planned = 0
    let rounds = Trials.rounds(2_000)
    for round in 0..<rounds {
      // Most mutations of all of a bzImage would only change its setup code.
      let header = name == "bzImage" ? 0x1F0..<0x270 : bytes.indices
      let image =
        bytes[..<header.lowerBound] + mutate(Array(bytes[header]), &generator)
        + bytes[header.upperBound...]
      let initrd = round % 3 == 0 ? [UInt8](repeating: 2, count: round * 40 + 1) : nil
      let text = round % 2 == 0 ? String(repeating: "x", count: round) : nil
      let plan = try? plan(
        Array(image), ram: ram, initrd: initrd, commandLine: text,
        tables: round % 5 == 0 ? .pc : nil)
      guard let plan else { continue }
      planned += 1
      check(plan, ram: ram)
    }
    #expect(
      planned < rounds * 19 / 20 && (planned > rounds / 40 || ram == 1 << 20),
      "\(name): \(planned) planned")
  }

  @Test func noBytesTrap() {
    var generator = SplitMix(1)
    for _ in 0..<Trials.rounds(300) {
      let count = Int.random(in: 0..<600, using: &generator)
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      for mode in CPUMode.allCases {
        let address = GuestAddress(Self.interesting.randomElement(using: &generator) ?? 0)
        if let plan = try? plan(bytes, mode: mode, at: address) { check(plan, ram: 128 << 20) }
      }
    }
  }
}
