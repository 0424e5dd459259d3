import CKVM
import KVM
import Memory
import TestSupport
import Testing

@Suite("A VCPU's state", .needsKVM, .limited)
struct VCPUStateTests {
  @Test("keeps every general register")
  func registers() throws {
    let bench = try Bench()
    var set = Registers()
    (set.rax, set.rbx, set.rcx, set.rdx) = (1, 2, 3, 4)
    (set.rsi, set.rdi, set.rsp, set.rbp) = (5, 6, 7, 8)
    (set.r8, set.r9, set.r10, set.r11) = (9, 10, 11, 12)
    (set.r12, set.r13, set.r14, set.r15) = (13, 14, 15, UInt64.max)
    (set.rip, set.rflags) = (0x1234_5678, 0x202)
    try bench.vcpu.setRegisters(set)
    let got = try bench.vcpu.registers()
    #expect(String(reflecting: got) == String(reflecting: set))
  }

  @Test("starts in real mode at the reset vector, and keeps segments and control registers")
  func specialRegisters() throws {
    let vcpu = try System().makeVM().makeVCPU(id: 0)
    var special = try vcpu.specialRegisters()
    #expect(special.cs.base == 0xFFFF_0000 && special.cs.selector == 0xF000)
    #expect(special.cr0 & 1 == 0)
    special.cs.base = 0x5000
    special.cs.selector = 0x500
    special.cr3 = 0x9000
    special.gdt.base = 0x1234
    special.gdt.limit = 0x17
    try vcpu.setSpecialRegisters(special)
    let got = try vcpu.specialRegisters()
    #expect(got.cs.base == 0x5000 && got.cs.selector == 0x500)
    #expect(got.cr3 == 0x9000)
    #expect(got.gdt.base == 0x1234 && got.gdt.limit == 0x17)
  }

  @Test("refuses what no processor can be in, with the name of the request")
  func impossible() throws {
    let bench = try Bench()
    var special = try bench.vcpu.specialRegisters()
    // Long mode active without paging (Intel SDM vol 3, 2.2.1).
    special.efer |= 1 << 10
    special.cr4 |= 1 << 63
    let error = #expect(throws: KVMError.self) { try bench.vcpu.setSpecialRegisters(special) }
    #expect(error?.description == "KVM_SET_SREGS: Invalid argument (EINVAL)")
  }

  @Test("has as many machine-check banks as it is given")
  func machineChecks() throws {
    let bench = try Bench()
    try bench.vcpu.setUpMachineChecks(banks: 10)
    // IA32_MCG_CAP: the banks' number and MCG_CTL_P; bank 9's and bank 10's control.
    #expect(try bench.vcpu.msrs([0x179]).first?.data == 0x10A)
    #expect(try bench.vcpu.msrs([0x400 + 9 * 4]).first?.data == .max)
    let error = #expect(throws: KVMError.self) { try bench.vcpu.setUpMachineChecks(banks: 255) }
    #expect(error?.description == "KVM_X86_SETUP_MCE: Invalid argument (EINVAL)")
  }

