import Host
import Memory

/// What every Linux kernel is told, however its file is laid out, and the state it starts in.
struct LinuxEntry {
  let request: BootRequest
  /// Protected for the 32-bit boot protocol, long for the 64-bit one.
  let mode: CPUMode
  /// The most bytes of its command line.
  let longestCommandLine: UInt64
  /// The highest address of an initrd.
  let initrdAddressMax: UInt64

  /// Adds to `placement`, which has the kernel, all that it is told, and makes the plan.
  func plan(
    _ placement: consuming Placement, _ parameters: consuming BootParameters, at address: UInt64
  ) throws(BootError) -> BootPlan {
    var placement = placement
    var parameters = parameters
    let tables = try placement.placeTables(request)
    try placement.placeStartTables(for: mode, gdt: FlatSegments.linuxTable(for: mode))
    try placement.placeBIOSDataArea()
    let text = try request.commandLine(atMost: longestCommandLine)
    parameters.setCommandLine(at: try placement.placeInformation("the command line", text))
    if let initrd = try placement.placeInitrd(request, below: initrdAddressMax) {
      parameters.setInitrd(at: initrd.lowerBound, size: initrd.upperBound - initrd.lowerBound)
    }
    if let tables { parameters.setRSDP(at: GuestAddress(tables.acpi.lowerBound)) }
    parameters.setMemoryMap(request.memoryMap)
    let page = try placement.placeInformation(
      "boot_params", parameters.bytes, alignment: UInt64(BootParameters.size))
    return BootPlan(
      format: request.format, pieces: placement.pieces,
      entry: .linux(mode, at: address, parameters: page, request.layout), tables: tables)
  }
}

extension EntryState {
  /// The state that boot.rst asks for in "32-bit Boot Protocol" and "64-bit Boot Protocol".
  fileprivate static func linux(
    _ mode: CPUMode, at address: UInt64, parameters: UInt64, _ layout: BootLayout
  ) -> EntryState {
    var entry = EntryState.flat(mode, at: address, layout)
    entry.code.selector = FlatSegments.linuxCode
    entry.data.selector = FlatSegments.linuxData
    entry.descriptorTable = DescriptorTable(
      base: layout.descriptorTable, limit: UInt16(FlatSegments.linuxTableSize - 1))
    entry.rsi = parameters
    return entry
  }
}

extension BootRequest {
  /// The command line as a kernel reads it, with the zero at its end; refused where it has more than
  /// `limit` bytes without that.
  func commandLine(atMost limit: UInt64) throws(BootError) -> [UInt8] {
    let text = Array((options.commandLine ?? "").utf8)
    guard !text.contains(0) else {
      throw image.error(
        .options,
        about: "the command line has a zero byte in it, where the kernel would take it to "
          + "end: leave it out of \(.append)")
    }
    guard UInt64(text.count) <= limit else {
      throw image.error(
        .unsupported,
        about: "the command line has \(text.count) bytes, and this kernel takes \(limit) at most: "
          + "shorten \(.append)")
    }
    return text + [0]
  }
}
