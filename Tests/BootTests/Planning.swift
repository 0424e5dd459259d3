import Boot
import Memory
import Testing

extension BootLayout {
  /// The addresses of kvmlite's own machine.
  static let pc = BootLayout(
    flatImage: 0x10000, bootSector: 0x7C00, descriptorTable: 0x500, pageTables: 0x1000,
    stackTop: 0x10000)
}

let mebibyte: UInt64 = 1 << 20

/// Plans `image`, called `guest`, for a guest with 128 MiB unless `ram` says otherwise.
func plan(
  _ image: [UInt8], mode: CPUMode? = nil, at loadAddress: GuestAddress? = nil,
  ram: UInt64 = 128 * mebibyte
) throws(BootError) -> BootPlan {
  try BootPlan(
    image: image, name: "guest", options: BootOptions(mode: mode, loadAddress: loadAddress),
    layout: .pc, ramSize: ram)
}

/// The error that planning `image` ends with.
func refusal(
  _ image: [UInt8], mode: CPUMode? = nil, at loadAddress: GuestAddress? = nil,
  ram: UInt64 = 128 * mebibyte, _ location: SourceLocation = #_sourceLocation
) throws -> BootError {
  try #require(throws: BootError.self, sourceLocation: location) {
    try plan(image, mode: mode, at: loadAddress, ram: ram)
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