  @Test("keeps MSRs, and says where KVM stops")
  func msrs() throws {
    let bench = try Bench()
    let (systemEnterCS, systemEnterESP, none): (UInt32, UInt32, UInt32) = (0x174, 0x175, 0xDEAD)
    let set = try bench.vcpu.setMSRs([
      kvm_msr_entry(index: systemEnterCS, reserved: 0, data: 0x18),
      kvm_msr_entry(index: systemEnterESP, reserved: 0, data: 0x7000),
    ])
    #expect(set == 2)
    let got = try bench.vcpu.msrs([systemEnterCS, systemEnterESP])
    #expect(got.map(\.data) == [0x18, 0x7000])
    let partly = try bench.vcpu.msrs([systemEnterCS, none, systemEnterESP])
    #expect(partly.map(\.index) == [systemEnterCS])
    #expect(
      try bench.vcpu.setMSRs([
        kvm_msr_entry(index: none, reserved: 0, data: 1),
        kvm_msr_entry(index: systemEnterCS, reserved: 0, data: 0x28),
      ]) == 0)
    #expect(try bench.vcpu.msrs([systemEnterCS]).map(\.data) == [0x18])
  }

  @Test("has CPUID answer the guest as it was told")
  func cpuid() throws {
    let bench = try Bench([
      0x66, 0xB8, 0x00, 0x00, 0x00, 0x40,  // 00: mov eax,0x40000000
      0x0F, 0xA2,  //                         06: cpuid
      0xF4,  //                               08: hlt
    ])
    var cpuid = try System().supportedCPUID()
    cpuid.update(leaf: 0x4000_0000) { ($0.eax, $0.ebx, $0.ecx, $0.edx) = (1, 2, 3, 4) }
    try bench.vcpu.setCPUID(cpuid)
    try bench.runToHalt()
    let registers = try bench.vcpu.registers()
    #expect([registers.rax, registers.rbx, registers.rcx, registers.rdx] == [1, 2, 3, 4])
  }

  @Test("keeps the FPU and SSE as XSAVE has them")
  func fpu() throws {
    let bench = try Bench()
    let size = try System().value(of: .xsave2)
    var area = try bench.vcpu.xsave(size: size)
    #expect(area.count >= 4096)
    // Intel SDM vol 1, 13.4: FCW is at 0, XMM3 at 208, XSTATE_BV at 512 (bits 0: x87, 1: SSE).
    let (control, register, present) = (0, 208, 512)
    (area[control], area[control + 1]) = (0x3F, 0x03)
    area[register] = 0x5A
    area[present] |= 3
    try bench.vcpu.setXSAVE(area)
    area = try bench.vcpu.xsave(size: size)
    #expect(area[control] == 0x3F && area[control + 1] == 0x03 && area[register] == 0x5A)
    #expect(throws: KVMError.self) { try bench.vcpu.setXSAVE([0]) }
  }

  @Test("keeps XCR0", .needsXSAVE)
  func extendedControlRegisters() throws {
    let bench = try Bench()
    var registers = try bench.vcpu.extendedControlRegisters()
    #expect(registers.nr_xcrs == 1)
    #expect(registers.xcrs.0.value == 1)
    registers.xcrs.0.value = 3
    try bench.vcpu.setExtendedControlRegisters(registers)
    #expect(try bench.vcpu.extendedControlRegisters().xcrs.0.value == 3)
  }

  @Test("keeps the debug registers")
  func debugRegisters() throws {
    let bench = try Bench()
    var registers = try bench.vcpu.debugRegisters()
    (registers.db.0, registers.db.3, registers.dr7) = (0x1111, 0x3333, 0x401)
    try bench.vcpu.setDebugRegisters(registers)
    let got = try bench.vcpu.debugRegisters()
    #expect(got.db.0 == 0x1111 && got.db.3 == 0x3333 && got.dr7 == 0x401)
  }

  @Test("steps one instruction at a time where that was asked for")
  func singleStep() throws {
    let bench = try Bench([
      0x90,  // 00: nop
      0x90,  // 01: nop
      0xF4,  // 02: hlt
    ])
    var debug = kvm_guest_debug()
    debug.control = UInt32(KVM_GUESTDBG_ENABLE) | UInt32(KVM_GUESTDBG_SINGLESTEP)
    try bench.vcpu.setGuestDebug(debug)
    // A processor stops behind each instruction; Bochs 2.7 also before the first.
    for stop in UInt64(HostKVM.isBochs ? 0 : 1)...2 {
      let exit = try bench.run()
      guard case .debug = exit else {
        throw UnexpectedExit(exit: exit, wanted: "DEBUG", #_sourceLocation)
      }
      let rip = try bench.vcpu.registers().rip
      #expect(rip == Bench.code + stop)
    }
    try bench.vcpu.setGuestDebug(kvm_guest_debug())
    try bench.runToHalt()
  }

  @Test("has events under way, which can be set")
  func events() throws {
    let bench = try Bench()
    var events = try bench.vcpu.events()
    #expect(events.nmi.masked == 0 && events.exception.injected == 0)
    events.nmi.masked = 1
    try bench.vcpu.setEvents(events)
    #expect(try bench.vcpu.events().nmi.masked == 1)
  }

  @Test("translates a linear address by the guest's own tables")
  func translate() throws {
    let bench = try Bench(ramSize: 8 << 20)
    #expect(try bench.vcpu.translate(0x12345).physical_address == 0x12345)
    try bench.enterLongMode()
    let mapped = try bench.vcpu.translate(0x61_2345)
    #expect(mapped.valid == 1 && mapped.physical_address == 0x21_2345)
    #expect(try bench.vcpu.translate(0x41_2345).valid == 0)
  }

  @Test("knows what the VCPU waits for")
  func runState() throws {
    let bench = try Bench(hasIRQChip: true)
    let second = try bench.vm.makeVCPU(id: 1)
    #expect(try bench.vcpu.runState() == .runnable)
    #expect(try second.runState() == .uninitialized)
    try bench.vcpu.setRunState(.halted)
    #expect(try bench.vcpu.runState() == .halted)
    try second.setRunState(.initReceived)
    #expect(try second.runState() == .initReceived)
  }
}
