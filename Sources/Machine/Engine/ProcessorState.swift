import CKVM
import Devices
import KVM

/// All of a VCPU that its guest can see, as a value.
///
/// It is taken from a VCPU whose last exit is finished (KVM's API, 5: KVM_EXIT_IO), and put into one that
/// has not run. A hypervisor inside the guest isn't in it.
package struct ProcessorState: Sendable {
  var runState: kvm_mp_state
  var registers: Registers
  var special: SpecialRegisters
  /// The FPU, SSE and what came after them.
  var xsave: [UInt8]
  /// XCR0; nil on a host without.
  var extendedControl: kvm_xcrs?
  var debug: kvm_debugregs
  var localAPIC: kvm_lapic_state
  var events: kvm_vcpu_events
  var msrs: [kvm_msr_entry]

  /// What a state has to fit: what this host's KVM keeps of a VCPU.
  struct Extent {
    /// The MSRs that it can read and write.
    let msrs: [UInt32]
    /// The bytes of an XSAVE area.
    let xsaveSize: Int
    let hasExtendedControl: Bool

    init(_ system: System) throws(KVMError) {
      msrs = try system.msrIndices()
      xsaveSize = max(system.value(of: .xsave2), 4096)
      hasExtendedControl = system.value(of: .extendedControlRegisters) != 0
    }
  }

  /// Takes the state of `vcpu`, whose thread doesn't run.
  init(_ vcpu: VCPU, _ extent: Extent) throws(KVMError) {
    // Goes first: with it the local APIC takes INIT and SIPI that have come.
    runState = try vcpu.multiprocessorState()
    registers = try vcpu.registers()
    special = try vcpu.specialRegisters()
    xsave = try vcpu.xsave(size: extent.xsaveSize)
    extendedControl = extent.hasExtendedControl ? try vcpu.extendedControlRegisters() : nil
    debug = try vcpu.debugRegisters()
    localAPIC = try vcpu.localAPIC()
    msrs = try vcpu.readableMSRs(extent.msrs)
    events = try vcpu.events()
  }

  /// Puts it into `vcpu`, which has its CPUID and nothing else that matters.
  func put(into vcpu: VCPU) throws(KVMError) {
    try vcpu.setMultiprocessorState(runState)
    try vcpu.setRegisters(registers)
    // They say where the local APIC is, and in which mode.
    try vcpu.setSpecialRegisters(special)
    try vcpu.setXSAVE(xsave)
    if let extendedControl { try vcpu.setExtendedControlRegisters(extendedControl) }
    try vcpu.setDebugRegisters(debug)
    try vcpu.setLocalAPIC(localAPIC)
    try putMSRs(into: vcpu)
    // Goes last: other registers' setting forgets what was about to be delivered.
    try vcpu.setEvents(events)
  }

  /// Sets the MSRs that differ from what they are. The TSC goes first, since times are told by it; the
  /// timer that fires at a value of it last (Intel SDM vol 3, 11.5.4.1).
  private func putMSRs(into vcpu: VCPU) throws(KVMError) {
    let present = Dictionary(
      try vcpu.readableMSRs(msrs.map(\.index)).map { ($0.index, $0.data) },
      uniquingKeysWith: { first, _ in first })
    let changed = msrs.filter { present[$0.index] != $0.data }
    let ordered =
      changed.filter { $0.index == MSR.timeStampCounter }
      + changed.filter { ![MSR.timeStampCounter, MSR.tscDeadline].contains($0.index) }
      + changed.filter { $0.index == MSR.tscDeadline }
    guard !ordered.isEmpty else { return }
    guard try vcpu.setMSRs(ordered) == ordered.count else {
      throw KVMError("KVM_SET_MSRS", .invalidArgument)
    }
  }

  private enum MSR {
    static let timeStampCounter: UInt32 = 0x10
    static let tscDeadline: UInt32 = 0x6E0
  }
}

// MARK: - As bytes

extension ProcessorState {
  /// Writes KVM's structures, each by the name of its ioctl.
  func save(to state: inout StateWriter) {
    state.write("KVM_GET_MP_STATE", runState.stateBytes)
    state.write("KVM_GET_REGS", registers.stateBytes)
    state.write("KVM_GET_SREGS", special.stateBytes)
    state.write("KVM_GET_XSAVE2", xsave)
    if let extendedControl { state.write("KVM_GET_XCRS", extendedControl.stateBytes) }
    state.write("KVM_GET_DEBUGREGS", debug.stateBytes)
    state.write("KVM_GET_LAPIC", localAPIC.stateBytes)
    state.write("KVM_GET_VCPU_EVENTS", events.stateBytes)
    var bytes: [UInt8] = []
    for entry in msrs {
      bytes.append(number: entry.index)
      bytes.append(number: entry.data)
    }
    state.write("KVM_GET_MSRS", bytes)
  }

  /// Reads them, for a host that keeps `extent`. What the values mean is for KVM to judge.
  init(from state: StateReader, _ extent: Extent) throws(StateError) {
    runState = try state.structure("KVM_GET_MP_STATE")
    registers = try state.structure("KVM_GET_REGS")
    special = try state.structure("KVM_GET_SREGS")
    xsave = try state.readBytes("KVM_GET_XSAVE2", count: extent.xsaveSize)
    extendedControl = nil
    if state.has("KVM_GET_XCRS") {
      guard extent.hasExtendedControl else { throw .impossible("KVM_GET_XCRS") }
      extendedControl = try state.structure("KVM_GET_XCRS") as kvm_xcrs
    }
    debug = try state.structure("KVM_GET_DEBUGREGS")
    localAPIC = try state.structure("KVM_GET_LAPIC")
    events = try state.structure("KVM_GET_VCPU_EVENTS")
    msrs = try Self.msrs(state.readBytes("KVM_GET_MSRS"), known: Set(extent.msrs))
  }

  private static func msrs(
    _ bytes: [UInt8], known: Set<UInt32>
  ) throws(StateError) -> [kvm_msr_entry] {
    let size = 12
    guard bytes.count % size == 0, bytes.count / size <= known.count else {
      throw .size("KVM_GET_MSRS", bytes: bytes.count)
    }
    var left = known
    return try stride(from: 0, to: bytes.count, by: size).map { (start) throws(StateError) in
      let index: UInt32 = bytes.number(at: start)
      guard left.remove(index) != nil else { throw .impossible("KVM_GET_MSRS") }
      return kvm_msr_entry(index: index, reserved: 0, data: bytes.number(at: start + 4))
    }
  }
}

extension StateReader {
  /// The structure of KVM's that `name` has.
  func structure<Structure: StateStructure>(
    _ name: StaticString
  ) throws(StateError) -> Structure {
    let bytes = try readBytes(name)
    guard let structure = Structure(stateBytes: bytes) else {
      throw .size(name.description, bytes: bytes.count)
    }
    return structure
  }
}
