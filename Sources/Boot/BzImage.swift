import Host
import Memory

extension BootPlan {
  /// A Linux kernel, or what passes for one, by the 64-bit boot protocol if it has that entry and by
  /// the 32-bit one otherwise (Linux, Documentation/arch/x86/boot.rst).
  static func bzImage(_ request: BootRequest) throws(BootError) -> BootPlan {
    let header = try SetupHeader(request.image)
    let mode: CPUMode = header.has64BitEntry ? .long : .protected
    try request.requireOwn(mode: mode)
    try header.requireProtectedEntry()
    let load = try header.loadAddress()
    let entry = try header.entryOffset()
    var placement = Placement(
      request, overlap: .malformed, remedy: "build it for a higher address (PHYSICAL_START)")
    try placement.placeKernel(header, at: load)
    var parameters = BootParameters(header: header.bytes)
    parameters.setLoadAddress(load)
    let linux = LinuxEntry(
      request: request, mode: mode, longestCommandLine: header.cmdlineSize,
      initrdAddressMax: header.initrdAddressMax)
    return try linux.plan(placement, parameters, at: load + entry)
  }
}

extension SetupHeader {
  /// Where a kernel goes that can't be moved: 1 MiB (boot.rst, "Loading The Rest of The Kernel").
  private static let fixedLoadAddress: UInt64 = 0x10_0000

  /// Refuses kernels that can only be started in real mode, by a BIOS.
  fileprivate func requireProtectedEntry() throws(BootError) {
    guard isLoadedHigh else {
      throw image.error(
        .unsupported,
        "is a zImage, a Linux kernel loaded below 1 MiB, which kvmlite doesn't boot: build a bzImage"
      )
    }
    guard code32Start != 0 else {
      throw image.error(
        .unsupported,
        "only starts in real mode on a BIOS (code32_start is 0): boot it from a disk with \(.firmware)"
      )
    }
  }

  /// Where the kernel's part of the file goes.
  ///
  /// A relocatable kernel runs where it was loaded, yet never below pref_address, and at a multiple
  /// of kernel_alignment (boot.rst, `init_size`): loaded there at once it has the shortest way.
  fileprivate func loadAddress() throws(BootError) -> UInt64 {
    guard isRelocatable else { return Self.fixedLoadAddress }
    let alignment = kernelAlignment
    guard alignment.nonzeroBitCount == 1 else {
      throw image.error(
        .malformed,
        about:
          "kernel_alignment is \(hex(alignment)), no power of two: the file is damaged; copy or "
          + "build it again")
    }
    let preferred = max(prefAddress ?? 0, Self.fixedLoadAddress)
    guard let address = preferred.roundedUp(to: alignment), address < PageTables.reach else {
      throw image.error(
        .unsupported,
        about:
          "the kernel wants to run at \(hex(preferred)) (pref_address), beyond the first 4 GiB, "
          + "all that it reaches when it starts: build it for a lower address (PHYSICAL_START)")
    }
    return address
  }

  /// Where the kernel starts, from its load address on: the 64-bit entry has its own place
  /// (boot.rst, "64-bit Boot Protocol").
  fileprivate func entryOffset() throws(BootError) -> UInt64 {
    let offset: UInt64 = has64BitEntry ? 0x200 : 0
    guard offset < UInt64(kernel.count) else {
      throw image.error(
        .malformed,
        about: "the kernel has \(kernel.count) bytes, and its 64-bit entry point is at "
          + "\(hex(offset)) of them: the file is cut short; copy or build it again")
    }
    return offset
  }
}

extension Placement {
  /// Places the kernel's part of the file at `load`, and keeps what it takes when it unpacks itself:
  /// init_size bytes from where it runs.
  fileprivate mutating func placeKernel(_ header: SetupHeader, at load: UInt64) throws(BootError) {
    let runs = header.isRelocatable ? load : header.prefAddress ?? load
    let (runEnd, overflows) = runs.addingReportingOverflow(header.initSize)
    guard !overflows, runEnd <= GuestMemory.holeStart else {
      throw image.error(
        .memory,
        about: "the kernel takes \(hex(header.initSize)) bytes from \(hex(runs)) on (init_size, "
          + "pref_address), which no RAM below \(hex(GuestMemory.holeStart)) holds: the file is "
          + "damaged, or built for too high an address")
    }
    let end = max(load + UInt64(header.kernel.count), runEnd)
    try place("the kernel", header.kernel, size: end - load, at: load)
    if runs < load { try reserve("the kernel's memory", at: runs, size: load - runs) }
  }
}
