import Boot
import Devices
import Host
import KVM
import Memory

/// The part of a machine that KVM runs: the VM, its VCPUs, and what their threads do.
///
/// A machine gets another one when its processors start anew: after a reset, and waking from S3. A saved
/// machine's state goes into a new one.
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
    /// All go on from where they were.
    case restored(EngineState)
  }

  /// Makes an engine in `vm`, which is empty, with `memory` where `map` says, the devices of `inventory`
  /// and a VCPU for each of `cpuids`: at the start of a machine, after a reset, and when it wakes.
  init(
    _ vm: VM, _ host: KVMHost, _ memory: GuestMemory, _ map: MemoryMap, _ inventory: Inventory,
    _ control: RunControl, _ cpuids: [CPUID], _ start: Start
  ) throws(KVMError) {
    try Self.furnish(vm, map)
    let parking = Parking()
    let synchronizes = host.system.value(of: .syncRegisters) != 0
    var runners: [VCPURunner] = []
    for (id, cpuid) in cpuids.enumerated() {
      let vcpu = try vm.makeVCPU(id: id)
      try vcpu.setCPUID(cpuid)
      try vcpu.setUpModelSpecificRegisters()
      vcpu.setSynchronizesRegisters(synchronizes)
      runners.append(
        VCPURunner(vcpu, memory, ports: inventory.ports, mmio: inventory.mmio, control, parking))
    }
    inventory.doorbells.connect(to: vm)
    // Firmware would have done it before a kernel starts.
    if inventory.pci.hasPins { try vm.setLevelTriggered(Layout.pciISAInterrupts) }
    for line in inventory.lines { line.connect(to: vm) }
    try Self.begin(start, vm, runners.map(\.vcpu), host)
    // Local APICs that are to go on from where they were take none before.
    try inventory.messages.connect(to: vm)
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
    case .restored(let state): return try state.put(into: vm, vcpus)
    }
    // Firmware does all of this itself; for others it would have been done.
    guard format != .firmware else { return }
    try vm.setFirmwareState()
    guard format.isKernel else { return }
    for vcpu in vcpus { try vcpu.setUpMemoryTypes(addressBits: UInt64(host.cpuid.addressBits)) }
  }

  private static func furnish(_ vm: VM, _ map: MemoryMap) throws(KVMError) {
    // Both matter to kvm_intel alone, which wants them before the first VCPU.
    try vm.setIdentityMapAddress(Layout.identityMap)
    try vm.setTSSAddress(Layout.taskState)
    // Before the controllers: the first change of a slot after them takes 7.5 ms (Linux 6.18).
    try map.connect(to: vm)
    try vm.makeIRQChip()
    try vm.makePIT()
    try vm.setRouting(InterruptRouting.inputs)
  }
}
