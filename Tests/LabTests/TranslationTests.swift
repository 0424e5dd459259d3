import TestSupport
import Testing

@testable import Lab

@Suite("The translator", .limited)
struct TranslatorTests {
  private func instruction(_ code: [UInt8]) throws -> GuestInstruction {
    try GuestInstruction(code + [UInt8](repeating: 0x90, count: 15), at: 0x1_0000)
  }

  @Test(
    "knows how long instructions are",
    arguments: [
      ([0x90], 1),  //                                nop
      ([0x48, 0x89, 0xC3], 3),  //                    mov rbx,rax
      ([0x48, 0x8B, 0x44, 0x24, 0x10], 5),  //        mov rax,[rsp+16]
      ([0x8B, 0x04, 0x25, 0, 0, 0x20, 0], 7),  //     mov eax,[0x200000]
      ([0x81, 0xE2, 0, 2, 0, 0], 6),  //              and edx,0x200
      ([0x49, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8], 10),  // mov r8,0x807060504030201
      ([0xB8, 1, 2, 3, 4], 5),  //                    mov eax,0x4030201
      ([0x48, 0x8D, 0x83, 4, 0, 0, 0], 7),  //        lea rax,[rbx+4]
      ([0xC7, 0x03, 1, 0, 0, 0], 6),  //              mov dword ptr [rbx],1
      ([0x41, 0x0F, 0xB6, 0xC1], 4),  //              movzx eax,r9b
    ] as [([UInt8], Int)])
  func lengths(code: [UInt8], length: Int) throws {
    let instruction = try instruction(code)
    #expect(instruction.kind == .same && instruction.bytes.count == length)
  }

  @Test(
    "refuses what it doesn't know, with its address",
    arguments: [
      [0x48, 0x8B, 0x05, 0, 0, 0, 0],  // mov rax,[rip]
      [0x0F, 0x05],  //                   syscall
      [0xFF, 0xE0],  //                   jmp rax
      [0x66, 0x90],  //                   a prefix
      [0x8C, 0xD8],  //                   mov eax,ds
      [0xC8],
    ] as [[UInt8]])
  func refused(code: [UInt8]) {
    #expect {
      _ = try instruction(code)
    } throws: {
      "\($0)".contains("at 0x10000")
    }
  }

  @Test("is never led behind the end of the code")
  func short() {
    for length in 0..<3 {
      #expect(throws: GuestInstruction.Unknown.self) {
        try GuestInstruction([0x81, 0xE2, 0].prefix(length).map { $0 }, at: 0)
      }
    }
  }

  @Test("bears any bytes: it knows them, within their length, or refuses")
  func anyBytes() {
    var random = RandomNumbers(seed: 3)
    for _ in 0..<50_000 {
      let code = (0..<Int(random.next() % 16)).map { _ in UInt8(random.next() & 0xFF) }
      guard let known = try? GuestInstruction(code, at: UInt64.max - 4) else { continue }
      #expect(known.bytes == Array(code.prefix(known.bytes.count)) && !known.bytes.isEmpty)
    }
  }

  @Test("copies, replaces and ends as it should")
  func unit() throws {
    // 10000: cli; 10001: inc rax; 10004: out 0xe9,al; 10006: call 0x10010
    let code: [UInt8] = [0xFA, 0x48, 0xFF, 0xC0, 0xE6, 0xE9, 0xE8, 0x05, 0, 0, 0]
    let unit = try Translator(hashesReturns: false).unit(at: 0x1_0000, place: 0x40_0000) {
      address throws(GuestInstruction.Unknown) in
      try GuestInstruction(Array(code.dropFirst(Int(address - 0x1_0000))), at: address)
    }
    #expect(unit.pieces.map(\.way) == [.inline, .copied, .callout, .ending])
    #expect(
      unit.code == [
        0xC7, 0x04, 0x25, 0, 0, 0x20, 0, 0, 0, 0, 0,  // mov dword ptr [0x200000],0
        0x48, 0xFF, 0xC0,  //                           inc rax
        0xF4,  //                                       callout: out
        0x68, 0x0B, 0, 1, 0,  //                        push 0x1000b
        0xF4, 0x90, 0x90, 0x90, 0x90,  //               callout: go on at 0x10010
      ])
    #expect(unit.callouts.map(\.place) == [0x40_000E, 0x40_0014])
    #expect(unit.callouts[1].callout == .goOn(at: 0x1_0010))
    #expect(unit.end == 0x1_000B && unit.guestBytes == 11)
    #expect(Translator.jump(from: 0x40_0014, to: 0x40_0020) == [0xE9, 7, 0, 0, 0])
  }
}

