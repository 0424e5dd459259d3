import Memory

/// The state of the first VCPU when the guest's first instruction runs.
///
/// Registers that aren't named here are as after a reset. Interrupts are off.
package struct EntryState: Equatable, Sendable {
  /// The mode, which the control registers follow: CR0.PE in protected mode; CR0.PE, CR0.PG, CR4.PAE,
  /// EFER.LME and EFER.LMA in long mode.
  package var mode: CPUMode
  /// RIP; in real mode IP, relative to CS.
  package var instructionPointer: UInt64
  /// RSP; in real mode SP, relative to SS.
  package var stackPointer: UInt64
  /// RFLAGS: nothing but bit 1, which is always set (Intel SDM vol 1, 3.4.3).
  package var flags: UInt64 = 2

  /// The general register that Multiboot passes its magic number in.
  package var rax: UInt64 = 0
  /// The general register that Multiboot and PVH pass an address in.
  package var rbx: UInt64 = 0
  /// A general register.
  package var rcx: UInt64 = 0
  /// The general register whose low byte tells a boot sector its drive.
  package var rdx: UInt64 = 0
  /// The general register that Linux takes its boot parameters from.
  package var rsi: UInt64 = 0
  /// A general register.
  package var rdi: UInt64 = 0
  /// A general register.
  package var rbp: UInt64 = 0

  /// What CS holds.
  package var code: Segment
  /// What DS, ES, FS, GS and SS hold.
  package var data: Segment
  /// GDTR; nil in real mode, which has no use for it.
  package var descriptorTable: DescriptorTable?
  /// CR3: where the PML4 is; nil while paging is off.
  package var pageTableRoot: GuestAddress?

  /// A segment register, its hidden part included.
  ///
  /// See Intel SDM vol 3, 3.4.3 and 3.4.5. All are present, of privilege level 0, and code or data (S=1).
  package struct Segment: Equatable, Sendable {
    /// The visible part.
    package var selector: UInt16
    /// Where the segment starts.
    package var base: UInt64
    /// The offset of the last byte in reach.
    package var limit: UInt32
    /// The type: 11 for code that may be read, 3 for data that may be written, both accessed.
    package var type: UInt8
    /// D/B: operands and stack of 32 bits.
    package var is32Bit = false
    /// L: 64-bit code.
    package var is64Bit = false

    /// G: the limit counts pages of 4 KiB.
    package var isGranular: Bool { limit > 0xF_FFFF }
  }

  /// What GDTR holds.
  package struct DescriptorTable: Equatable, Sendable {
    /// Where the table starts.
    package var base: GuestAddress
    /// The offset of its last byte.
    package var limit: UInt16
  }
}

extension EntryState.Segment {
  /// A segment of 64 KiB that the real-mode `selector` names.
  static func real(_ selector: UInt16, type: UInt8) -> Self {
    Self(selector: selector, base: UInt64(selector) << 4, limit: 0xFFFF, type: type)
  }

  /// Readable code, accessed (SDM vol 3, table 3-1): marked so already, so no CPU writes to the GDT.
  static let codeType: UInt8 = 0b1011
  /// Writable data, accessed.
  static let dataType: UInt8 = 0b0011
}

extension EntryState {
  /// Real mode with every segment register holding `selector`.
  static func real(selector: UInt16, instructionPointer: UInt16, stackPointer: UInt16) -> EntryState
  {
    EntryState(
      mode: .real, instructionPointer: UInt64(instructionPointer),
      stackPointer: UInt64(stackPointer),
      code: .real(selector, type: Segment.codeType), data: .real(selector, type: Segment.dataType))
  }

  /// Protected or long mode with the tables and the first stack where `layout` has them.
  static func flat(_ mode: CPUMode, at address: UInt64, _ layout: BootLayout) -> EntryState {
    let isLong = mode == .long
    return EntryState(
      mode: mode, instructionPointer: address, stackPointer: layout.stackTop.value,
      code: isLong ? FlatSegments.code64 : FlatSegments.code32, data: FlatSegments.data,
      descriptorTable: DescriptorTable(
        base: layout.descriptorTable, limit: UInt16(FlatSegments.tableSize - 1)),
      pageTableRoot: isLong ? layout.pageTables : nil)
  }
}
