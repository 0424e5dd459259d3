import Host

extension BootPlan {
  /// A flat image: its bytes, as they are, at one address; its first byte is the first instruction.
  static func flat(_ request: BootRequest) throws(BootError) -> BootPlan {
    try request.requireNothingToTell()
    let address = request.options.loadAddress?.value ?? request.layout.flatImage.value
    let mode = request.options.mode ?? .real
    return mode == .real
      ? try flatReal(request, at: address) : try flatWide(request, mode, at: address)
  }

  /// Real mode: the image and its stack share the 64 KiB of one segment, the stack at the top.
  private static func flatReal(_ request: BootRequest, at address: UInt64) throws(BootError)
    -> BootPlan
  {
    let image = request.image
    guard address % 16 == 0, address <= 0xFFFF0 else {
      throw image.error(
        .options,
        about:
          "\(.loadAddress, hex(address)) can't be reached in real mode, where a segment starts at a "
          + "multiple of 16 up to 0xffff0: choose such an address, or \(.mode, "protected or long")"
      )
    }
    let stackPointer: UInt16 = 0xFFF0
    let most = UInt64(stackPointer) - BootLayout.leastStack
    guard image.count <= most else {
      throw image.error(
        .unsupported,
        "has \(image.count) bytes, but a flat image in real mode shares one segment with its stack "
          + "and can have \(most) at most: choose \(.mode, "protected or long"), or make an ELF of it"
      )
    }
    var placement = Placement(request)
    try placement.place("the image with its stack", image.bytes[...], size: 0x10000, at: address)
    try placement.placeVectors()
    let entry = EntryState.real(
      selector: UInt16(address >> 4), instructionPointer: 0, stackPointer: stackPointer)
    return BootPlan(format: request.format, pieces: placement.pieces, entry: entry)
  }

  /// Protected or long mode: the image anywhere in the first 4 GiB.
  private static func flatWide(
    _ request: BootRequest, _ mode: CPUMode, at address: UInt64
  ) throws(BootError) -> BootPlan {
    let image = request.image
    guard address < PageTables.reach else {
      throw image.error(
        .options,
        about:
          "\(.loadAddress, hex(address)) is beyond the first 4 GiB, which is all that \(mode.rawValue) "
          + "mode reaches at the start: choose an address below 0xc0000000")
    }
    var placement = Placement(request)
    try placement.placeStartTables(for: mode)
    try placement.place("the image", image.bytes[...], at: address)
    return BootPlan(
      format: request.format, pieces: placement.pieces,
      entry: .flat(mode, at: address, request.layout))
  }
}

extension Placement {
  /// A placement for what a load address can move.
  fileprivate init(_ request: BootRequest) {
    self.init(
      request, overlap: .options,
      remedy: "choose another \(.loadAddress) (default \(request.layout.flatImage))")
  }
}
