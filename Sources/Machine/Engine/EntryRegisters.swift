import Boot
import KVM

/// Turns what a boot format asks for into a VCPU's registers.
extension VCPU {
  /// Sets the VCPU up as `entry` says.
  func enter(_ entry: EntryState) throws(KVMError) {
    var special = try specialRegisters()
    special.cs = Segment(entry.code)
    let data = Segment(entry.data)
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data)
    if let table = entry.descriptorTable {
      special.gdt.base = table.base.value
      special.gdt.limit = table.limit
    }
    // A reset leaves the caches off, and whoever brings a processor to these modes turns them on.
    if entry.mode != .real {
      special.cr0 &= ~(ControlBit.cacheDisable | ControlBit.notWriteThrough)
    }
    switch entry.mode {
    case .real: break
    case .protected: special.cr0 |= ControlBit.protection
    case .long:
      special.cr0 |= ControlBit.protection | ControlBit.paging
      special.cr4 |= ControlBit.physicalAddressExtension
      special.efer |= ControlBit.longModeEnable | ControlBit.longModeActive
      special.cr3 = entry.pageTableRoot?.value ?? 0
    }
    try setSpecialRegisters(special)
    var general = Registers()
    general.rip = entry.instructionPointer
    general.rsp = entry.stackPointer
    general.rflags = entry.flags
    (general.rax, general.rbx, general.rcx, general.rdx) =
      (entry.rax, entry.rbx, entry.rcx, entry.rdx)
    (general.rsi, general.rdi, general.rbp) = (entry.rsi, entry.rdi, entry.rbp)
    try setRegisters(general)
  }

  /// Sets the VCPU up to start in real mode at `address`, below 1 MiB, as after a reset otherwise.
  func enterRealMode(at address: UInt32) throws(KVMError) {
    var special = try specialRegisters()
    special.cs.selector = UInt16(truncatingIfNeeded: address >> 4)
    special.cs.base = UInt64(special.cs.selector) << 4
    try setSpecialRegisters(special)
    var general = Registers()
    (general.rip, general.rflags) = (UInt64(address & 0xF), 2)
    try setRegisters(general)
  }
}

extension KVM.Segment {
  init(_ segment: EntryState.Segment) {
    self.init()
    base = segment.base
    limit = segment.limit
    selector = segment.selector
    type = segment.type
    present = 1
    s = 1
    db = segment.is32Bit ? 1 : 0
    l = segment.is64Bit ? 1 : 0
    g = segment.isGranular ? 1 : 0
  }
}
