import Glibc
import Synchronization

/// Private memory that begins with what files have.
extension Mapping {
  /// Maps `count` bytes of an open file, from `offset` on, as they are now: what is written here stays
  /// here. Throws `EINVAL` if they aren't all there. Nobody may make the file shorter while this lives.
  ///
  /// Corresponds to `mmap(2)` with `MAP_PRIVATE`.
  package convenience init(
    privateViewOf file: borrowing FileDescriptor, offset: Int = 0, count: Int
  ) throws(Errno) {
    try self.init(anonymous: count)
    try show(file, from: offset, at: 0, count: count)
  }

  /// The same for `length` bytes of this memory, whole pages from `place` on, before anybody uses them.
  ///
  /// Corresponds to `mmap(2)` with `MAP_FIXED`.
  package func show(
    _ file: borrowing FileDescriptor, from offset: Int, at place: Int, count length: Int
  ) throws(Errno) {
    guard offset >= 0, length > 0, try file.status().count - offset >= length,
      place >= 0, place <= count - length
    else { throw Errno.invalidArgument }
    let flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED
    // In place of a part of this range, and nothing else.
    let start = unsafe mmap(
      base + place, length, PROT_READ | PROT_WRITE, flags, file.number, off_t(offset))
    guard unsafe start == base + place else { throw Errno.current }
    unsafe madvise(start, length, MADV_DONTDUMP)
    isView = true
  }

  /// A stretch of a view that is given back is replaced by memory without a file, if it is this long; a
  /// process can't have many of those (vm.max_map_count in proc_sys_vm(5)).
  private static let leastReplaced = 64 << 10
  private static let mostReplaced = 16384
  private static let replaced = Atomic(0)

  /// Makes `length` bytes of a view zeros, whole pages from `start` on, so that they take no memory if
  /// that is possible. Corresponds to `mmap(2)` with `MAP_FIXED`.
  func clear(_ start: UnsafeMutableRawPointer, _ length: Int) {
    if length >= Self.leastReplaced,
      Self.replaced.wrappingAdd(1, ordering: .relaxed).oldValue < Self.mostReplaced
    {
      let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
      // In place of a part of this range, and nothing else.
      if unsafe mmap(start, length, PROT_READ | PROT_WRITE, flags, -1, 0) == start {
        unsafe madvise(start, length, MADV_DONTDUMP)
        return
      }
    }
    unsafe memset(start, 0, length)
  }
}
