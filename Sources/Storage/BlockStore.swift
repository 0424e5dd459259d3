import Host
import Memory

/// The contents of a disk: what the guest's disk device reads and writes, whatever is behind it.
///
/// Calls wait for the host and return when the work is done; several threads may call at once. The
/// contents are bytes from 0 to `size`; a range outside them is refused, never clipped.
package protocol BlockStore: AnyObject, Sendable {
  /// How many bytes the disk has: a multiple of 512.
  var size: UInt64 { get }
  /// Whether writes are refused.
  var isReadOnly: Bool { get }

  /// Fills `segments`, one after the other, with the disk's bytes from `offset` on.
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError)

  /// Puts the bytes of `segments`, one after the other, on the disk from `offset` on. They are safe
  /// from a power cut only after the next `flush()`.
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError)

  /// Returns when everything that was written before is on stable storage.
  func flush() throws(StorageError)

  /// Makes `count` bytes from `offset` on read as zeros; `mayUnmap` lets the host's space for them
  /// go.
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError)

  /// Tells that nobody needs `count` bytes from `offset` on any longer. What they read as after that
  /// is the store's choice; it may do nothing.
  func discard(at offset: UInt64, count: UInt64) throws(StorageError)
}

/// Why a disk did not do what it was asked for. To a guest all of these are I/O errors.
package enum StorageError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A system call of the host's failed, such as for a full disk.
  case host(Errno)
  /// The file ends before the disk does.
  case truncated
  /// The file was removed, or another was put in its place: nothing can be kept in it any longer.
  case removed
  /// The range is not all on the disk.
  case outOfRange
  /// The disk can only be read.
  case readOnly
  /// The image contradicts itself; the text says where.
  case corrupt(Advice)
  /// The image is sound but uses what kvmlite doesn't know; the text says what.
  case unsupported(Advice)

  /// Says what happened.
  package var description: String { message.description }

  /// Says what happened, and what mends it.
  var message: Advice {
    switch self {
    case .host(let errno): "\(errno)"
    case .truncated: "the file ends before the disk does"
    case .removed: "its file was removed, and all that is written to it goes with kvmlite's end"
    case .outOfRange: "beyond the end of the disk"
    case .readOnly: "the disk is read-only"
    case .corrupt(let what): "the image is damaged: \(what)"
    case .unsupported(let what): "not supported: \(what)"
    }
  }
}
