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
      [0x0F, 0x01, 0x17],  //             lgdt [rdi]
      [0x0F, 0x01, 0x0D, 0, 0, 0, 0],  // sidt [rip]
      [0xCF],  //                         iretd
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

  private func unit(_ code: [UInt8]) throws -> Translator.Unit {
    try Translator(hashesReturns: true).unit(at: 0x1_0000, place: 0x40_0000) {
      address throws(GuestInstruction.Unknown) in
      try GuestInstruction(Array(code.dropFirst(Int(address - 0x1_0000))), at: address)
    }
  }

  /// Looks for interrupts and leaves every flag alone; its HLT is at 34.
  private let test: [UInt8] = [
    0x48, 0x89, 0x0C, 0x25, 0x18, 0, 0x20, 0,  // mov [0x200018],rcx
    0x8B, 0x0C, 0x25, 0x30, 0, 0x20, 0,  //       mov ecx,[0x200030]
    0xE3, 18,  //                                 jrcxz 1f
    0x8B, 0x0C, 0x25, 0, 0, 0x20, 0,  //          mov ecx,[0x200000]
    0xE3, 9,  //                                  jrcxz 1f
    0x48, 0x8B, 0x0C, 0x25, 0x18, 0, 0x20, 0,  // mov rcx,[0x200018]
    0xF4,  //                                     hlt
    0x48, 0x8B, 0x0C, 0x25, 0x18, 0, 0x20, 0,  // 1: mov rcx,[0x200018]
  ]

  @Test("lets interrupts in after the instruction behind STI, and after POPF")
  func interrupts() throws {
    // 10000: sti; 10001: nop; 10002: popfq; 10003: hlt
    let unit = try unit([0xFB, 0x90, 0x9D, 0xF4])
    #expect(unit.pieces[0].code.count == 11)
    #expect(unit.pieces[1].code == [0x90] + test)
    #expect(unit.pieces[2].code.suffix(test.count) == test[...])
    let windows = unit.callouts.filter { $0.callout != .instruction(unit.pieces[3].instruction) }
    #expect(windows.map(\.callout) == [.interrupt(before: 0x1_0002), .interrupt(before: 0x1_0003)])
    for window in windows { #expect(unit.code[Int(window.place - unit.place)] == 0xF4) }
  }

  @Test("doesn't chain what comes right after STI, for an interrupt may have to come after that")
  func shadow() throws {
    // 10000: sti; 10001: jmp 0x10010
    let unit = try unit([0xFB, 0xEB, 0x0D])
    #expect(unit.callouts.map(\.callout) == [.goOn(at: 0x1_0010, stays: true)])
    // sti; ret: no look-up either
    #expect(try self.unit([0xFB, 0xC3]).pieces[1].code == [0xF4])
    // An STI is never a unit's last.
    let long = try self.unit([UInt8](repeating: 0x90, count: 11) + [0xFB, 0x90])
    #expect(long.pieces.count == 11 && long.callouts.last?.callout == .goOn(at: 0x1_000B))
  }

  @Test("makes loads of SIDT, SMSW and MOV from CR3, and has room for one in place of IN")
  func loads() throws {
    // sidt [rsp+r9*8+32]; smsw r9d; mov r9,cr3; in al,0x96; rdmsr; iretq
    let unit = try unit([
      0x42, 0x0F, 0x01, 0x4C, 0xCC, 0x20, 0x41, 0x0F, 0x01, 0xE1, 0x41, 0x0F, 0x20, 0xD9, 0xE4,
      0x96,
      0x0F, 0x32, 0x48, 0xCF,
    ])
    #expect(
      unit.pieces[0].code == [
        0x48, 0x89, 0x04, 0x25, 0x10, 0, 0x20, 0,  // mov [0x200010],rax
        0x48, 0x89, 0x0C, 0x25, 0x18, 0, 0x20, 0,  // mov [0x200018],rcx
        0x4A, 0x8D, 0x44, 0xCC, 0x20,  //             lea rax,[rsp+r9*8+32]
        0x48, 0x8B, 0x0C, 0x25, 0x40, 0, 0x20, 0,  // mov rcx,[0x200040]
        0x48, 0x89, 0x08,  //                         mov [rax],rcx
        0x48, 0x8B, 0x0C, 0x25, 0x48, 0, 0x20, 0,  // mov rcx,[0x200048]
        0x66, 0x89, 0x48, 0x08,  //                   mov [rax+8],cx
        0x48, 0x8B, 0x0C, 0x25, 0x18, 0, 0x20, 0,  // mov rcx,[0x200018]
        0x48, 0x8B, 0x04, 0x25, 0x10, 0, 0x20, 0,  // mov rax,[0x200010]
      ])
    #expect(unit.pieces[1].code == [0x4C, 0x8B, 0x0C, 0x25, 0x38, 0, 0x20, 0])  // mov r9,[0x200038]
    #expect(unit.pieces[2].code == [0x4C, 0x8B, 0x0C, 0x25, 0x08, 0, 0x20, 0])  // mov r9,[0x200008]
    #expect(unit.pieces[3].code == [0xF4, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90])
    // mov al,[0x2034b0]
    #expect(Translator.loadInput(0x96) == [0x8A, 0x04, 0x25, 0xB0, 0x34, 0x20, 0])
    #expect(unit.pieces.map(\.way) == [.inline, .inline, .inline, .callout, .callout, .ending])
  }
}

