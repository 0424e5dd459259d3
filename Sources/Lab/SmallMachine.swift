import Host
import KVM
import Memory

/// What the lab `build` has students write, in kvmlite's own words: a hypervisor for one VCPU in real
/// mode with three devices. What it says of a guest is what is right.
struct SmallMachine {
  /// What became of a guest.
  struct Outcome {
    /// What it printed.
    var output: [UInt8] = []
    /// AX at its end.
    var ax: UInt16 = 0
    /// Why KVM_RUN returned, each time.
    var exits: [Exit] = []

    /// What a hypervisor is to write to its standard output.
    var printed: [UInt8] {
      let digits = String(ax, radix: 16)
      let padded = String(repeating: "0", count: 4 - digits.count) + digits
      return output + Array("halt: ax=\(padded)\n".utf8)
    }
  }

  /// Where a guest is loaded and begins.
  static let loadAddress: UInt64 = 0x1000
  static let ramSize: UInt64 = 640 << 10
  static let serialPort: UInt16 = 0x3F8
  static let raisePort: UInt16 = 0x80
  static let adder: UInt64 = 0xD0000

  private let vm: VM
  private let vcpu: VCPU
  /// The VM has its addresses alone.
  private let memory: GuestMemory
  private let alarm: Alarm
  private var input: [UInt8]
  private var sum: UInt32 = 0
  private var waiting: [UInt8] = []
  private var outcome = Outcome()

  /// Runs `image` to its end, with `input` to read.
  static func run(_ image: [UInt8], input: [UInt8]) throws(LabError) -> Outcome {
    var machine = try SmallMachine(image, input: input)
    defer { machine.alarm.cancel() }
    try machine.run()
    return machine.outcome
  }

  private init(_ image: [UInt8], input: [UInt8]) throws(LabError) {
    let system = try kvm { () throws(KVMError) in try System() }
    let vm = try kvm { () throws(KVMError) in try system.makeVM() }
    let memory = try host { () throws(Errno) in try GuestMemory(ramSize: Self.ramSize) }
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      try memory.write(image.span, at: GuestAddress(Self.loadAddress))
    }
    let vcpu = try kvm { () throws(KVMError) in
      try vm.setIdentityMapAddress(0xFEFF_C000)
      try vm.setTSSAddress(0xFEFF_D000)
      try vm.setMemory(slot: 0, memory.regions[0])
      let vcpu = try vm.makeVCPU(id: 0)
      var special = try vcpu.specialRegisters()
      (special.cs.base, special.cs.selector) = (0, 0)
      try vcpu.setSpecialRegisters(special)
      var registers = Registers()
      (registers.rip, registers.rflags) = (Self.loadAddress, 2)
      try vcpu.setRegisters(registers)
      return vcpu
    }
    (self.vm, self.vcpu, self.memory, self.input) = (vm, vcpu, memory, input)
    alarm = try host { () throws(Errno) in try Alarm(seconds: 20) { vcpu.requestExit() } }
  }

  private mutating func run() throws(LabError) {
    var isReady = false
    while true {
      let exit = try enter(isReady)
      if case .interrupted = exit {
        guard !alarm.isOver else { throw .overdue("a guest of build") }
        continue
      }
      outcome.exits.append(exit)
      isReady = vcpu.interruptsAreOn
      switch exit {
      case .portIO(let io): serve(io)
      case .mmio(let access): serve(access)
      case .interruptWindow: break
      case .halt:
        guard waiting.isEmpty else { continue }
        let registers = try kvm { () throws(KVMError) in try vcpu.registers() }
        outcome.ax = UInt16(truncatingIfNeeded: registers.rax)
        return
      default: throw .unexpected("a guest of build ended by \(exit.reason.name)")
      }
    }
  }

  /// Enters the guest, with the next interrupt if it can take one now.
  private mutating func enter(_ isReady: Bool) throws(LabError) -> Exit {
    if isReady, let vector = waiting.first {
      waiting.removeFirst()
      let vcpu = vcpu
      try kvm { () throws(KVMError) in try vcpu.interrupt(vector: UInt32(vector)) }
    }
    vcpu.setWantsInterruptWindow(!waiting.isEmpty)
    let vcpu = vcpu
    return try kvm { () throws(KVMError) in try vcpu.run() }
  }

  private mutating func serve(_ io: Exit.PortIO) {
    for index in 0..<io.count {
      switch (io.port, io.isWrite) {
      case (Self.serialPort, true):
        outcome.output.append(UInt8(truncatingIfNeeded: vcpu.value(of: io, index)))
      case (Self.serialPort, false):
        vcpu.setValue(input.isEmpty ? 0xFF : UInt64(input.removeFirst()), of: io, index)
      case (Self.raisePort, true):
        waiting.append(UInt8(truncatingIfNeeded: vcpu.value(of: io, index)))
      default: break
      }
    }
  }

  private mutating func serve(_ access: Exit.MMIO) {
    if access.isWrite {
      if access.address == Self.adder { sum &+= UInt32(truncatingIfNeeded: access.data) }
    } else {
      vcpu.setMMIOData(access.address == Self.adder + 4 ? UInt64(sum) : 0)
    }
  }
}
