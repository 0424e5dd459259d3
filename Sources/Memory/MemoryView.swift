import Glibc
import Host

/// A bounds-checked window on guest memory, as fast as a pointer: one comparison, one access.
///
/// The guest may write while the view is read, so a value that is checked must be loaded once. An
/// access outside the view is a mistake of kvmlite's own and traps; `GuestMemory.view(at:count:)`
/// is where addresses that a guest made are refused.
public struct MemoryView: Sendable {
  // Keeps the memory mapped for as long as a view of it is around.
  @usableFromInline let mapping: Mapping
  @usableFromInline let offset: Int
  /// How many bytes the view has.
  public let count: Int

  init(_ mapping: Mapping, _ offset: Int, _ count: Int) {
    precondition(offset >= 0 && count >= 0 && offset <= mapping.count - count)
    self.mapping = mapping
    self.offset = offset
    self.count = count
  }

  @inlinable
  func pointer(_ position: Int, _ size: Int) -> UnsafeMutableRawPointer {
    precondition(position >= 0 && size <= count && position <= count - size, "outside the view")
    return unsafe mapping.base + (offset + position)
  }

  /// The little-endian integer at `position`, of any alignment.
  @inlinable
  public func load<T: FixedWidthInteger & BitwiseCopyable>(_ position: Int, as type: T.Type) -> T {
    // pointer() has checked that all the bytes are inside.
    unsafe T(littleEndian: pointer(position, MemoryLayout<T>.size).loadUnaligned(as: type))
  }

  /// Puts `value` at `position`, little-endian, at any alignment.
  @inlinable
  public func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ position: Int) {
    // pointer() has checked that all the bytes are inside.
    unsafe pointer(position, MemoryLayout<T>.size)
      .storeBytes(of: value.littleEndian, as: T.self)
  }

  /// Copies all of `bytes` to `position`.
  public func copy(from bytes: Span<UInt8>, at position: Int) {
    // pointer() has checked the target; the source's length is its own.
    unsafe bytes.withUnsafeBufferPointer { source in
      guard let base = source.baseAddress else { return }
      unsafe pointer(position, source.count).copyMemory(from: base, byteCount: source.count)
    }
  }

  /// Fills all of `bytes` from `position` on.
  public func copy(to bytes: inout MutableSpan<UInt8>, from position: Int) {
    // pointer() has checked the source; the target's length is its own.
    unsafe bytes.withUnsafeMutableBufferPointer { target in
      guard let base = target.baseAddress else { return }
      unsafe UnsafeMutableRawPointer(base)
        .copyMemory(from: pointer(position, target.count), byteCount: target.count)
    }
  }

  /// Whether the bytes from `position` on are `bytes`.
  package func isEqual(to bytes: Span<UInt8>, from position: Int) -> Bool {
    // pointer() has checked that all the bytes are inside; the others' length is their own.
    unsafe bytes.withUnsafeBytes { others in
      unsafe others.baseAddress.map {
        unsafe memcmp(pointer(position, others.count), $0, others.count) == 0
      }
        ?? true
    }
  }

  /// Whether `length` bytes from `position` on are all zero.
  package func isZero(from position: Int, count length: Int) -> Bool {
    guard length > 0 else { return true }
    // pointer() has checked that all the bytes are inside. Each is compared with the one before it.
    let start = unsafe pointer(position, length)
    return unsafe start.load(as: UInt8.self) == 0 && memcmp(start, start + 1, length - 1) == 0
  }
}
