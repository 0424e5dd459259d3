import Boot
import Devices
import Guests
import Host
import Inspect
import Machine
import Memory
import Storage
import TestSupport
import Testing

@Suite("A run ends", .needsKVM, .limited)
struct EndTests {
  /// Runs `image`, and stops it from another thread once it has written `bytes` bytes.
  private func runAndStop(_ image: [UInt8], after bytes: Int, cpus: Int = 1) throws -> Outcome {
    let console = WaitingSink()
    var setup = Setup(image, mode: .real, console: console)
    setup.vcpuCount = cpus
    let machine = try setup.makeMachine()
    let control = machine.control
    let stopper = try HostThread.start(name: "stopper") {
      if console.wait(forBytes: bytes) { control.stop(.user) }
    }
    let outcome = machine.run()
    stopper.join()
    return outcome
  }

  // MARK: From outside

  @Test(
    "when another thread stops a guest that spins", .needsExitsByInterrupts, arguments: [1, 4])
  func stopSpinning(cpus: Int) throws {
    #expect(try runAndStop(TestGuest.spin, after: 1, cpus: cpus).kind == "stopped")
  }

  @Test("when another thread stops a guest that sleeps", arguments: [1, 4])
  func stopIdle(cpus: Int) throws {
    let outcome = try runAndStop(TestGuest.idle, after: 1, cpus: cpus)
    guard case .stopped(.user) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(outcome.exitStatus == 0)
  }

  @Test("when another thread stops a guest between two ticks")
  func stopTicking() throws {
    let ticker = TestGuest.ticker(divisor: 1193, count: .max)
    #expect(try runAndStop(ticker, after: 3).kind == "stopped")
  }

  @Test("when it is stopped before it starts")
  func stopEarly() throws {
    let machine = try Setup(TestGuest.spin, mode: .real).makeMachine()
    machine.control.stop(.signal(15))
    let outcome = machine.run()
    #expect(outcome.kind == "stopped")
    #expect(outcome.exitStatus == 128 + 15)
  }

  @Test("though a disk doesn't answer", arguments: ["disk-virtio", "disk-ide"])
  func stuckDisk(name: String) throws {
    let disk = StuckDisk()
    defer { disk.letGo() }
    let guest = try #require(Guest.named(name))
    var setup = Setup(guest.image, mode: guest.mode, console: ConsoleBuffer())
    setup.add(disk, bus: name == "disk-ide" ? .ide : .mmio)
    setup.type(Array("f\n".utf8))
    let machine = try setup.makeMachine()
    let control = machine.control
    let stopper = try HostThread.start(name: "stopper") {
      disk.waitForFlush()
      control.stop(.user)
    }

    let outcome = machine.run()
    stopper.join()

    #expect(outcome.kind == "stopped")
    #expect(machine.leavesThreads)
  }

  @Test("with the first of several reasons")
  func firstReason() throws {
    let machine = try Setup(TestGuest.spin, mode: .real).makeMachine()
    machine.control.stop(.user)
    machine.control.stop(.signal(2))
    #expect(machine.run().exitStatus == 0)
  }

  @Test("when its time is up, and says where each VCPU stood", .needsExitsByInterrupts)
  func timeLimit() throws {
    let run = try run(TestGuest.spin) {
      $0.timeLimit = 2
      $0.vcpuCount = 2
    }
    guard case .timedOut(let positions) = run.outcome else {
      Issue.record("\(run.outcome)")
      return
    }
    #expect(run.outcome.exitStatus == 124)
    #expect(positions.map(\.vcpu) == [0, 1])
    #expect(positions[0].text.hasPrefix("running at CS:RIP 0x1000:0x4,"), "\(positions[0].text)")
    #expect(positions[1].text == "never started: it waits for INIT and SIPI")
  }

  // MARK: By its own wish

  @Test("with what it writes to the exit port: no instruction follows")
  func exitPort() throws {
    let run = try run([
      0xB0, 0x05,  // 00: mov al,0x5
      0xE6, 0xF4,  // 02: out 0xf4,al
      0xB0, 0x21,  // 04: mov al,0x21
      0xE6, 0xE9,  // 06: out 0xe9,al
      0xEB, 0xFC,  // 08: jmp 0x6
    ])
    #expect(run.outcome.exitStatus == 11)
    #expect(run.outputText == "")
  }

