import Boot
import Devices
import Host
import KVM
import Memory

/// The part of a machine that KVM runs: the VM, its VCPUs, and what their threads do.
///
/// A machine gets another one when its processors start anew: after a reset, and waking from S3.
final class Engine {
  let runners: [VCPURunner]
  let watch: HaltWatch
  let vm: VM
  let parking: Parking

  /// What an engine's processors begin with.
  enum Start {
    /// The first one enters an image of that format; others wait to be started.
    case entry(EntryState, ImageFormat)
    /// After a suspension: the first one starts in real mode at `vector`, an address below 1 MiB (ACPI
    /// 6.5, 5.2.10), and all else is as after a reset.
    case waking(vector: UInt32, ImageFormat)
  }

  /// Makes an engine in `vm`, which is empty, with `memory` and the devices of `inventory`: at the start of
  /// a machine, after a reset, and when it wakes.
  init(
    _ vm: VM, _ host: KVMHost, _ memory: GuestMemory, _ inventory: Inventory, _ control: RunControl,
    _ configuration: Configuration, _ start: Start
  ) throws(KVMError) {
    try Self.furnish(vm, memory, hole: inventory.memoryHole)
    let parking = Parking()
    let synchronizes = host.system.value(of: .syncRegisters) != 0
    var runners: [VCPURunner] = []
    for id in 0..<configuration.vcpuCount {
      let vcpu = try vm.makeVCPU(id: id)
      try vcpu.setCPUID(configuration.cpu.cpuid(host, id: id, count: configuration.vcpuCount))
      try vcpu.setUpModelSpecificRegisters()
      vcpu.setSynchronizesRegisters(synchronizes)
      runners.append(
        VCPURunner(vcpu, memory, ports: inventory.ports, mmio: inventory.mmio, control, parking))
    }
    inventory.doorbells.connect(to: vm)
    // Firmware would have done it before a kernel starts.
    if inventory.pci.hasPins { try vm.setLevelTriggered(Layout.pciISAInterrupts) }
    for line in inventory.lines { line.connect(to: vm) }
    try inventory.messages.connect(to: vm)
    try Self.begin(start, vm, runners.map(\.vcpu), host)
    self.vm = vm
    self.runners = runners
    self.parking = parking
    watch = HaltWatch(runners.map(\.vcpu))
    vm.closeLate()
  }

  private static func begin(
    _ start: Start, _ vm: VM, _ vcpus: [VCPU], _ host: KVMHost
  ) throws(KVMError) {
    let format: ImageFormat
    switch start {
    case .entry(let entry, let image):
      try vcpus[0].enter(entry)
      format = image
    case .waking(let vector, let image):
      try vcpus[0].enterRealMode(at: vector)
      format = image
    }
    // Firmware does all of this itself; for others it would have been done.
    guard format != .firmware else { return }
    try vm.setFirmwareState()
    guard format.isKernel else { return }
    for vcpu in vcpus { try vcpu.setUpMemoryTypes(addressBits: UInt64(host.cpuid.addressBits)) }
  }

  private static func furnish(
    _ vm: VM, _ memory: GuestMemory, hole: Range<UInt64>
  ) throws(KVMError) {
    // Both matter to kvm_intel alone, which wants them before the first VCPU.
    try vm.setIdentityMapAddress(Layout.identityMap)
    try vm.setTSSAddress(Layout.taskState)
    // Before the controllers: the first change of a slot after them takes 7.5 ms (Linux 6.18).
    var slot: UInt32 = 0
    for region in memory.regions {
      for part in parts(of: region, without: hole) {
        try vm.setMemory(slot: slot, region, part: part)
        slot += 1
      }
    }
    try vm.makeIRQChip()
    try vm.makePIT()
    try vm.setRouting(InterruptRouting.inputs)
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
