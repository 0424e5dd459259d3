import Host
import Memory

extension BootPlan {
  /// A kernel that starts as a PVH guest of Xen's does (Xen, docs/misc/pvh.pandoc): in protected
  /// mode at the address in its note, with EBX leading to hvm_start_info.
  static func pvh(_ request: BootRequest) throws(BootError) -> BootPlan {
    let elf = try ELF(request.image)
    try request.requireOwn(mode: .protected)
    var placement = Placement(
      request, overlap: .malformed, remedy: "link it elsewhere, as with -Ttext=0x100000")
    let segments = try elf.loadableSegments(of: request.image)
    let entry = try elf.pvhEntry(in: segments, request.image)
    try placement.place(segments)
    let tables = try placement.placeTables(request)
    try placement.placeBIOSDataArea()
    let stack = try placement.reserveStack()
    let text = try request.commandLine(atMost: UInt64.max)
    let line = try placement.placeInformation("the command line", text)
    // A kernel finds itself in the map, but not what it was given: at the top nothing is in its way.
    var modules: [Range<UInt64>] = []
    for file in request.options.initrds {
      modules.append(try placement.place(file, below: UInt64(UInt32.max)))
    }
    let info = PVHStartInfo(
      commandLine: line, modules: modules, rsdp: tables.map { GuestAddress($0.acpi.lowerBound) },
      memoryMap: request.memoryMap)
    let address = try placement.placeInformation("the start info", size: PVHStartInfo.size(info)) {
      info.bytes(at: $0)
    }
    return BootPlan(
      format: request.format, pieces: placement.pieces,
      entry: .kernel(at: entry, rax: 0, rbx: address, stackTop: stack), tables: tables)
  }
}

extension EntryState {
  /// Protected mode with flat segments and no GDT that could be relied on, which is what PVH and
  /// Multiboot (0.6.96, 3.2) promise alike.
  static func kernel(at address: UInt64, rax: UInt64, rbx: UInt64, stackTop: UInt64) -> EntryState {
    var entry = EntryState(
      mode: .protected, instructionPointer: address, stackPointer: stackTop,
      code: FlatSegments.code32, data: FlatSegments.data)
    entry.rax = rax
    entry.rbx = rbx
    return entry
  }
}

extension ELF {
  /// The entry point that the note names: a physical address, of the kernel's word size.
  fileprivate func pvhEntry(
    in segments: [ProgramHeader], _ image: Image
  ) throws(BootError) -> UInt64 {
    let address = note(owner: "Xen", type: Self.pvhEntryNote, in: image) ?? []
    guard address.count == 4 || address.count == 8 else {
      throw image.error(
        .malformed,
        about:
          "the PVH note (XEN_ELFNOTE_PHYS32_ENTRY) holds \(address.count) bytes, no address of "
          + "4 or 8: the file is damaged; build it again")
    }
    let entry = address.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let isInside = segments.contains {
      entry >= $0.physical && entry - $0.physical < $0.fileSize
    }
    guard isInside, entry < PageTables.reach else {
      throw image.error(
        .malformed,
        about: "the PVH note's entry point \(hex(entry)) (XEN_ELFNOTE_PHYS32_ENTRY) is in no "
          + "segment's bytes below 4 GiB: give the note a physical address")
    }
    return entry
  }
}
