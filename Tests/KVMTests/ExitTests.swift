import Host
import KVM
import Memory
import TestSupport
import Testing

@Suite("An exit", .needsKVM, .limited)
struct ExitTests {
  // Writes and reads port 0x1234 in each width.
  private static let portWidths: [UInt8] = [
    0x66, 0xB8, 0x21, 0x43, 0x65, 0x87,  // 00: mov eax,0x87654321
    0xBA, 0x34, 0x12,  //                   06: mov dx,0x1234
    0xEE,  //                               09: out dx,al
    0xEF,  //                               0a: out dx,ax
    0x66, 0xEF,  //                         0b: out dx,eax
    0xE6, 0x42,  //                         0d: out 0x42,al
    0xEC,  //                               0f: in al,dx
    0xED,  //                               10: in ax,dx
    0x66, 0xED,  //                         11: in eax,dx
    0xF4,  //                               13: hlt
  ]

  @Test("of OUT has the port, the width and the data; one of IN takes the answer")
  func portIO() throws {
    let bench = try Bench(Self.portWidths)
    let written: [(port: UInt16, width: Int, value: UInt64)] = [
      (0x1234, 1, 0x21), (0x1234, 2, 0x4321), (0x1234, 4, 0x8765_4321), (0x42, 1, 0x21),
    ]
    for (port, width, value) in written {
      let io = try bench.runToPortIO()
      #expect(io.isWrite && io.port == port && io.width == width && io.count == 1)
      #expect(bench.vcpu.value(of: io, 0) == value)
    }
    // A read narrower than EAX leaves its upper bytes alone.
    let answers: [(width: Int, answer: UInt64, rax: UInt64)] = [
      (1, 0xFFFF_FF99, 0x8765_4399), (2, 0xABCD, 0x8765_ABCD), (4, 0x1020_3040, 0x1020_3040),
    ]
    for (width, answer, rax) in answers {
      let io = try bench.runToPortIO()
      #expect(!io.isWrite && io.port == 0x1234 && io.width == width && io.count == 1)
      bench.vcpu.setValue(answer, of: io, 0)
      bench.vcpu.requestExit()
      // KVM finishes the IN and then leaves, without running on.
      guard case .interrupted = try bench.vcpu.run() else {
        Issue.record("requestExit() didn't end the run")
        return
      }
      bench.vcpu.clearExitRequest()
      #expect(try bench.vcpu.registers().rax & 0xFFFF_FFFF == rax)
    }
    try bench.runToHalt()
  }

  @Test("of REP OUTSB has all the bytes, in as many exits as KVM likes")
  func repeatedOutput() throws {
    let bench = try Bench([
      0xBE, 0x00, 0x20,  // 00: mov si,0x2000
      0xB9, 0x05, 0x00,  // 03: mov cx,0x5
      0xBA, 0x34, 0x12,  // 06: mov dx,0x1234
      0xFC,  //             09: cld
      0xF3, 0x6E,  //       0a: rep outs dx,BYTE PTR ds:[si]
      0xF4,  //             0c: hlt
    ])
    try bench.memory.write(Array("Hello".utf8).span, at: 0x2000)
    var bytes: [UInt8] = []
    while bytes.count < 5 {
      let io = try bench.runToPortIO()
      #expect(io.isWrite && io.port == 0x1234 && io.width == 1)
      var whole: [UInt8] = []
      bench.vcpu.withBytes(of: io) { span in whole = span.indices.map { span[$0] } }
      #expect(whole == (0..<io.count).map { UInt8(bench.vcpu.value(of: io, $0)) })
      bytes += whole
    }
    #expect(String(decoding: bytes, as: UTF8.self) == "Hello")
    try bench.runToHalt()
    let registers = try bench.vcpu.registers()
    #expect(registers.rsi == 0x2005)
    #expect(registers.rcx == 0)
  }

  @Test("of REP INSW backwards puts each answer where it belongs")
  func repeatedInput() throws {
    let bench = try Bench([
      0xBF, 0x06, 0x20,  // 00: mov di,0x2006
      0xB9, 0x04, 0x00,  // 03: mov cx,0x4
      0xBA, 0x34, 0x12,  // 06: mov dx,0x1234
      0xFD,  //             09: std
      0xF3, 0x6D,  //       0a: rep ins WORD PTR es:[di],dx
      0xF4,  //             0c: hlt
    ])
    var asked = 0
    while asked < 4 {
      let io = try bench.runToPortIO()
      #expect(!io.isWrite && io.port == 0x1234 && io.width == 2)
      // With the direction flag up KVM may take fewer at a time than with it down.
      for index in 0..<io.count {
        bench.vcpu.setValue(0x1100 * UInt64(asked + 1), of: io, index)
        asked += 1
      }
    }
    #expect(asked == 4)
    try bench.runToHalt()
    let words: [UInt8] = [0x00, 0x44, 0x00, 0x33, 0x00, 0x22, 0x00, 0x11]
    #expect(try bench.memory.read(8, at: 0x2000) == words)
    #expect(try bench.vcpu.registers().rdi == 0x1FFE)
  }

