import Glibc

/// Owns a range of the process's address space and unmaps it at the end of its life.
///
/// The contents are shared with a running guest, or with the kernel: two reads of one place may
/// differ. All access is by checked offset; only `Memory` and `KVM` see the address.
@safe public final class Mapping: @unchecked Sendable {
  // Sound as Sendable: the address and the length never change, and what lies behind them is plain
  // bytes that several threads may read and write as hardware would.

  /// Where the range starts in this process.
  public let base: UnsafeMutableRawPointer
  /// How many bytes it has.
  public let count: Int
  private let isShared: Bool

  /// The size of a huge page of x86-64.
  public static let hugePageSize = 2 << 20

  /// Reserves `count` bytes of private zeroed memory that costs nothing until it is touched.
  ///
  /// It starts where a huge page can: KVM maps no huge page unless the address here and the guest's
  /// agree below 2 MiB, and not every kernel sees to it. `count` is a positive multiple of the page
  /// size. Corresponds to `mmap(2)` with `MAP_ANONYMOUS | MAP_NORESERVE`.
  public init(anonymous count: Int) throws(Errno) {
    guard count > 0 else { throw Errno(EINVAL) }
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    let slack = Self.hugePageSize
    guard let start = unsafe mmap(nil, count + slack, PROT_READ | PROT_WRITE, flags, -1, 0),
      unsafe start != MAP_FAILED
    else { throw Errno.current }
    // Give back what lies before the first boundary and behind the last byte.
    let before = -Int(bitPattern: start) & (slack - 1)
    if before > 0 { unsafe munmap(start, before) }
    unsafe munmap(start + before + count, slack - before)
    unsafe self.base = unsafe start + before
    self.count = count
    isShared = false
  }

  /// Maps the first `count` bytes of an open file, shared with all who map it.
  ///
  /// Corresponds to `mmap(2)` with `MAP_SHARED`.
  public init(sharing file: borrowing FileDescriptor, count: Int) throws(Errno) {
    guard let base = unsafe mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0),
      unsafe base != MAP_FAILED
    else { throw Errno.current }
    unsafe self.base = unsafe base
    self.count = count
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
