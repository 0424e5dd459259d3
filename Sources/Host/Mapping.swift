import CLinux
import Glibc

/// Owns a range of the process's address space and unmaps it at the end of its life.
///
/// The contents are shared with a running guest, or with the kernel: two reads of one place may
/// differ. All access is by checked offset; only `Memory` and `KVM` see the address.
@safe public final class Mapping: @unchecked Sendable {
  // Sound as Sendable: the address and the length don't change once it is made, and what lies behind them
  // is plain bytes that several threads may read and write as hardware would.

  /// Where the range starts in this process.
  public let base: UnsafeMutableRawPointer
  /// How many bytes it has.
  public let count: Int
  private let isShared: Bool
  // Whether a file is under it that others have too: set before anybody uses it.
  var isView = false
  // Open as long as the memory is there, for others to be given.
  private let file: SharedDescriptor?

  /// The size of a huge page of x86-64.
  public static let hugePageSize = 2 << 20

  /// Reserves `count` bytes of private zeroed memory that costs nothing until it is touched.
  ///
  /// It starts where a huge page can: KVM maps no huge page unless the address here and the guest's
  /// agree below 2 MiB, and not every kernel sees to it. `count` is a positive multiple of the page
  /// size. Corresponds to `mmap(2)` with `MAP_ANONYMOUS | MAP_NORESERVE`.
  public init(anonymous count: Int) throws(Errno) {
    guard count > 0 else { throw Errno(EINVAL) }
    unsafe base = try Self.reserve(count, MAP_PRIVATE | MAP_ANONYMOUS)
    self.count = count
    file = nil
    isShared = false
    keepOutOfDumps()
  }

  /// The same for memory that other processes can be given: a file without a name whose length nobody
  /// can change, so that no access to the memory ever fails.
  ///
  /// Corresponds to `memfd_create(2)` with `F_SEAL_SHRINK` and `F_SEAL_GROW`.
  public init(shareable count: Int) throws(Errno) {
    guard count > 0 else { throw Errno(EINVAL) }
    let number = unsafe memfd_create("guest-memory", UInt32(MFD_CLOEXEC | MFD_ALLOW_SEALING))
    guard number >= 0 else { throw Errno.current }
    let file = FileDescriptor(owning: number)
    try file.setLength(UInt64(count))
    let seals = CLINUX_SEAL_SHRINK | CLINUX_SEAL_GROW | CLINUX_SEAL_SEAL
    guard clinux_add_seals(number, Int32(seals)) == 0 else { throw Errno.current }
    let start = try unsafe Self.reserve(count, MAP_PRIVATE | MAP_ANONYMOUS)
    // In place of the range that has just been reserved.
    guard
      unsafe mmap(start, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, number, 0) == start
    else {
      let error = Errno.current
      unsafe munmap(start, count)
      throw error
    }
    unsafe base = unsafe start
    self.count = count
    self.file = SharedDescriptor(file)
    isShared = true
    keepOutOfDumps()
  }

  /// Address space for `count` bytes that starts at a multiple of a huge page's size.
  private static func reserve(
    _ count: Int, _ flags: Int32
  ) throws(Errno) -> UnsafeMutableRawPointer {
    let slack = hugePageSize
    guard
      let start = unsafe mmap(
        nil, count + slack, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, -1, 0),
      unsafe start != MAP_FAILED
    else { throw Errno.current }
    // Give back what lies before the first boundary and behind the last byte.
    let before = -Int(bitPattern: start) & (slack - 1)
    if before > 0 { unsafe munmap(start, before) }
    unsafe munmap(start + before + count, slack - before)
    return unsafe start + before
  }

  /// Maps `count` bytes from `offset` on of memory that another process shares. Throws `EPERM` unless
  /// the file can't get shorter, since an access behind its end would kill this process; `EINVAL` if it
  /// is too short already or the range is not one of whole pages.
  ///
  /// Corresponds to `mmap(2)` with `MAP_SHARED`.
  package init(
    shared file: borrowing FileDescriptor, offset: UInt64, count: UInt64
  ) throws(Errno) {
    let seals = clinux_get_seals(file.number)
    guard seals >= 0, seals & Int32(CLINUX_SEAL_SHRINK) != 0 else { throw Errno.notPermitted }
    let (end, overflow) = offset.addingReportingOverflow(count)
    let length = try file.status().count
    let page = UInt64(sysconf(Int32(_SC_PAGESIZE)))
    guard !overflow, count > 0, length >= 0, end <= UInt64(length),
      offset % page == 0, count % page == 0, let offset = off_t(exactly: offset),
      let count = Int(exactly: count)
    else { throw Errno.invalidArgument }
    guard
      let base = unsafe mmap(
        nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, offset),
      unsafe base != MAP_FAILED
    else { throw Errno.current }
    unsafe self.base = unsafe base
    self.count = count
    self.file = nil
    isShared = true
    keepOutOfDumps()
  }

