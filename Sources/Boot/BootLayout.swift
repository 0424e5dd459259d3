import Memory

/// The guest-physical addresses that booting uses; the machine's memory map supplies them.
package struct BootLayout: Sendable {
  /// Where a flat image goes unless the user says otherwise: a multiple of 16 below 1 MiB.
  package var flatImage: GuestAddress
  /// Where a boot sector goes: 0x7C00 on every PC.
  package var bootSector: GuestAddress
  /// Where the GDT of protected and long mode goes: 32 bytes at most.
  package var descriptorTable: GuestAddress
  /// Where the page tables of long mode go: 24 KiB at a multiple of 4096.
  package var pageTables: GuestAddress
  /// Where the first stack of protected and long mode starts; it grows down from here.
  package var stackTop: GuestAddress
  /// Where what a kernel is told goes (boot_params, command line, start info, Multiboot
  /// information): each piece at the lowest address that nothing else takes.
  ///
  /// Below 640 KiB, where no kernel puts what it has before it has read all of that; and above page
  /// 2, for Multiboot guests take the first three without asking.
  package var information: Range<GuestAddress>
  /// What kernels shall leave alone above RAM, beside what `MemoryMap` always tells them.
  package var reserved: [MemoryMap.Entry]

  /// A layout of these addresses.
  package init(
    flatImage: GuestAddress, bootSector: GuestAddress, descriptorTable: GuestAddress,
    pageTables: GuestAddress, stackTop: GuestAddress, information: Range<GuestAddress>,
    reserved: [MemoryMap.Entry]
  ) {
    self.flatImage = flatImage
    self.bootSector = bootSector
    self.descriptorTable = descriptorTable
    self.pageTables = pageTables
    self.stackTop = stackTop
    self.information = information
    self.reserved = reserved
  }

  /// The least that a first stack has to itself, in bytes: no image may lie there.
  ///
  /// Enough for calls and an interrupt or two until the guest has a stack of its own.
  package static let leastStack: UInt64 = 256
}
