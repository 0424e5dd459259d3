import Host

/// The address of a network card.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// Its six bytes, in the order of the wire.
  public let bytes: [UInt8]

  /// An address that a card can have; nil unless these are six bytes that aren't all zero, and no
  /// group's address.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count == 6, bytes[0] & 1 == 0, bytes.contains(where: { $0 != 0 }) else {
      return nil
    }
    self.bytes = bytes
  }

  /// The address that `text` spells, such as `52:54:00:12:34:56`.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { UInt8($0, radix: 16) }
    // "+f" is a number too.
    guard parts.count == 6, parts.allSatisfy({ $0.count == 2 && $0.allSatisfy(\.isHexDigit) })
    else { return nil }
    self.init(bytes)
  }

  /// An address that nobody has been given (the second bit of the first byte is set) and that is the
  /// same each time for the same `name`.
  public init(stableFor name: String) {
    // FNV-1a, for three bytes that differ where names do.
    var hash: UInt32 = 0x811C_9DC5
    for byte in name.utf8 { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
    hash ^= hash >> 24
    bytes = [0x52, 0x54, 0x00] + [16, 8, 0].map { UInt8(truncatingIfNeeded: hash >> $0) }
  }

  /// An address that nobody has been given, and that no other card should have.
  package static func random() throws(Errno) -> MACAddress {
    var bytes = [UInt8](repeating: 0, count: 6)
    var span = bytes.mutableSpan
    try RandomBytes.fill(&span)
    bytes[0] = 0x52
    return MACAddress(bytes) ?? MACAddress(stableFor: "")
  }

  /// Two hexadecimal digits for each byte, colons between them.
  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}