  /// A guest's memory is no part of a core dump of this process. Corresponds to `madvise(2)` with
  /// `MADV_DONTDUMP`.
  private func keepOutOfDumps() { unsafe madvise(base, count, MADV_DONTDUMP) }

  /// Where the range starts in this process, as a number that other processes may be told.
  public var address: UInt64 { unsafe UInt64(UInt(bitPattern: base)) }

  /// The file of shareable memory, by number.
  public var fileNumber: Int32? { file?.file.number }

  /// Maps the first `count` bytes of an open file, shared with all who map it.
  ///
  /// Corresponds to `mmap(2)` with `MAP_SHARED`.
  package init(sharing file: borrowing FileDescriptor, count: Int) throws(Errno) {
    guard let base = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0),
      unsafe base != MAP_FAILED
    else { throw Errno.current }
    unsafe self.base = unsafe base
    self.count = count
    self.file = nil
    isShared = true
  }

  deinit {
    unsafe munmap(base, count)
  }

  /// Asks for huge pages from `offset` on and, even where the host gives them to all who don't
  /// object, for none before it. Only advice: the kernel may not have any.
  ///
  /// Corresponds to `madvise(2)` with `MADV_HUGEPAGE` and `MADV_NOHUGEPAGE`.
  public func adviseHugePages(from offset: Int) {
    guard offset >= 0 else { return }
    if offset > 0 { unsafe madvise(base, min(offset, count), MADV_NOHUGEPAGE) }
    if offset < count { unsafe madvise(base + offset, count - offset, MADV_HUGEPAGE) }
  }

  /// Makes all who keep translations of their own of these pages, as KVM does for its guests, look
  /// them up again: the pages become executable for a moment. So they can be read and written all
  /// the time, which no other change of rights allows. For private writable memory.
  ///
  /// Corresponds to `mprotect(2)`.
  public func invalidateTranslations(at offset: Int, count length: Int) {
    guard offset >= 0, length >= 0, length <= count, offset <= count - length else { return }
    let rights = PROT_READ | PROT_WRITE
    unsafe mprotect(base + offset, length, rights | PROT_EXEC)
    unsafe mprotect(base + offset, length, rights)
  }

  /// Gives the host back the whole pages among `length` bytes from `offset` on; they read as zeros
  /// after that. Returns how many bytes those were: 0 where the host refuses.
  ///
  /// Corresponds to `madvise(2)` with `MADV_DONTNEED`, and for shared memory `MADV_REMOVE`.
  @discardableResult
  public func giveBack(at offset: Int, count length: Int) -> Int {
    guard offset >= 0, length >= 0, length <= count, offset <= count - length else { return 0 }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = (offset + page - 1) & ~(page - 1)
    let end = (offset + length) & ~(page - 1)
    guard start < end else { return 0 }
    if isView {
      unsafe clear(base + start, end - start)
      return end - start
    }
    // Inside the mapping, which nobody but the guest keeps anything in.
    let advice = isShared ? MADV_REMOVE : MADV_DONTNEED
    return unsafe madvise(base + start, end - start, Int32(advice)) == 0 ? end - start : 0
  }

  /// How many bytes of the range are in the host's memory now. Corresponds to `mincore(2)`.
  public func residentBytes() -> Int {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let chunk = 1 << 14  // pages asked for at a time, so that a large guest needs no large vector
    var resident = 0
    unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: chunk) { vector in
      var offset = 0
      while offset < count {
        let length = min(chunk * page, count - offset)
        let pages = (length + page - 1) / page
        guard unsafe mincore(base + offset, length, vector.baseAddress) == 0 else { return }
        for index in 0..<pages where unsafe vector[index] & 1 != 0 { resident += 1 }
        offset += length
      }
    }
    return resident * page
  }
}
