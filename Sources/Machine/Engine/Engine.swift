import Boot
import Devices
import Host
import KVM
import Memory

/// The part of a machine that KVM runs: the VM, its VCPUs, and what their threads do.
///
/// A machine with one VCPU starts without interrupt controllers, because making and unmaking them is
/// most of what a short run costs (docs/decisions/0007). It gets a second engine that has them when
/// the guest first asks for one.
final class Engine {
  let vm: VM
  let runners: [VCPURunner]
  let parking: Parking
  /// Whether the VM has the in-kernel PIC, IOAPIC, local APICs and timer.
  let hasControllers: Bool

  /// Furnishes `vm`, which is empty, with `memory` and as many VCPUs as wanted.
  init(
    _ vm: VM, _ host: KVMHost, _ memory: GuestMemory, _ inventory: Inventory, _ control: RunControl,
    cpu: CPUModel,
    vcpuCount: Int, hasControllers: Bool
  ) throws(KVMError) {
    try Self.furnish(vm, memory, hole: inventory.memoryHole, hasControllers)
    let parking = Parking(count: vcpuCount)
    let buses =
      hasControllers
      ? (inventory.ports, inventory.mmio) : inventory.buses(with: ControllerPlaceholder(control))
    let synchronizes = host.system.value(of: .syncRegisters) != 0
    var runners: [VCPURunner] = []
    for id in 0..<vcpuCount {
      let vcpu = try vm.makeVCPU(id: id)
      try vcpu.setCPUID(cpu.cpuid(host, id: id, count: vcpuCount))
      try vcpu.setUpModelSpecificRegisters()
      vcpu.setSynchronizesRegisters(synchronizes)
      runners.append(
        VCPURunner(vcpu, memory, ports: buses.0, mmio: buses.1, control, parking, hasControllers))
    }
    inventory.doorbells.connect(to: vm)
    if hasControllers {
      // Firmware would have done it before a kernel starts.
      if inventory.pci.hasPins { try vm.setLevelTriggered(Layout.pciISAInterrupts) }
      for line in inventory.lines { line.connect(to: vm) }
      try inventory.messages.connect(to: vm)
    }
    self.vm = vm
    self.runners = runners
    self.parking = parking
    self.hasControllers = hasControllers
  }

  private static func furnish(
    _ vm: VM, _ memory: GuestMemory, hole: Range<UInt64>, _ hasControllers: Bool
  ) throws(KVMError) {
    // Both matter to kvm_intel alone, which wants them before the first VCPU.
    try vm.setIdentityMapAddress(Layout.identityMap)
    try vm.setTSSAddress(Layout.taskState)
    if hasControllers {
      try vm.makeIRQChip()
      try vm.makePIT()
      try vm.setRouting(InterruptRouting.inputs)
    } else {
      // What no local APIC answers is to be seen: see VCPURunner.
      try vm.enable(.userSpaceMSR, MSRExit.mask)
    }
    var slot: UInt32 = 0
    for region in memory.regions {
      for part in parts(of: region, without: hole) {
        try vm.setMemory(slot: slot, region, part: part)
        slot += 1
      }
    }
  }

  /// What of `region` the guest gets, by offsets: all but what is in `hole`.
  private static func parts(
    of region: GuestMemory.Region, without hole: Range<UInt64>
  ) -> [Range<UInt64>] {
    let start = region.start.value
    let all = start..<start + region.count
    return [all.clamped(to: 0..<hole.lowerBound), all.clamped(to: hole.upperBound..<UInt64.max)]
      .filter { !$0.isEmpty }.map { $0.lowerBound - start..<$0.upperBound - start }
  }
}

/// Stands at the interrupt controllers' ports and addresses until there are some: whoever touches it
/// gets them, and the access is done again.
final class ControllerPlaceholder: Device {
  private let control: RunControl
  var name: StaticString { "irqchip" }
  var widestAccess: Int { 8 }

  init(_ control: RunControl) { self.control = control }

  func read(offset: UInt64, width: Int) -> UInt64 {
    control.requestControllers()
    return .max
  }

  func write(offset: UInt64, width: Int, value: UInt64) { control.requestControllers() }
}

extension Inventory {
  /// The buses of a machine that has no interrupt controllers yet: `placeholder` stands where they
  /// will be.
  fileprivate func buses(with placeholder: any Device) -> (ports: Bus, mmio: Bus) {
    var (ports, mmio) = (ports, mmio)
    // The layout is ours, so there is room.
    for place in Layout.interruptControllerPorts {
      try? ports.add(placeholder, at: UInt64(place.start), count: UInt64(place.count))
    }
    for page in [Layout.ioapic, Layout.localAPIC] {
      try? mmio.add(placeholder, at: page.value, count: GuestMemory.pageSize)
    }
    return (ports, mmio)
  }
}