  // MARK: By a halt

  @Test("not when a guest halts that an interrupt can wake")
  func idle() throws {
    let run = try run(TestGuest.idle) { $0.timeLimit = 2 }
    guard case .timedOut(let positions) = run.outcome else {
      Issue.record("taken for an end: \(run.outcome)")
      return
    }
    #expect(positions[0].text.hasPrefix("halted with interrupts on"), "\(positions[0].text)")
  }

  @Test("not in the long sleep between two ticks, but when interrupts go off while the timer runs")
  func halfAsleep() throws {
    let slow = try run(TestGuest.ticker(divisor: 65535, count: 8))
    #expect(slow.outputText == "........")
    #expect(slow.outcome.kind == "halted")
    let fast = try run(TestGuest.ticker(divisor: 1193, count: 5))
    #expect(fast.outputText == ".....")
    #expect(fast.outcome.kind == "halted")
  }

  @Test("when all VCPUs have halted for good, started or not", arguments: [1, 2, 4])
  func halt(cpus: Int) throws {
    let run = try run(TestGuest.halt) { $0.vcpuCount = cpus }
    #expect(run.outcome.kind == "halted")
    #expect(run.outcome.exitStatus == 0)
  }

  @Test("when four VCPUs that ran have halted for good")
  func haltOfAll() throws {
    var image: [UInt8] = [
      0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0x00, 0x45, 0x0C, 0x00,
      //                                         00: mov DWORD PTR ds:0xfee00300,0xc4500
      0xC7, 0x05, 0x00, 0x03, 0xE0, 0xFE, 0x11, 0x46, 0x0C, 0x00,
      //                                         0a: mov DWORD PTR ds:0xfee00300,0xc4611
      0x66, 0x83, 0x3D, 0x00, 0x80, 0x00, 0x00, 0x03,  // 14: cmp WORD PTR ds:0x8000,0x3
      0x72, 0xF6,  //                            1c: jb 0x14
      0xFA,  //                                  1e: cli
      0xF4,  //                                  1f: hlt
    ]
    // The others start at page 0x11 in real mode.
    image += Array(repeating: 0, count: 0x1000 - image.count)
    image += [
      0x31, 0xC0,  //                   00: xor ax,ax
      0x8E, 0xD8,  //                   02: mov ds,ax
      0xF0, 0xFF, 0x06, 0x00, 0x80,  // 04: lock inc WORD PTR ds:0x8000
      0xFA,  //                         09: cli
      0xF4,  //                         0a: hlt
    ]
    let run = try run(image, mode: .protected) { $0.vcpuCount = 4 }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x8000, UInt16.self) == 3)
  }

  // MARK: By the guest's wish

  @Test(
    "with the value of a write to the exit port, of any width",
    arguments: [
      (
        [
          0xB0, 0x21,  // 00: mov al,0x21
          0xE6, 0xF4,  // 02: out 0xf4,al
          0xF4,  //       04: hlt
        ], 0x21, 0x43
      ),
      (
        [
          0xB8, 0x34, 0x12,  // 00: mov ax,0x1234
          0xE7, 0xF4,  //       03: out 0xf4,ax
          0xF4,  //             05: hlt
        ], 0x1234, 0x69
      ),
      (
        [
          0x66, 0xB8, 0x78, 0x56, 0x34, 0x12,  // 00: mov eax,0x12345678
          0x66, 0xE7, 0xF4,  //                   06: out 0xf4,eax
          0xF4,  //                               09: hlt
        ], 0x1234_5678, 0xF1
      ),
    ] as [([UInt8], UInt32, Int32)])
  func exitPort(image: [UInt8], value: UInt32, status: Int32) throws {
    let outcome = try run(image).outcome
    guard case .exited(value) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(outcome.exitStatus == status)
  }

  @Test(
    "by a reset through each port that has one",
    arguments: [
      [
        0xB0, 0xFE,  // 00: mov al,0xfe
        0xE6, 0x64,  // 02: out 0x64,al
        0xEB, 0xFE,  // 04: jmp 0x4
      ],
      [
        0xBA, 0xF9, 0x0C,  // 00: mov dx,0xcf9
        0xB0, 0x02,  //       03: mov al,0x2
        0xEE,  //             05: out dx,al
        0xB0, 0x06,  //       06: mov al,0x6
        0xEE,  //             08: out dx,al
        0xEB, 0xFE,  //       09: jmp 0x9
      ],
      [
        0xB0, 0x01,  // 00: mov al,0x1
        0xE6, 0x92,  // 02: out 0x92,al
        0xEB, 0xFE,  // 04: jmp 0x4
      ],
    ] as [[UInt8]])
  func reset(image: [UInt8]) throws {
    let outcome = try run(image).outcome
    #expect(outcome.kind == "reset")
    #expect(outcome.exitStatus == 0)
  }

  // MARK: By a crash

  /// Runs `image`, which must crash, and returns the report.
  private func crash(_ image: [UInt8], mode: CPUMode) throws -> CrashReport {
    let outcome = try run(image, mode: mode).outcome
    #expect(outcome.exitStatus == 70)
    guard case .crashed(let report) = outcome else { throw Overdue("no crash: \(outcome)") }
    return report
  }

  @Test("by a triple fault, with the exits that led there")
  func tripleFault() throws {
    let report = try crash(
      [
        0xB0, 0x21,  //                                            00: mov al,0x21
        0xE6, 0x80,  //                                            02: out 0x80,al
        0x48, 0xB8, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00,
        //                                              04: movabs rax,0x1000000000
        0x8A, 0x00,  //                                            0e: mov al,BYTE PTR [rax]
      ], mode: .long)
    #expect(report.summary.contains("triple fault"))
    #expect(!report.explanation.isEmpty)
    // A heading, the OUT and the end.
    #expect(report.lastExits.count == 3)
    #expect(report.lastExits[1].contains("0x80") && report.lastExits[1].contains("0x21"))
    #expect(report.lastExits[2].contains("shutdown"))
  }

  @Test("by a jump to where no code is, with the place")
  func strayJump() throws {
    let report = try crash(
      [
        0xB8, 0x00, 0x00, 0x00, 0xD0,  // 00: mov eax,0xd0000000
        0xFF, 0xE0,  //                   05: jmp eax
      ], mode: .protected)
    #expect(report.summary.contains("could not emulate"), "\(report.summary)")
    #expect(report.codeAddress == 0xD000_0000)
    #expect(report.code == [])
    #expect(report.registers?.rax == 0xD000_0000)
    #expect(report.registersAreReset == false)
  }

  @Test(
    "by an instruction that KVM's emulator lacks, with its bytes",
    .enabled(
      if: HostKVM.isPVM || HostKVM.isRequired,
      "only kvm_pvm emulates ring 0; with kvm_intel and kvm_amd the processor runs LAR itself"))
  func emulationFailure() throws {
    let image: [UInt8] = [
      0x66, 0x0F, 0x02, 0xC3,  // 00: lar ax,bx
      0xFA,  //                   04: cli
      0xF4,  //                   05: hlt
    ]
    guard HostKVM.isPVM else {
      #expect(try run(image, mode: .protected).outcome.kind == "halted")
      return
    }
    let report = try crash(image, mode: .protected)
    #expect(report.summary.contains("could not emulate"))
    #expect(report.code.starts(with: image))
    #expect(report.code.count == 16)
    #expect(report.codeAddress == 0x10000)
    #expect(report.codeBits == 32)
  }
}

/// A disk whose flushes last until it is let go.
private final class StuckDisk: BlockStore {
  private enum Flush { case none, underWay, mayEnd }

  private let flushing = Guarded(Flush.none)
  let size: UInt64 = 1 << 16
  let isReadOnly = false

  func read(into segments: [MemoryView], at offset: UInt64) {}
  func write(from segments: [MemoryView], at offset: UInt64) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) {}
  func discard(at offset: UInt64, count: UInt64) {}

  func flush() {
    flushing.locked { if $0 == .none { $0 = .underWay } }
    flushing.wakeAll()
    flushing.waiting { $0 == .mayEnd ? () : nil }
  }

  func waitForFlush() {
    _ = flushing.waits(until: Deadline().nanoseconds) { $0 == .underWay }
  }

  func letGo() {
    flushing.locked { $0 = .mayEnd }
    flushing.wakeAll()
  }
}
