import KVM
import Memory

/// Gives a machine that runs without interrupt controllers the ones its guest has asked for.
///
/// KVM makes controllers only before the first VCPU, so there is a new VM on the same memory, and the
/// VCPU's state moves. Then the guest's access must happen, once: a read simply runs again, since KVM
/// moves RIP past it only when it has the answer. A write may be behind RIP already; it is finished in
/// the old VM, where it has no effect, and done in the new one by two instructions of ours.
enum Promotion {
  /// Moves the only VCPU of `old`, which left with `exit`, to `new`.
  static func move(
    _ old: VCPU, _ exit: Exit, to new: VCPU, msrs: [UInt32], xsaveSize: Int, _ memory: GuestMemory
  ) throws(KVMError) {
    var exit = exit
    while let write = Write(exit, old) {
      try write.perform(on: new, memory)
      // Finishes the write, and comes back with the rest of it if it had several parts.
      old.requestExit()
      exit = try old.run()
    }
    try copyState(old, to: new, msrs: msrs, xsaveSize: xsaveSize)
    if case .halt = exit { try new.setRunState(.halted) }
  }

  /// Everything of a VCPU that a guest can see.
  private static func copyState(
    _ old: VCPU, to new: VCPU, msrs: [UInt32], xsaveSize: Int
  ) throws(KVMError) {
    try new.setSpecialRegisters(old.specialRegisters())
    // A host without XSAVE has none, and refuses to set none.
    let extended = try old.extendedControlRegisters()
    if extended.nr_xcrs > 0 { try new.setExtendedControlRegisters(extended) }
    try new.setXSAVE(old.xsave(size: xsaveSize))
    try new.setRegisters(old.registers())
    try new.setDebugRegisters(old.debugRegisters())
    try new.setEvents(old.events())
    for index in msrs {
      // A list of all that KVM knows: some can't be read, and some are as they should be.
      guard let value = try old.msrs([index]).first, let present = try new.msrs([index]).first,
        value.data != present.data
      else { continue }
      try new.setMSRs([value])
    }
  }
}

/// A write that left the guest, and how to do it again.
private struct Write {
  private var code: [UInt8]
  private let address: UInt64
  private let values: [UInt64]

  init?(_ exit: Exit, _ vcpu: VCPU) {
    switch exit {
    case .portIO(let io) where io.isWrite:
      // OUT DX, AL or AX or EAX
      code = io.width == 1 ? [0xEE] : io.width == 2 ? [0x66, 0xEF] : [0xEF]
      address = UInt64(io.port)
      values = (0..<io.count).map { vcpu.value(of: io, $0) }
    case .mmio(let access) where access.isWrite:
      // MOV [EDX], AL or AX or EAX; the controllers' registers have 32 bits
      code =
        access.width == 1 ? [0x88, 0x02] : access.width == 2 ? [0x66, 0x89, 0x02] : [0x89, 0x02]
      address = access.address
      values = [access.data]
    default: return nil
    }
    code += [0xE6, UInt8(Layout.post.start)]  // OUT 0x80, AL
  }

  /// Runs the instruction on `vcpu`, which hasn't run yet, in 32-bit protected mode.
  func perform(on vcpu: VCPU, _ memory: GuestMemory) throws(KVMError) {
    guard let page = try? memory.view(at: 0, count: 16) else { return }
    var kept = [UInt8](repeating: 0, count: 16)
    var span = kept.mutableSpan
    page.copy(to: &span, from: 0)
    page.copy(from: code.span, at: 0)
    defer { page.copy(from: kept.span, at: 0) }
    var special = try vcpu.specialRegisters()
    special.cr0 |= ControlBit.protection
    special.cs = Self.flatSegment(type: 11)
    special.ds = Self.flatSegment(type: 3)
    (special.es, special.ss) = (special.ds, special.ds)
    try vcpu.setSpecialRegisters(special)
    for value in values {
      var registers = Registers()
      (registers.rax, registers.rdx, registers.rflags) = (value, address, 2)
      try vcpu.setRegisters(registers)
      // The first exit is the marker's, or that of a port that isn't the controllers' after all.
      _ = try vcpu.run()
      vcpu.requestExit()
      _ = try vcpu.run()
      vcpu.clearExitRequest()
    }
  }

  /// All of 4 GiB (Intel SDM vol 3, 3.4.5).
  private static func flatSegment(type: UInt8) -> Segment {
    var segment = Segment()
    segment.limit = 0xFFFF_FFFF
    segment.selector = 8
    (segment.type, segment.present, segment.s, segment.db, segment.g) = (type, 1, 1, 1, 1)
    return segment
  }
}
