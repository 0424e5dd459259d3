/// A kernel of as many rounds as R12 says, made of steps that `choose` picks: arithmetic, flags, the
/// interrupt flag, interrupts, devices, system registers, branches and calls. Fuzz/TranslationFuzz.swift
/// has it, too.
///
/// What it does is the same whoever runs it: flags that an instruction leaves undefined it doesn't look at.
struct RandomProgram {
  /// The image; the timer's handler is at its start.
  private(set) var bytes: [UInt8]
  /// Where it begins in the image.
  let entry: UInt64
  /// A number below that of its argument.
  private let choose: (Int) -> Int

  /// Whether an interrupt may be pending at an STI.
  private let letsInBySTI: Bool

  /// A program of `steps` steps. Without `letsInBySTI` interrupts come by OUT and POPF alone: QEMU's TCG isn't
  /// exact about when STI lets one in.
  init(steps: Int, letsInBySTI: Bool = true, _ choose: @escaping (Int) -> Int) {
    self.choose = choose
    self.letsInBySTI = letsInBySTI
    bytes = Self.handler
    entry = UInt64(bytes.count)
    for register: UInt8 in [0, 1, 2, 3, 6] { bytes += [0xB8 | register] + word() }
    bytes += [0x4D, 0x31, 0xC0, 0x4D, 0x31, 0xC9]  // xor r8,r8; xor r9,r9
    let start = bytes.count
    for _ in 0..<steps { addStep() }
    // dec r12; jnz start; hlt: from the second round on units are chained, and returns known
    bytes += [0x49, 0xFF, 0xCC, 0x0F, 0x85]
    let distance = UInt32(bitPattern: Int32(start - bytes.count - 4))
    bytes += (0..<4).map { UInt8(truncatingIfNeeded: distance >> UInt32($0 * 8)) } + [0xFA, 0xF4]
  }

  /// Adds up what RAX is, and the frame: RIP, CS, the flags that are defined, RSP and SS.
  private static let handler: [UInt8] =
    [0x4D, 0x8D, 0x04, 0x00, 0x50]  //                   lea r8,[r8+rax]; push rax
    + [0x08, 0x10, 0x20, 0x28].flatMap { (offset: UInt8) -> [UInt8] in
      [0x48, 0x8B, 0x44, 0x24, offset] + addRAX  //      mov rax,[rsp+offset]
    } + [0x48, 0x8B, 0x44, 0x24, 0x18] + addFlags + [0x58, 0x48, 0xCF]  // pop rax; iretq
  /// lea r9,[r9+rax]
  private static let addRAX: [UInt8] = [0x4D, 0x8D, 0x0C, 0x01]
  /// and eax,0xac5, without AF, which some leave undefined; add r9,rax
  private static let addFlags: [UInt8] = [0x25, 0xC5, 0x0A, 0, 0, 0x49, 0x01, 0xC1]

  private func word() -> [UInt8] { (0..<4).map { _ in UInt8(choose(256)) } }
  /// RAX, RCX, RDX, RBX or RSI.
  private func register() -> UInt8 { [0, 1, 2, 3, 6][choose(5)] }
  /// add, or, adc, sbb, and, sub, xor or cmp of two registers
  private func arithmetic() -> [UInt8] {
    [0x48, UInt8(choose(8)) << 3 | 1, 0xC0 | register() << 3 | register()]
  }
  /// sti; nop, where nothing may be pending later on
  private var ready: [UInt8] { letsInBySTI ? [] : [0xFB, 0x90] }
  /// cli or sti
  private func interruptFlag() -> UInt8 { choose(2) == 0 ? 0xFA : 0xFB }

  private mutating func addStep() {
    switch choose(18) {
    case 0: bytes += [0xB8 | register()] + word()
    case 1, 2: bytes += arithmetic()
    case 3: bytes += [0x48, 0xFF, 0xC0 | UInt8(choose(2)) << 3 | register()]  // inc or dec
    case 4:
      // lea
      bytes += [0x48, 0x8D, 0x40 | register() << 3 | register() & 3, UInt8(choose(128))]
    case 5: bytes.append(interruptFlag())
    case 6: bytes += [0x9C, 0x58] + Self.addFlags  // pushfq; pop rax
    case 7: bytes += [0x9C, interruptFlag()] + arithmetic() + [0x9D]  // popfq
    case 8: bytes += [0x8C, 0xCA, 0x49, 0x01, 0xD0]  // mov edx,cs; add r8,rdx
    case 9: bytes += [0x70 | UInt8(choose(16)), 3] + arithmetic()  // jcc over it
    case 10: bytes += ready + [0xE6, 0x97]  // out timer,al
    case 11:
      // the same in a critical section
      bytes += ready + [0x9C, 0xFA, 0xE6, 0x97] + arithmetic() + [0x9D]
    case 12 where letsInBySTI:
      bytes += [0xFA, 0xE6, 0x97, 0xFB, 0xF4]  // cli; out timer,al; sti; hlt
    case 13:
      // in al,queue or status; add r8,rax
      bytes += [0xE4, 0x95 + UInt8(choose(2)), 0x49, 0x01, 0xC0]
    case 14: bytes += system()
    case 15: bytes += [interruptFlag(), 0xEB, 0]  // jmp to the next
    default:
      // call 1f; jmp 2f; 1: inc rax; cli, sti or nop; ret; 2:
      bytes += [0xE8, 2, 0, 0, 0, 0xEB, 5, 0x48, 0xFF, 0xC0, [0xFA, 0xFB, 0x90][choose(3)], 0xC3]
      if choose(2) == 0 { bytes += [0xE6, 0xE9] }  // out console,al
    }
  }

  /// What looks at system registers.
  private func system() -> [UInt8] {
    switch choose(4) {
    case 0:
      // smsw eax; and eax,0xffff; add r8,rax
      [0x0F, 0x01, 0xE0, 0x25, 0xFF, 0xFF, 0, 0, 0x49, 0x01, 0xC0]
    case 1: [0x0F, 0x01, 0x4F, 0x20]  // sidt [rdi+32]
    case 2: [0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8]  // mov rax,cr3; mov cr3,rax
    default: [0xB9, 0x80, 0, 0, 0xC0, 0x0F, 0x32]  // mov ecx,0xc0000080; rdmsr
    }
  }
}