@Suite("The experiment translation", .needsKVM, .limited)
struct TranslationTests {
  @Test("is right translated and para-virtual, and wrong by trap and emulate, in so many exits")
  func translation() throws {
    let report = try run("translation")
    for kernel in ["loop", "calls", "device", "self"] {
      for way in KernelRun.Way.allCases where way != .trapAndEmulate {
        #expect(try report.flag("right/\(kernel)/\(way.rawValue)"), "\(kernel) \(way)")
      }
      // What is wrong is another thing on each host.
      #expect(try !report.flag("right/\(kernel)/trap and emulate"))
    }
    func exits(_ kernel: String) throws -> [Int] {
      try KernelRun.Way.allCases.map { try report.number("exits/\(kernel)/\($0.rawValue)") }
    }
    #expect(try exits("loop") == [2, 103, 102, 5, 5, 2])
    #expect(try exits("calls") == [2, 103, 302, 106, 7, 2])
    #expect(try exits("device") == [601, 601, 1201, 606, 606, 601])
    #expect(try exits("self") == [1, 1, 202, 202, 202, 1])
    #expect(try report.number("drops/self/translation") == 100)
    #expect(try report.number("drops/loop/translation") == 0)
  }

  @Test(
    "random programs do translated what they do in ring 0", arguments: Trials.cases(Array(0..<4)))
  func random(part: Int) throws {
    for seed in 0..<15 {
      let program = RandomProgram(seed: UInt64(part * 15 + seed)).bytes
      func outcome(_ way: KernelRun.Way) throws -> KernelRun.Outcome {
        try KernelRun(program, entry: BenchLayout.image, rounds: 3, way).outcome
      }
      let truth = try outcome(.ring0)
      for way in KernelRun.Way.allCases where way.isTranslated {
        #expect(try outcome(way) == truth, "seed \(part * 15 + seed), \(way.rawValue)")
      }
    }
  }

  @Test("a program that it can't translate is refused, not guessed at")
  func refused() {
    // 10000: nop; 10001: syscall
    #expect {
      _ = try KernelRun([0x90, 0x0F, 0x05], entry: BenchLayout.image, rounds: 1, .hashed)
    } throws: {
      "\($0)".contains("at 0x10001")
    }
  }
}

/// A program of as many rounds as R12 says, of 60 steps each: arithmetic, flags, the interrupt flag, branches and calls.
private struct RandomProgram {
  private(set) var bytes: [UInt8] = []
  private var random: RandomNumbers

  init(seed: UInt64) {
    random = RandomNumbers(seed: seed)
    for register: UInt8 in [0, 1, 2, 3, 6] { bytes += [0xB8 | register] + word() }
    bytes += [0x4D, 0x31, 0xC0, 0x4D, 0x31, 0xC9]  // xor r8,r8; xor r9,r9
    let start = bytes.count
    for _ in 0..<60 { addStep() }
    // dec r12; jnz start; hlt: from the second round on units are chained, and returns known
    bytes += [0x49, 0xFF, 0xCC, 0x0F, 0x85]
    let distance = UInt32(bitPattern: Int32(start - bytes.count - 4))
    bytes += (0..<4).map { UInt8(truncatingIfNeeded: distance >> UInt32($0 * 8)) } + [0xF4]
  }

  private mutating func pick(_ count: UInt64) -> UInt64 { random.next() % count }
  private mutating func word() -> [UInt8] { (0..<4).map { _ in UInt8(pick(256)) } }
  /// RAX, RCX, RDX, RBX or RSI.
  private mutating func register() -> UInt8 { [0, 1, 2, 3, 6][Int(pick(5))] }
  /// add, or, adc, sbb, and, sub, xor or cmp of two registers
  private mutating func arithmetic() -> [UInt8] {
    [0x48, UInt8(pick(8)) << 3 | 1, 0xC0 | register() << 3 | register()]
  }

  private mutating func addStep() {
    switch pick(11) {
    case 0: bytes += [0xB8 | register()] + word()
    case 1, 2: bytes += arithmetic()
    case 3: bytes += [0x48, 0xFF, 0xC0 | UInt8(pick(2)) << 3 | register()]  // inc or dec
    case 4: bytes += [0x48, 0x8D, 0x40 | register() << 3 | register() & 3, UInt8(pick(128))]  // lea
    case 5: bytes.append(pick(2) == 0 ? 0xFA : 0xFB)
    case 6:
      // pushfq; pop rax; and eax,0xac5 (without AF, which some leave undefined); add r9,rax
      bytes += [0x9C, 0x58, 0x25, 0xC5, 0x0A, 0, 0, 0x49, 0x01, 0xC1]
    case 7: bytes += [0x9C, pick(2) == 0 ? 0xFA : 0xFB] + arithmetic() + [0x9D]  // popfq
    case 8: bytes += [0x8C, 0xCA, 0x49, 0x01, 0xD0]  // mov edx,cs; add r8,rdx
    case 9: bytes += [0x70 | UInt8(pick(16)), 3] + arithmetic()  // jcc over it
    default:
      // call 1f; jmp 2f; 1: inc rax; ret; 2:
      bytes += [0xE8, 2, 0, 0, 0, 0xEB, 4, 0x48, 0xFF, 0xC0, 0xC3]
      if pick(2) == 0 { bytes += [0xE6, 0xE9] }  // out 0xe9,al
    }
  }
}
