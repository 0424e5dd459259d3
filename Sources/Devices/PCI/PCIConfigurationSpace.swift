/// The 256 bytes of configuration registers as plain values: what a guest reads, and which bits it
/// can write (PCI 3.0, 6.1 and 6.2).
struct PCIConfigurationSpace: Sendable {
  static let size: UInt64 = 256

  enum Offset {
    static let vendor = 0x00
    static let device = 0x02
    static let command = 0x04
    static let status = 0x06
    static let revision = 0x08
    static let interface = 0x09
    static let cacheLineSize = 0x0C
    static let headerType = 0x0E
    static let bars = 0x10
    static let subsystemVendor = 0x2C
    static let subsystem = 0x2E
    static let capabilities = 0x34
    static let interruptLine = 0x3C
    static let interruptPin = 0x3D
    /// Where a device's own registers begin.
    static let end = 0x40
  }

  /// Table 6-1.
  struct Command: OptionSet {
    let rawValue: UInt16
    static let portSpace = Self(rawValue: 1 << 0)
    static let memorySpace = Self(rawValue: 1 << 1)
    static let busMaster = Self(rawValue: 1 << 2)
    static let parityErrorResponse = Self(rawValue: 1 << 6)
    static let systemErrorEnable = Self(rawValue: 1 << 8)
    static let interruptDisable = Self(rawValue: 1 << 10)
  }

  /// Table 6-2.
  enum Status {
    static let interrupt: UInt8 = 1 << 3
    static let capabilities: UInt8 = 1 << 4
  }

  private var bytes = [UInt8](repeating: 0, count: Int(size))
  private var writable = [UInt8](repeating: 0, count: Int(size))

  // MARK: For the function, at offsets of its own

  subscript(offset: Int) -> UInt8 {
    get { bytes[offset] }
    set { bytes[offset] = newValue }
  }

  func word(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8 }

  func doubleword(_ offset: Int) -> UInt32 { UInt32(word(offset)) | UInt32(word(offset + 2)) << 16 }

  var command: Command { Command(rawValue: word(Offset.command)) }

  /// Puts `value` at `offset`, least significant byte first; a guest can write the bits of `mask`.
  mutating func define<T: FixedWidthInteger>(_ offset: Int, _ value: T, writable mask: T = 0) {
    for index in 0..<T.bitWidth / 8 {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8))
      writable[offset + index] = UInt8(truncatingIfNeeded: mask >> T(index * 8))
    }
  }

  // MARK: For the guest: any offset and width

  func read(_ offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width where offset &+ UInt64(index) < Self.size {
      value |= UInt64(bytes[Int(offset) + index]) << UInt64(index * 8)
    }
    return value
  }

  mutating func write(_ offset: UInt64, width: Int, value: UInt64) {
    for index in 0..<width where offset &+ UInt64(index) < Self.size {
      let place = Int(offset) + index
      let new = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
      bytes[place] = bytes[place] & ~writable[place] | new & writable[place]
    }
  }
}

extension PCIConfigurationSpace {
  /// All of it, as a guest would read it.
  var contents: [UInt8] { bytes }

  /// Takes the bits that a guest can write from `contents`, 256 bytes; false if others aren't as they
  /// are here, which is another function then.
  mutating func take(_ contents: [UInt8]) -> Bool {
    for index in bytes.indices where (contents[index] ^ bytes[index]) & ~writable[index] != 0 {
      return false
    }
    bytes = contents
    return true
  }
}
