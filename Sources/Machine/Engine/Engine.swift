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

  /// Furnishes `vm`, which is empty, with `memory` and as many VCPUs as wanted, in the state that a
  /// reset leaves.
  init(
    _ vm: VM, _ host: KVMHost, _ memory: GuestMemory, _ wiring: Wiring, _ control: RunControl,
    cpu: CPUModel, vcpuCount: Int
  ) throws(KVMError) {
    try Self.furnish(vm, memory, hole: wiring.memoryHole)
    let parking = Parking(count: vcpuCount)
    let synchronizes = host.system.value(of: .syncRegisters) != 0
    var runners: [VCPURunner] = []
    for id in 0..<vcpuCount {
      let vcpu = try vm.makeVCPU(id: id)
      try vcpu.setCPUID(cpu.cpuid(host, id: id, count: vcpuCount))
      try vcpu.setUpModelSpecificRegisters()
      vcpu.setSynchronizesRegisters(synchronizes)
      runners.append(
        VCPURunner(vcpu, memory, ports: wiring.ports, mmio: wiring.mmio, control, parking))
    }
    wiring.doorbells.connect(to: vm)
    // Firmware would have done it before a kernel starts.
    if wiring.pci.hasPins { try vm.setLevelTriggered(Layout.pciISAInterrupts) }
    for line in wiring.lines { line.connect(to: vm) }
    try wiring.messages.connect(to: vm)
    self.vm = vm
    self.runners = runners
    self.parking = parking
    watch = HaltWatch(runners.map(\.vcpu))
    vm.closeLate()
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