  @Test("of a memory access without memory has address, width and data, and takes the answer")
  func mmio() throws {
    let bench = try Bench([
      0xB8, 0xFF, 0xFF,  //                    00: mov ax,0xffff
      0x8E, 0xD8,  //                          03: mov ds,ax
      0x66, 0xB8, 0x21, 0x43, 0x65, 0x87,  //  05: mov eax,0x87654321
      0xA2, 0x10, 0x00,  //                    0b: mov ds:0x10,al
      0xA3, 0x12, 0x00,  //                    0e: mov ds:0x12,ax
      0x66, 0xA3, 0x14, 0x00,  //              11: mov ds:0x14,eax
      0x8A, 0x1E, 0x18, 0x00,  //              15: mov bl,BYTE PTR ds:0x18
      0x8B, 0x0E, 0x1A, 0x00,  //              19: mov cx,WORD PTR ds:0x1a
      0x66, 0x8B, 0x16, 0x1C, 0x00,  //        1d: mov edx,DWORD PTR ds:0x1c
      0xF4,  //                                22: hlt
    ])
    let written: [(address: UInt64, width: Int, value: UInt64)] = [
      (0x10_0000, 1, 0x21), (0x10_0002, 2, 0x4321), (0x10_0004, 4, 0x8765_4321),
    ]
    for (address, width, value) in written {
      let access = try bench.runToMMIO()
      #expect(access.isWrite && access.address == address && access.width == width)
      #expect(access.data == value)
    }
    let answers: [(address: UInt64, width: Int, value: UInt64)] = [
      (0x10_0008, 1, 0x5A), (0x10_000A, 2, 0xBEEF), (0x10_000C, 4, 0xCAFE_F00D),
    ]
    for (address, width, value) in answers {
      let access = try bench.runToMMIO()
      #expect(!access.isWrite && access.address == address && access.width == width)
      bench.vcpu.setMMIOData(value)
    }
    try bench.runToHalt()
    let registers = try bench.vcpu.registers()
    #expect(registers.rbx == 0x5A && registers.rcx == 0xBEEF && registers.rdx == 0xCAFE_F00D)
  }

  @Test("of a triple fault is a shutdown")
  func tripleFault() throws {
    let bench = try Bench(
      [0xA0, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00],  // mov al,ds:0x40000000
      ramSize: 8 << 20)
    // The address isn't mapped, and without an IDT neither #PF nor #DF can be delivered.
    try bench.enterLongMode()
    let exit = try bench.run()
    guard case .shutdown = exit else {
      throw UnexpectedExit(exit: exit, wanted: "SHUTDOWN", #_sourceLocation)
    }
    #expect(exit.reason.name == "KVM_EXIT_SHUTDOWN")
    #expect(exit.reason.meaning == "a triple fault")
  }

  @Test("leaves RIP in the shared page where that was asked for")
  func synchronizedRegisters() throws {
    let bench = try Bench(Self.portWidths)
    bench.vcpu.setSynchronizesRegisters(true)
    _ = try bench.runToPortIO()
    let first = bench.vcpu.instructionPointer
    #expect(first == (try bench.vcpu.registers().rip))
    _ = try bench.runToPortIO()
    #expect(bench.vcpu.instructionPointer > first)
    #expect(bench.vcpu.instructionPointer == (try bench.vcpu.registers().rip))
  }

  @Test("has a name and a meaning, known or not")
  func names() {
    #expect(ExitReason(2).name == "KVM_EXIT_IO")
    #expect(ExitReason(17).name == "KVM_EXIT_INTERNAL_ERROR")
    #expect(ExitReason(12345).name == "exit reason 12345")
    #expect(!ExitReason(12345).meaning.isEmpty)
  }
}

@Suite("A VCPU that runs", .needsKVM, .limited)
struct KickTests {
  @Test("is not entered while an exit is asked for")
  func immediateExit() throws {
    let bench = try Bench([0xF4])  // hlt
    bench.vcpu.requestExit()
    for _ in 0..<2 {
      guard case .interrupted = try bench.vcpu.run() else {
        Issue.record("the guest ran")
        return
      }
    }
    #expect(try bench.vcpu.registers().rip == Bench.code)
    bench.vcpu.clearExitRequest()
    try bench.runToHalt()
  }

  @Test("is kicked out of a loop without exits by another thread")
  func kick() throws {
    Signal.kick.installInterruptingHandler()
    let bench = try Bench([
      0xE6, 0x80,  // 00: out 0x80,al
      0xEB, 0xFE,  // 02: jmp 0x2
    ])
    _ = try bench.runToPortIO()
    let monitor = Monitor()
    let log = KickLog()
    let vcpu = bench.vcpu
    let thread = try HostThread.start(name: "kicked") {
      // The test's own thread is one of libdispatch's, which block all signals.
      Signal.unblock([.kick])
      monitor.locked {
        log.isStarted = true
        monitor.wakeAll()
      }
      var isInterrupted = false
      if case .interrupted? = try? vcpu.run() { isInterrupted = true }
      monitor.locked {
        log.isInterrupted = isInterrupted
        monitor.wakeAll()
      }
    }
    let deadline = Deadline(seconds: 30).nanoseconds
    let hasEnded = monitor.locked {
      while !log.isStarted { monitor.wait() }
      vcpu.requestExit()
      thread.send(.kick)
      while log.isInterrupted == nil {
        if !monitor.wait(until: deadline) { return false }
      }
      return true
    }
    try #require(hasEnded, "the kick was lost")
    thread.join()
    #expect(log.isInterrupted == true)
  }

  private final class KickLog: @unchecked Sendable {
    var isStarted = false
    var isInterrupted: Bool?
  }
}
