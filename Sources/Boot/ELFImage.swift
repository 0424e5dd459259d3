import Host

extension BootPlan {
  /// An ELF executable: its segments at their physical addresses, started at its entry point in
  /// protected mode (32 bits) or long mode (64 bits).
  static func elf(_ request: BootRequest) throws(BootError) -> BootPlan {
    let image = request.image
    let elf = try ELF(image)
    let mode: CPUMode = elf.is64Bit ? .long : .protected
    try request.requireOwn(mode: mode)
    try request.requireNothingToTell()
    let segments = try elf.loadableSegments(of: image)
    let entry = try elf.physicalEntry(in: segments, image)
    var placement = Placement(
      request, overlap: .malformed, remedy: "link it elsewhere, as with -Ttext=0x100000")
    try placement.placeStartTables(for: mode)
    try placement.place(segments)
    let tables = try placement.placeTables(request)
    return BootPlan(
      format: request.format, pieces: placement.pieces,
      entry: .flat(mode, at: entry, request.layout), tables: tables)
  }
}

extension Placement {
  /// Places the segments of an ELF image at their physical addresses.
  mutating func place(_ segments: [ProgramHeader]) throws(BootError) {
    // The highest first, so that a message about too little memory asks for enough at once.
    for segment in segments.sorted(by: { $0.physical > $1.physical }) {
      // Only a segment without bytes may lie beyond the file's end: requireSound has seen to it.
      let contents = image.slice(segment.offset, count: segment.fileSize) ?? []
      try place(segment.name, contents, size: segment.memorySize, at: segment.physical)
    }
  }
}

extension ELF {
  /// The PT_LOAD segments that take memory, each with its bytes inside the image.
  func loadableSegments(of image: Image) throws(BootError) -> [ProgramHeader] {
    if programHeaders.contains(where: { $0.kind == ProgramHeader.Kind.interpreter }) {
      throw image.error(
        .unsupported,
        "is a program for an operating system that links it when it starts (PT_INTERP): a guest "
          + "has none; link it with -static -nostdlib")
    }
    var segments: [ProgramHeader] = []
    for header in programHeaders where header.kind == ProgramHeader.Kind.load {
      try header.requireSound(in: image)
      if header.memorySize > 0 { segments.append(header) }
    }
    guard !segments.isEmpty else {
      throw image.error(
        .malformed, "has nothing to load (no PT_LOAD segment that takes memory): link it again")
    }
    return segments
  }

  /// Where the entry point is in physical memory.
  ///
  /// The specification means a virtual address (figure 4-3, e_entry), but Linux and others that
  /// start with paging off give a physical one; it counts where no segment has it as virtual.
  func physicalEntry(in segments: [ProgramHeader], _ image: Image) throws(BootError) -> UInt64 {
    // The file's bytes count, not the zeros behind them: those are no instructions.
    for segment in segments
    where entry >= segment.virtual && entry - segment.virtual < segment.fileSize {
      let (address, overflows) = segment.physical.addingReportingOverflow(entry - segment.virtual)
      if !overflows { return try requireReachable(address, image) }
    }
    for segment in segments
    where entry >= segment.physical && entry - segment.physical < segment.fileSize {
      return try requireReachable(entry, image)
    }
    throw image.error(
      .malformed,
      "starts at \(hex(entry)) (e_entry), which is in no segment's bytes: link it with an entry "
        + "symbol, such as _start")
  }

  private func requireReachable(_ address: UInt64, _ image: Image) throws(BootError) -> UInt64 {
    guard address < PageTables.reach else {
      throw image.error(
        .unsupported,
        "starts at \(hex(address)), beyond the first 4 GiB, all that a guest reaches when it "
          + "starts: link it at a lower physical address")
    }
    return address
  }
}

extension ProgramHeader {
  /// Refuses a segment whose bytes aren't in the file or don't fit its memory (figure 5-2,
  /// PT_LOAD: p_filesz is at most p_memsz).
  fileprivate func requireSound(in image: Image) throws(BootError) {
    guard fileSize == 0 || image.slice(offset, count: fileSize) != nil else {
      throw image.error(
        .malformed,
        about: "\(name) takes \(fileSize) bytes from \(hex(offset)) on, but the file has only "
          + "\(image.count): the file is cut short; copy or build it again")
    }
    guard fileSize <= memorySize else {
      throw image.error(
        .malformed,
        about:
          "\(name) has \(fileSize) bytes in the file (p_filesz) and only \(memorySize) in memory "
          + "(p_memsz): the file is damaged; build it again")
    }
  }
}
