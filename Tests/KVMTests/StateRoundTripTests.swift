import CKVM
import KVM
import TestSupport
import Testing

@Suite("State as bytes", .needsKVM, .limited)
struct StateRoundTripTests {
  /// A VM with all controllers, and one VCPU of each kind: the first, and one that waits for INIT.
  private struct Rig {
    let vm: VM
    let vcpu: VCPU
    let second: VCPU

    init() throws {
      let bench = try Bench(hasIRQChip: true, prepare: { try $0.makePIT() })
      (vm, vcpu) = (bench.vm, bench.vcpu)
      second = try vm.makeVCPU(id: 1)
      try vcpu.setUpMachineChecks(banks: 10)
      // Bit 8 of the spurious vector register lets the local APIC keep its other registers.
      var apic = try vcpu.localAPIC()
      apic.setRegister(0xF0, 0x1FF)
      try vcpu.setLocalAPIC(apic)
    }
  }

  /// Gives a machine a state that `change` has made its own, takes it out as bytes, puts these into
  /// another machine, and looks there.
  private func move<Structure: StateStructure>(
    _ get: (Rig) throws -> Structure, _ set: (Rig, Structure) throws -> Void,
    _ location: SourceLocation = #_sourceLocation, change: (inout Structure) -> Void
  ) throws {
    let (old, new) = (try Rig(), try Rig())
    var changed = try get(old)
    change(&changed)
    try set(old, changed)
    let bytes = try get(old).stateBytes
    #expect(try get(new).stateBytes != bytes, "it is as new", sourceLocation: location)
    let structure = try #require(Structure(stateBytes: bytes), sourceLocation: location)
    try set(new, structure)
    #expect(try get(new).stateBytes == bytes, sourceLocation: location)
    #expect(Structure(stateBytes: bytes.dropLast()) == nil, sourceLocation: location)
    #expect(Structure(stateBytes: bytes + [0]) == nil, sourceLocation: location)
  }

  @Test("moves general, special and debug registers")
  func registers() throws {
    try move({ try $0.vcpu.registers() }, { try $0.vcpu.setRegisters($1) }) {
      ($0.rax, $0.rbx, $0.rcx, $0.rdx, $0.rsi, $0.rdi) = (1, 2, 3, 4, 5, 6)
      ($0.r8, $0.r15, $0.rip, $0.rflags) = (8, .max, 0x1_0000_1234, 0x246)
    }
    try move({ try $0.vcpu.specialRegisters() }, { try $0.vcpu.setSpecialRegisters($1) }) {
      ($0.cs.base, $0.cs.selector, $0.ds.base, $0.ds.selector) = (0x5000, 0x500, 0x6000, 0x600)
      ($0.gdt.base, $0.gdt.limit, $0.idt.base, $0.idt.limit) = (0x1234, 0x17, 0x5678, 0x7FF)
      ($0.cr2, $0.cr3, $0.cr8) = (0xABCD, 0x9000, 5)
      $0.tr.base = 0x7000
    }
    try move({ try $0.vcpu.debugRegisters() }, { try $0.vcpu.setDebugRegisters($1) }) {
      ($0.db.0, $0.db.1, $0.db.2, $0.db.3) = (0x1111, 0x2222, 0x3333, 0x4444)
      $0.dr7 = 0x401
    }
  }

  @Test("moves the FPU and all that XSAVE keeps")
  func xsave() throws {
    let size = try System().value(of: .xsave2)
    let (old, new) = (try Rig(), try Rig())
    var area = try old.vcpu.xsave(size: size)
    // Intel SDM vol 1, 13.4: FCW at 0, MXCSR at 24, XMM0 at 160, XSTATE_BV at 512.
    (area[0], area[1], area[24], area[25], area[160], area[415]) = (0x3F, 0x03, 0xA0, 0x1F, 7, 9)
    area[512] |= 3
    try old.vcpu.setXSAVE(area)
    area = try old.vcpu.xsave(size: size)
    #expect(try new.vcpu.xsave(size: size) != area)
    try new.vcpu.setXSAVE(area)
    #expect(try new.vcpu.xsave(size: size) == area)
    #expect(area[160] == 7 && area[415] == 9)
  }

  @Test("moves XCR0", .needsXSAVE)
  func extendedControl() throws {
    #expect(try System().value(of: .extendedControlRegisters) == 1)
    try move(
      { try $0.vcpu.extendedControlRegisters() }, { try $0.vcpu.setExtendedControlRegisters($1) }
    ) { $0.xcrs.0.value = 3 }
  }

  @Test("moves the local APIC")
  func localAPIC() throws {
    // Intel SDM vol 3, table 11-1: TPR, ICR, the LVT's entries, the timer's divider; ISR and IRR.
    try move({ try $0.vcpu.localAPIC() }, { try $0.vcpu.setLocalAPIC($1) }) {
      $0.setRegister(0x80, 0x20)
      $0.setRegister(0x310, 3 << 24)
      $0.setRegister(0x320, 0x2_0031)
      $0.setRegister(0x350, 0x700)
      $0.setRegister(0x360, 0x400)
      $0.setRegister(0x370, 0x1_0033)
      $0.setRegister(0x3E0, 0xB)
      $0.setRegister(0x120, 1 << 5)
      $0.setRegister(0x220, 1 << 7)
    }
  }