@Suite("The experiment translation", .needsKVM, .limited)
struct TranslationTests {
  @Test("is right translated and para-virtual, and wrong by trap and emulate, in so many exits")
  func translation() throws {
    let report = try run("translation")
    func ways(_ kernel: String) -> [KernelRun.Way] {
      KernelRun.Way.allCases.filter { $0 != .adapted || kernel == "device" }
    }
    for kernel in ["loop", "calls", "irq", "device", "self"] {
      for way in ways(kernel) where way != .trapAndEmulate {
        #expect(try report.flag("right/\(kernel)/\(way.rawValue)"), "\(kernel) \(way)")
      }
      // What is wrong is another thing on each host.
      #expect(try !report.flag("right/\(kernel)/trap and emulate"))
    }
    func exits(_ kernel: String) throws -> [Int] {
      try ways(kernel).map { try report.number("exits/\(kernel)/\($0.rawValue)") }
    }
    #expect(try exits("loop") == [2, 103, 102, 5, 5, 2])
    #expect(try exits("calls") == [2, 103, 302, 106, 7, 2])
    // By trap and emulate it's wrong, and where it is wrong it may end elsewhere.
    let irq = try exits("irq")
    #expect([irq[0]] + irq[2...] == [103, 408, 310, 310, 306])
    #expect(try exits("device") == [301, 301, 501, 305, 305, 214, 301])
    #expect(try report.number("loads/device/\(KernelRun.Way.adapted.rawValue)") == 1)
    #expect(try exits("self") == [1, 1, 202, 202, 202, 1])
    #expect(try report.number("drops/self/translation") == 100)
    #expect(try report.number("drops/loop/translation") == 0)
  }

  @Test(
    "random programs do translated what they do in ring 0", arguments: Trials.cases(Array(0..<4)))
  func random(part: Int) throws {
    let isReal = HostTimes.read(wasAsked: false).meanSomething
    for seed in part * 15..<part * 15 + 15 {
      var random = RandomNumbers(seed: UInt64(seed))
      let program = RandomProgram(steps: 60, letsInBySTI: isReal) {
        Int(random.next() % UInt64($0))
      }
      func outcome(_ way: KernelRun.Way) throws -> KernelRun.Outcome {
        try KernelRun(
          program.bytes, entry: BenchLayout.image + program.entry, rounds: 10,
          handler: BenchLayout.image, way
        ).outcome
      }
      let truth = try outcome(.ring0)
      for way in KernelRun.Way.allCases where way.isTranslated {
        #expect(try outcome(way) == truth, "seed \(seed), \(way.rawValue)")
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
