/// The Firmware ACPI Control Structure (ACPI 6.5, 5.2.10): the waking vector and the global lock.
///
/// The machine neither sleeps nor has firmware to share a lock with, but a FADT that isn't
/// hardware-reduced must name one.
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