  @Test("moves what is under way, and what a VCPU waits for")
  func events() throws {
    try move({ try $0.vcpu.events() }, { try $0.vcpu.setEvents($1) }) {
      ($0.nmi.masked, $0.nmi.pending, $0.interrupt.shadow) = (1, 1, 1)
    }
    try move(
      { try $0.vcpu.multiprocessorState() }, { try $0.vcpu.setMultiprocessorState($1) }
    ) { $0.mp_state = RunState.halted.rawValue }
    try move(
      { try $0.second.multiprocessorState() }, { try $0.second.setMultiprocessorState($1) }
    ) { $0.mp_state = RunState.initReceived.rawValue }
  }

  @Test("moves MSRs, and leaves out those that can't be read")
  func msrs() throws {
    let (old, new) = (try Rig(), try Rig())
    // SYSENTER's three, PAT, STAR to FMASK, KERNEL_GS_BASE (Intel SDM vol 4, table 2-2).
    let own: [(index: UInt32, data: UInt64)] = [
      (0x174, 0x18), (0x175, 0x7000), (0x176, 0x1234), (0x277, 0x0007_0406_0007_0401),
      (0xC000_0081, 0x0023_0010_0000_0000), (0xC000_0082, 0x2345), (0xC000_0083, 0x3456),
      (0xC000_0084, 0x4700), (0xC000_0102, 0x5678),
    ]
    let entries = own.map { kvm_msr_entry(index: $0.index, reserved: 0, data: $0.data) }
    #expect(try old.vcpu.setMSRs(entries) == own.count)
    let none: UInt32 = 0x1234_5678
    let read = try old.vcpu.readableMSRs([none] + own.map(\.index) + [none, none])
    #expect(read.map(\.data) == own.map(\.data))
    #expect(try new.vcpu.setMSRs(read) == own.count)
    #expect(try new.vcpu.readableMSRs(own.map(\.index)).map(\.data) == own.map(\.data))
    // All of the list, each once and in its order.
    let list = try System().msrIndices()
    let all = try old.vcpu.readableMSRs(list).map(\.index)
    #expect(all == list.filter(Set(all).contains) && all.count > own.count)
  }

  @Test("moves the 8259s, the IOAPIC and the 8254")
  func controllers() throws {
    for chip in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE] {
      try move({ try $0.vm.irqChip(UInt32(chip)) }, { try $0.vm.setIRQChip($1) }) {
        unsafe $0.chip.pic.irq_base = 0x58
        unsafe $0.chip.pic.imr = 0xA5
        unsafe $0.chip.pic.isr = 0x10
        unsafe $0.chip.pic.last_irr = 0x40
        unsafe $0.chip.pic.init4 = 1
        unsafe $0.chip.pic.elcr = UInt8(chip == KVM_IRQCHIP_PIC_SLAVE ? 0x0C : 0)
      }
    }
    try move({ try $0.vm.irqChip(UInt32(KVM_IRQCHIP_IOAPIC)) }, { try $0.vm.setIRQChip($1) }) {
      // struct kvm_ioapic_state: 24 bytes, then the redirection entries, which Swift can't import.
      unsafe withUnsafeMutableBytes(of: &$0.chip) {
        for input in 0..<24 {
          unsafe $0.storeBytes(
            of: UInt64(input + 1) << 56 | 1 << 16 | UInt64(0x40 + input),
            toByteOffset: 24 + input * 8, as: UInt64.self)
        }
      }
    }
    let (old, new) = (try Rig(), try Rig())
    var timer = try old.vm.pit()
    for (channel, count) in [(0, 0x4A9), (2, 0x1234)] as [(Int, UInt32)] {
      unsafe withUnsafeMutableBytes(of: &timer.channels) {
        let size = MemoryLayout<kvm_pit_channel_state>.size
        unsafe $0.storeBytes(of: count, toByteOffset: channel * size, as: UInt32.self)
      }
    }
    (timer.channels.0.mode, timer.channels.2.mode, timer.channels.1.rw_mode) = (2, 3, 3)
    try old.vm.setPIT(timer)
    let moved = try #require(kvm_pit_state2(stateBytes: old.vm.pit().stateBytes))
    try new.vm.setPIT(moved)
    let got = try new.vm.pit()
    #expect(got.channels.0.count == 0x4A9 && got.channels.0.mode == 2)
    #expect(got.channels.2.count == 0x1234 && got.channels.2.mode == 3)
    #expect(got.channels.1.rw_mode == 3)
  }

  @Test("moves the clock, which goes on")
  func clock() throws {
    let (old, new) = (try Rig(), try Rig())
    var data = kvm_clock_data()
    data.clock = 1 << 50
    try old.vm.setClock(data)
    let moved = try old.vm.clock().clock
    #expect(moved >= 1 << 50)
    data.clock = moved
    try new.vm.setClock(data)
    #expect(try new.vm.clock().clock >= moved)
  }
}

extension kvm_lapic_state {
  fileprivate mutating func setRegister(_ offset: Int, _ value: UInt32) {
    unsafe withUnsafeMutableBytes(of: &regs) {
      unsafe $0.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
    }
  }
}
