/// The mode that a VCPU starts a guest in.
public enum CPUMode: String, Sendable, CaseIterable {
  /// 16-bit real-address mode.
  case real
  /// 32-bit protected mode with flat 4 GiB segments, paging off.
  case protected
  /// 64-bit mode with the first 4 GiB identity-mapped.
  case long
}
