/// Where a function is on the bus: bus 0 is the only one.
public struct PCIAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The device, 0 to 31.
  public let device: UInt8
  /// The function in it, 0 to 7.
  public let function: UInt8

  /// Keeps the low 5 bits of `device` and the low 3 of `function`.
  public init(device: UInt8, function: UInt8 = 0) {
    self.device = device & 31
    self.function = function & 7
  }

  /// Device and function in one byte, as configuration addresses have it.
  public var byte: UInt8 { device << 3 | function }

  /// By device, then function.
  public static func < (a: Self, b: Self) -> Bool { a.byte < b.byte }

  /// As lspci writes it: `00:1f.0`.
  public var description: String {
    let digits = String(device, radix: 16)
    return "00:" + (device < 16 ? "0" : "") + digits + ".\(function)"
  }
}
