/// An address in the guest's physical memory, in bytes from 0.
public struct GuestAddress: Hashable, Comparable, Sendable {
  /// The address as a number.
  public let value: UInt64

  /// Wraps a number.
  @inlinable
  public init(_ value: UInt64) { self.value = value }

  /// Whether `left` comes before `right`.
  /// By number.
  @inlinable
  public static func < (left: GuestAddress, right: GuestAddress) -> Bool {
    left.value < right.value
  }

  /// The address `count` bytes further, or nil where that would go past 2^64.
  @inlinable
  public func advanced(by count: UInt64) -> GuestAddress? {
    let (sum, overflow) = value.addingReportingOverflow(count)
    return overflow ? nil : GuestAddress(sum)
  }
}

extension GuestAddress: ExpressibleByIntegerLiteral {
  /// Wraps a number that the source spells out.
  /// Wraps a number.
  @inlinable
  public init(integerLiteral value: UInt64) { self.value = value }
}

extension GuestAddress: CustomStringConvertible {
  /// Hexadecimal, as in `0x10000`.
  public var description: String { "0x" + String(value, radix: 16) }
}
