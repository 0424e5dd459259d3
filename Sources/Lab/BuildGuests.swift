/// The guests of the lab `build` (guest-asm/lab/build.S), with numbers of their own.
enum BuildTask: String, CaseIterable {
  case run, out, `in`, string, memory, mmio, interrupt, window

  /// A guest, and what it reads.
  struct Trial {
    let image: [UInt8]
    let input: [UInt8]
  }

  /// Which of the four steps it belongs to.
  var step: Int {
    switch self {
    case .run: 1
    case .out, .in, .string: 2
    case .memory, .mmio: 3
    case .interrupt, .window: 4
    }
  }

  /// What the hypervisor must do for it.
  var text: String {
    switch self {
    case .run: "one instruction runs, HLT ends the guest, and AX is told"
    case .out: "a byte written to port 0x3f8 is printed"
    case .in: "a byte read from port 0x3f8 is the next one of the input"
    case .string: "REP INSB and REP OUTSB move as many bytes as the exit's count says"
    case .memory: "there are 640 KiB of RAM"
    case .mmio: "the adder at 0xd0000 adds what is written, 1, 2 or 4 bytes, and tells the sum"
    case .interrupt: "an interrupt that is raised while the guest is ready comes at once"
    case .window: "one that is raised before waits until the guest is ready, and wakes it from HLT"
    }
  }

  var points: Int { self == .run || self == .mmio || self == .window ? 2 : 1 }

  /// Where a guest has its numbers.
  private static let numbers = 8

  /// A guest with numbers by `random`; `length` is that of what it prints, where it prints a text.
  func trial(_ random: inout RandomNumbers, length: Int? = nil) throws(LabError) -> Trial {
    func pick(_ range: ClosedRange<Int>) -> Int {
      range.lowerBound + Int(random.next() % UInt64(range.count))
    }
    func letters(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(pick(0x61...0x7A)) } }
    func word(_ value: Int, _ width: Int = 2) -> [UInt8] {
      (0..<width).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
    let count = length ?? pick(8...40)
    // Keys leave letters printable, and are of one bit or more.
    let key = UInt8(pick(1...15))
    switch self {
    case .run:
      // mov ax, or: xor, add, sub, or, and not of AX, which is 0 at first
      let opcodes: [UInt8] = [0xB8, 0x35, 0x05, 0x2D, 0x0D]
      let opcode = opcodes[pick(0...opcodes.count - 1)]
      return Trial(image: [opcode] + word(pick(1...0xFFFF)) + [0xF4], input: [])
    case .out:
      let text = letters(count - 1) + [10]
      return try made([key, UInt8(count)] + text.map { $0 ^ key })
    case .in: return try made([key, UInt8(count)], input: letters(60))
    case .string: return try made([0, UInt8(count)], input: letters(60))
    case .memory: return try made(word(pick(1...0xFFFF)) + word(pick(60...120)))
    case .mmio: return try made(word(pick(1 << 24...1 << 31), 4) + word(pick(2...9)))
    case .interrupt:
      return try made([UInt8(pick(0x30...0xF0)), UInt8(pick(3...9)), letters(1)[0] & ~0x10, 0])
    case .window:
      let first = pick(0x30...0xF0)
      return try made([UInt8(first), UInt8(first ^ pick(1...15)), letters(1)[0], 0])
    }
  }

  /// The guest as it was assembled, with `values` at the place of its numbers.
  private func made(_ values: [UInt8], input: [UInt8] = []) throws(LabError) -> Trial {
    let all = try labGuest("build").image
    // The table in front has no row for the guest that is one instruction.
    let row = 4 * ((Self.allCases.firstIndex(of: self) ?? 0) - 1)
    func offset(_ at: Int) -> Int { at + 1 < all.count ? Int(all[at]) | Int(all[at + 1]) << 8 : 0 }
    guard row >= 0, case let (start, end) = (offset(row), offset(row + 2)), start < end,
      end <= all.count, Self.numbers + values.count <= end - start
    else { throw .unexpected("the lab's guest 'build' has no part '\(rawValue)'") }
    var image = Array(all[start..<end])
    image.replaceSubrange(Self.numbers..<Self.numbers + values.count, with: values)
    return Trial(image: image, input: input)
  }
}
