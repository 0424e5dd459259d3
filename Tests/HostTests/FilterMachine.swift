import Host

/// The kernel's filter machine, for as much of it as filters use.
struct FilterMachine {
  /// As in `struct sock_filter`.
  private typealias Instruction = (code: UInt16, ifTrue: UInt8, ifFalse: UInt8, operand: UInt32)
  private let program: [Instruction]

  init(_ filter: SystemCallFilter) {
    program = filter.program.map { ($0.code, $0.ifTrue, $0.ifFalse, $0.operand) }
  }

  /// A program as another process writes it, eight bytes for each instruction.
  init(bytes: [UInt8]) {
    program = stride(from: 0, to: bytes.count - 7, by: 8).map { start in
      let word = { (first: Int, count: Int) in
        bytes[(start + first)..<(start + first + count)].reversed().reduce(UInt32(0)) {
          $0 << 8 | UInt32($1)
        }
      }
      return (UInt16(word(0, 2)), bytes[start + 2], bytes[start + 3], word(4, 4))
    }
  }

  /// What the program returns for a call; nil where it comes to no end.
  func run(
    _ number: Int, _ arguments: [UInt64], address: UInt64 = 0,
    architecture: UInt32 = 0xC000_003E  // AUDIT_ARCH_X86_64
  ) -> UInt32? {
    var data = [UInt32](repeating: 0, count: 16)
    data[0] = UInt32(truncatingIfNeeded: number)
    data[1] = architecture
    (data[2], data[3]) = (UInt32(truncatingIfNeeded: address), UInt32(address >> 32))
    for (index, argument) in arguments.enumerated() {
      data[4 + index * 2] = UInt32(truncatingIfNeeded: argument)
      data[5 + index * 2] = UInt32(argument >> 32)
    }
    var (next, accumulator) = (0, UInt32(0))
    while program.indices.contains(next) {
      let instruction = program[next]
      func jump(_ isTrue: Bool) { next += Int(isTrue ? instruction.ifTrue : instruction.ifFalse) }
      next += 1
      switch instruction.code {
      case 0x20: accumulator = data[Int(instruction.operand) / 4]
      case 0x54: accumulator &= instruction.operand
      case 0x05: next += Int(instruction.operand)
      case 0x15: jump(accumulator == instruction.operand)
      case 0x25: jump(accumulator > instruction.operand)
      case 0x35: jump(accumulator >= instruction.operand)
      case 0x45: jump(accumulator & instruction.operand != 0)
      case 0x06: return instruction.operand
      default: return nil
      }
    }
    return nil
  }
}
