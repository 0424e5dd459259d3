import Boot
import Memory
import Testing

extension BootLayout {
  /// The addresses of kvmlite's own machine.
  static let pc = BootLayout(
    flatImage: 0x10000, bootSector: 0x7C00, descriptorTable: 0x500, pageTables: 0x1000,
    stackTop: 0x10000, information: 0x3000..<0x9F000,
    reserved: [.reserved(0xFEC0_0000..<0x1_0000_0000)])
}

let mebibyte: UInt64 = 1 << 20

extension FirmwareRoom {
  /// That of kvmlite's own machine.
  static let pc = FirmwareRoom(acpi: 0xE_0000..<0xE_3000, mp: 0xF_C000..<0xF_E000)
}

/// Plans `image`, called `guest`, for a guest with 128 MiB unless `ram` says otherwise.
func plan(
  _ image: [UInt8], mode: CPUMode? = nil, at loadAddress: GuestAddress? = nil,
  ram: UInt64 = 128 * mebibyte, initrd: [UInt8]? = nil, others: [[UInt8]] = [],
  commandLine: String? = nil, tables: FirmwareRoom? = nil
) throws(BootError) -> BootPlan {
  let initrds = (initrd.map { [$0] } ?? []) + others
  let options = BootOptions(
    mode: mode, loadAddress: loadAddress,
    initrds: initrds.map { BootFile($0, name: "initrd") }, commandLine: commandLine)
  return try BootPlan(
    image: image, name: "guest", options: options, layout: .pc, ramSize: ram, tables: tables)
}

/// The error that planning `image` ends with.
func refusal(
  _ image: [UInt8], mode: CPUMode? = nil, at loadAddress: GuestAddress? = nil,
  ram: UInt64 = 128 * mebibyte, initrd: [UInt8]? = nil, commandLine: String? = nil,
  _ location: SourceLocation = #_sourceLocation
) throws -> BootError {
  try #require(throws: BootError.self, sourceLocation: location) {
    // Not the value of the closure: a failed expectation would print all of the plan.
    _ = try plan(
      image, mode: mode, at: loadAddress, ram: ram, initrd: initrd, commandLine: commandLine)
  }
}

/// Expects `error`'s message to name the image and to hold each of `words`.
func expect(
  _ error: BootError, _ cause: BootError.Cause, says words: String...,
  at location: SourceLocation = #_sourceLocation
) {
  #expect(error.cause == cause, sourceLocation: location)
  #expect(error.description.hasPrefix("guest"), sourceLocation: location)
  for word in words {
    #expect(error.description.contains(word), sourceLocation: location)
  }
}

extension BootPlan {
  /// The piece called `what`.
  func piece(_ what: String) throws -> Piece {
    try #require(pieces.first { $0.what == what })
  }
}

extension BootPlan.Piece {
  var range: Range<UInt64> { start.value..<start.value + size }
}

extension [UInt8] {
  /// The little-endian number of `count` bytes at `offset`.
  func load(_ offset: Int, _ count: Int) -> UInt64 {
    self[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}
