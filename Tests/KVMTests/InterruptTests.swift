import CKVM
import Host
import KVM
import Memory
import TestSupport
import Testing

@Suite("Interrupts", .needsKVM, .limited)
struct InterruptTests {
  // Waits for interrupts in a loop.
  private static let idle: [UInt8] = [
    0xFB,  //       00: sti
    0xF4,  //       01: hlt
    0xEB, 0xFD,  // 02: jmp 0x1
  ]

  /// A bench that waits for interrupts; the handler of `vector` writes the vector to port 0x80.
  private func idleBench(
    vector: UInt8, hasIRQChip: Bool = true, prepare: (VM) throws -> Void = { _ in }
  ) throws -> Bench {
    let bench = try Bench(Self.idle, hasIRQChip: hasIRQChip, prepare: prepare)
    let handler: [UInt8] = [
      0xB0, vector,  // 00: mov al,vector
      0xE6, 0x80,  //   02: out 0x80,al
      0xCF,  //         04: iret
    ]
    try bench.memory.write(handler.span, at: 0x3000)
    // Real mode: four bytes a vector at address 0, offset and segment.
    try bench.memory.view(at: 0, count: 1024).store(UInt32(0x3000), Int(vector) * 4)
    return bench
  }

  /// Runs to the handler's OUT and returns the vector that it wrote.
  private func handled(_ bench: Bench) throws -> UInt64 {
    let io = try bench.runToPortIO()
    #expect(io.isWrite && io.port == 0x80)
    return bench.vcpu.value(of: io, 0)
  }

  /// Lets the local APIC take messages: bit 8 of the spurious vector register.
  private func enableLocalAPIC(_ vcpu: VCPU) throws {
    var state = try vcpu.localAPIC()
    unsafe withUnsafeMutableBytes(of: &state.regs) {
      unsafe $0.storeBytes(of: UInt32(0x1FF), toByteOffset: 0xF0, as: UInt32.self)
    }
    try vcpu.setLocalAPIC(state)
  }

  /// Gives the first 8259 the vectors from `base` on, as its initialization words would.
  private func setVectors(_ vm: VM, _ base: UInt8) throws {
    var chip = try vm.irqChip(UInt32(KVM_IRQCHIP_PIC_MASTER))
    unsafe chip.chip.pic.irq_base = base
    unsafe chip.chip.pic.imr = 0
    try vm.setIRQChip(chip)
  }

  @Test("by a line of the 8259 reach the guest")
  func line() throws {
    let bench = try idleBench(vector: 0x24)
    try setVectors(bench.vm, 0x20)
    try bench.vm.setIRQLine(4, true)
    #expect(try handled(bench) == 0x24)
    try bench.vm.setIRQLine(4, false)
  }

  @Test("by an eventfd reach the guest until it is disconnected")
  func eventfd() throws {
    let bench = try idleBench(vector: 0x25)
    try setVectors(bench.vm, 0x20)
    let event = try Event()
    try bench.vm.connect(event, toGSI: 5)
    event.raise()
    #expect(try handled(bench) == 0x25)
    try bench.vm.connect(event, toGSI: 5, disconnect: true)
    event.raise()
    // Nobody took it: the event is still raised.
    let isRaised = event.consume()
    #expect(isRaised)
  }

  @Test("by message reach the guest, by their own ioctl or a GSI routed to one")
  func messages() throws {
    let bench = try idleBench(vector: 0x41)
    try enableLocalAPIC(bench.vcpu)
    #expect(try bench.vm.signalMSI(address: 0xFEE0_0000, data: 0x41))
    #expect(try handled(bench) == 0x41)
    // The local APIC takes no second one before the end of the first: KVM_SET_LAPIC starts over.
    let second = try idleBench(vector: 0x42)
    try enableLocalAPIC(second.vcpu)
    var entry = kvm_irq_routing_entry()
    entry.gsi = 40
    entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
    unsafe entry.u.msi.address_lo = 0xFEE0_0000
    unsafe entry.u.msi.data = 0x42
    try second.vm.setRouting([entry])
    let event = try Event()
    try second.vm.connect(event, toGSI: 40)
    event.raise()
    #expect(try handled(second) == 0x42)
  }

  @Test("are queued by vector where no controller is in the kernel")
  func queued() throws {
    let bench = try idleBench(vector: 0x30, hasIRQChip: false)
    var registers = try bench.vcpu.registers()
    registers.rflags |= 1 << 9
    try bench.vcpu.setRegisters(registers)
    try bench.vcpu.interrupt(vector: 0x30)
    #expect(try handled(bench) == 0x30)
  }

  @Test("that can't be masked reach a guest with interrupts off")
  func nmi() throws {
    let bench = try idleBench(vector: 2)
    try bench.vcpu.sendNMI()
    #expect(try handled(bench) == 2)
  }

  @Test("have controllers whose state is kept")
  func controllers() throws {
    let vm = try System().makeVM()
    try vm.makeIRQChip()
    try setVectors(vm, 0x58)
    let chip = try vm.irqChip(UInt32(KVM_IRQCHIP_PIC_MASTER))
    #expect(unsafe chip.chip.pic.irq_base == 0x58)
    let masked: UInt64 = 1 << 16
    #expect(try vm.ioapicRedirections() == Array(repeating: masked, count: 24))
    var ioapic = try vm.irqChip(UInt32(KVM_IRQCHIP_IOAPIC))
    // struct kvm_ioapic_state: 24 bytes, then the redirection entries, which Swift can't import.
    unsafe withUnsafeMutableBytes(of: &ioapic.chip) {
      unsafe $0.storeBytes(of: 0x1_0044, toByteOffset: 24 + 4 * 8, as: UInt64.self)
    }
    try vm.setIRQChip(ioapic)
    #expect(try vm.ioapicRedirections()[4] == 0x1_0044)
  }

  @Test("have a local APIC whose registers are kept")
  func localAPIC() throws {
    let bench = try Bench(hasIRQChip: true)
    // Intel SDM vol 3, table 11-1: version at 0x30, task priority at 0x80.
    #expect(try bench.vcpu.localAPICRegister(0x30) & 0xFF == 0x14)
    var state = try bench.vcpu.localAPIC()
    unsafe withUnsafeMutableBytes(of: &state.regs) {
      unsafe $0.storeBytes(of: UInt32(0x20), toByteOffset: 0x80, as: UInt32.self)
    }
    try bench.vcpu.setLocalAPIC(state)
    #expect(try bench.vcpu.localAPICRegister(0x80) == 0x20)
  }

  @Test("have a timer whose state is kept")
  func timer() throws {
    let vm = try System().makeVM()
    try vm.makeIRQChip()
    try vm.makePIT()
    var state = try vm.pit()
    state.channels.0.mode = 2
    state.channels.0.count = 0x4A9
    try vm.setPIT(state)
    let got = try vm.pit()
    #expect(got.channels.0.mode == 2)
    #expect(got.channels.0.count == 0x4A9)
    #expect(throws: KVMError.self) { try vm.makePIT() }
  }
}
