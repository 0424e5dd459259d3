/// The Firmware ACPI Control Structure (ACPI 6.5, 5.2.10): the waking vector and the global lock.
///
/// There is no firmware to share a lock with, but the waking vector is where a guest goes on that has
/// suspended the machine.
enum FACS {
  static let size = 64

  /// The structure, of version 2. It has no checksum, for the kernel writes to it.
  static func bytes() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: size)
    bytes.replaceSubrange(0..<4, with: "FACS".utf8)
    bytes.store(UInt32(size), at: 4)
    bytes[32] = 2  // Version
    return bytes
  }
}
