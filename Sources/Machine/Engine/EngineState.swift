import CKVM
import Devices
import KVM

/// What KVM has of a virtual machine, but for its memory, as a value: its VCPUs, the interrupt controllers,
/// the timer and the paravirtual clock.
///
/// What devices do to the controllers' inputs isn't in it: they drive their lines anew.
package struct EngineState: Sendable {
  /// What CPUID answers on each VCPU, by APIC ID.
  let cpuids: [CPUID]
  /// The VCPUs, likewise.
  var processors: [ProcessorState]
  /// The two 8259s and the IOAPIC.
  var controllers: [kvm_irqchip]
  var timer: kvm_pit_state2
  /// Nanoseconds.
  var clock: UInt64

  // The second 8259 before the first: KVM pulls the first one's input anew each time that one is set, and
  // an interrupt that the guest is serving must not come by it once more.
  private static let chips = [
    UInt32(KVM_IRQCHIP_PIC_SLAVE), UInt32(KVM_IRQCHIP_PIC_MASTER), UInt32(KVM_IRQCHIP_IOAPIC),
  ]

  /// Takes the state of an engine that stands still, whose guest was told `cpuids`.
  init(of engine: Engine, _ cpuids: [CPUID], _ host: KVMHost) throws(KVMError) {
    let extent = try ProcessorState.Extent(host.system)
    let (vm, vcpus) = (engine.vm, engine.runners.map(\.vcpu))
    self.cpuids = cpuids
    processors = try vcpus.map { (vcpu) throws(KVMError) in try ProcessorState(vcpu, extent) }
    controllers = try Self.chips.map { (chip) throws(KVMError) in try vm.irqChip(chip) }
    timer = try vm.pit()
    clock = try vm.clock().clock
  }

  /// Puts it into `vm`, whose inputs devices have driven already: an edge that the guest has seen doesn't
  /// come again, and a level that is still there does.
  func put(into vm: VM, _ vcpus: [VCPU]) throws(KVMError) {
    for (state, vcpu) in zip(processors, vcpus) { try state.put(into: vcpu) }
    // After the local APICs, which take what the IOAPIC has not delivered.
    for controller in controllers { try vm.setIRQChip(controller) }
    try vm.setPIT(timer)
    var data = kvm_clock_data()
    data.clock = clock
    try vm.setClock(data)
  }

  // MARK: As bytes

  /// Writes KVM's structures, each by the name of its ioctl.
  package func save(to state: inout StateWriter) {
    for (id, (cpuid, processor)) in zip(cpuids, processors).enumerated() {
      state.group("vcpu\(id)") {
        cpuid.save(to: &$0)
        processor.save(to: &$0)
      }
    }
    for controller in controllers {
      state.group("KVM_GET_IRQCHIP \(controller.chip_id)") {
        $0.write("chip", controller.stateBytes)
      }
    }
    state.write("KVM_GET_PIT2", timer.stateBytes)
    state.write("KVM_GET_CLOCK", clock)
  }

  /// Reads what CPUID answered on each of `vcpuCount` VCPUs in what `save` wrote.
  static func cpuids(from state: StateReader, vcpuCount: Int) throws(StateError) -> [CPUID] {
    try (0..<vcpuCount).map { (id) throws(StateError) in
      try CPUID(from: state.group("vcpu\(id)"))
    }
  }

  /// Reads the rest of it.
  init(
    from state: StateReader, _ cpuids: [CPUID], _ extent: ProcessorState.Extent
  ) throws(StateError) {
    self.cpuids = cpuids
    processors = try cpuids.indices.map { (id) throws(StateError) in
      try ProcessorState(from: state.group("vcpu\(id)"), extent)
    }
    controllers = try Self.chips.map { (chip) throws(StateError) in
      let controller: kvm_irqchip = try state.group("KVM_GET_IRQCHIP \(chip)").structure("chip")
      guard controller.chip_id == chip else { throw .impossible("KVM_GET_IRQCHIP") }
      return controller
    }
    timer = try state.structure("KVM_GET_PIT2")
    clock = try state.read("KVM_GET_CLOCK")
  }
}
