/// An instruction of a kernel that is to be translated, as far as translation must know it.
struct GuestInstruction: Equatable {
  /// What becomes of it.
  enum Kind: Equatable {
    /// The same bytes do the same in ring 3.
    case same
    case cli, sti, pushFlags, popFlags
    /// MOV to a general register, by its number.
    case moveFromCS(UInt8)
    case moveFromCR3(UInt8)
    case moveToCR3(UInt8)
    /// SMSW to a general register.
    case storeMachineStatus(UInt8)
    /// SIDT to memory; an LEA of where to RAX.
    case storeIDT(address: [UInt8])
    case readMSR
    /// Port I/O of a byte with the port in the instruction.
    case out(UInt8)
    case `in`(UInt8)
    case halt
    case jump(to: UInt64)
    /// By its condition code.
    case branch(UInt8, to: UInt64)
    case call(to: UInt64)
    case ret
    case interruptReturn
  }

  let address: UInt64
  let bytes: [UInt8]
  let kind: Kind

  var next: UInt64 { address &+ UInt64(bytes.count) }

  /// An instruction that the translator doesn't know: it refuses, for a guess would be wrong silently.
  struct Unknown: Error, Equatable, CustomStringConvertible {
    let address: UInt64
    let bytes: [UInt8]
    var description: String {
      let text = bytes.prefix(6).map { hex(UInt64($0), 2).dropFirst(2) }.joined(separator: " ")
      return "no translation of \(text) at \(hex(address))"
    }
  }

  /// Reads the instruction that `code` begins with, which is at `address`: 64-bit mode, with REX as the
  /// only prefix. Intel SDM vol 2, "Instruction Format", and the opcode maps.
  init(_ code: [UInt8], at address: UInt64) throws(Unknown) {
    var reader = Reader(code: code)
    guard let kind = reader.kind(at: address), reader.offset <= code.count else {
      throw Unknown(address: address, bytes: code)
    }
    (self.address, self.kind) = (address, kind)
    bytes = Array(code.prefix(reader.offset))
  }
}

/// Goes through the bytes of one instruction.
private struct Reader {
  let code: [UInt8]
  var offset = 0
  private var rex: UInt8 = 0

  init(code: [UInt8]) { self.code = code }

  /// The next byte; 0 behind the end, which `offset` then shows.
  private mutating func byte() -> UInt8 {
    offset += 1
    return offset <= code.count ? code[offset - 1] : 0
  }

  private mutating func signed(_ count: Int) -> UInt64 {
    let value = (0..<count).reduce(UInt64(0)) { $0 | UInt64(byte()) << UInt64($1 * 8) }
    let shift = UInt64(64 - count * 8)
    return UInt64(bitPattern: Int64(bitPattern: value << shift) >> Int64(shift))
  }

  /// A ModRM byte with what belongs to it; nil for an address relative to RIP, which would be another
  /// one in the translation.
  private mutating func modRM() -> (mode: UInt8, register: UInt8, memory: UInt8)? {
    let byte = byte()
    let (mode, register, memory) = (byte >> 6, byte >> 3 & 7, byte & 7)
    if mode == 0 && memory == 5 { return nil }
    if mode != 3 && memory == 4 {
      let sib = self.byte()
      if mode == 0 && sib & 7 == 5 { offset += 4 }
    }
    offset += mode == 1 ? 1 : mode == 2 ? 4 : 0
    return (mode, register, memory)
  }

  /// `same` after a ModRM byte and `immediate` bytes.
  private mutating func operands(_ immediate: Int = 0) -> GuestInstruction.Kind? {
    guard modRM() != nil else { return nil }
    offset += immediate
    return .same
  }

  private var wide: Bool { rex & 8 != 0 }

  mutating func kind(at address: UInt64) -> GuestInstruction.Kind? {
    var opcode = byte()
    if opcode & 0xF0 == 0x40 {
      rex = opcode
      opcode = byte()
    }
    if let kind = special(opcode, address) { return kind }
    switch opcode {
    case 0x0F: return second(address)
    case 0x00..<0x40 where opcode & 7 < 4: return operands()
    case 0x00..<0x40 where opcode & 7 < 6:
      offset += opcode & 1 == 0 ? 1 : 4
      return .same
    case 0x50...0x5F, 0x90: return .same
    case 0x80, 0x83, 0xC0, 0xC1, 0xC6: return operands(1)
    case 0x81, 0xC7: return operands(4)
    case 0x84...0x8B, 0xD0, 0xD1, 0xD2, 0xD3: return operands()
    case 0x8D: return operands()
    case 0xA8: offset += 1
    case 0xA9: offset += 4
    case 0xB0...0xB7: offset += 1
    case 0xB8...0xBF: offset += wide ? 8 : 4
    case 0xFE, 0xFF:
      // INC and DEC alone: the others of this group jump.
      guard let operand = modRM(), operand.register < 2 else { return nil }
    default: return nil
    }
    return .same
  }

  /// What must be translated or ends a unit.
  private mutating func special(
    _ opcode: UInt8, _ address: UInt64
  ) -> GuestInstruction.Kind? {
    switch opcode {
    case 0xFA: return .cli
    case 0xFB: return .sti
    case 0x9C: return .pushFlags
    case 0x9D: return .popFlags
    case 0xF4: return .halt
    case 0xC3: return .ret
    case 0xCF: return wide ? .interruptReturn : nil
    case 0xE6: return .out(byte())
    case 0xE4: return .in(byte())
    case 0x8C:
      guard let operand = modRM(), operand.mode == 3, operand.register == 1 else { return nil }
      return .moveFromCS(operand.memory | (rex & 1) << 3)
    case 0x70...0x7F:
      let distance = signed(1)
      return .branch(opcode & 15, to: address &+ UInt64(offset) &+ distance)
    case 0xEB, 0xE9, 0xE8:
      let distance = signed(opcode == 0xEB ? 1 : 4)
      let target = address &+ UInt64(offset) &+ distance
      return opcode == 0xE8 ? .call(to: target) : .jump(to: target)
    default: return nil
    }
  }

  /// After 0F.
  private mutating func second(_ address: UInt64) -> GuestInstruction.Kind? {
    let opcode = byte()
    switch opcode {
    case 0x01: return system()
    case 0x32: return .readMSR
    case 0x80...0x8F:
      let distance = signed(4)
      return .branch(opcode & 15, to: address &+ UInt64(offset) &+ distance)
    case 0x20, 0x22:
      let operand = byte()
      guard operand >> 3 == 0o33 else { return nil }
      let register = operand & 7 | (rex & 1) << 3
      return opcode == 0x20 ? .moveFromCR3(register) : .moveToCR3(register)
    case 0xAF, 0xB6, 0xB7: return operands()
    default: return nil
    }
  }
  /// After 0F 01: SIDT and SMSW, of a group that has LGDT, too.
  private mutating func system() -> GuestInstruction.Kind? {
    let start = offset
    guard let operand = modRM(), offset <= code.count else { return nil }
    switch (operand.register, operand.mode == 3) {
    case (4, true): return .storeMachineStatus(operand.memory | (rex & 1) << 3)
    case (1, false):
      // 48 8d  lea rax,[operand]
      var address = [0x48 | rex & 3, 0x8D] + code[start..<offset]
      address[2] &= 0o307
      return .storeIDT(address: address)
    default: return nil
    }
  }
}
