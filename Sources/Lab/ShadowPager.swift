import Inspect
import KVM
import Machine
import Memory

/// Shadow page tables: what the processor uses in place of the guest's own.
///
/// The guest's tables are in a read-only slot, so each write comes here. The shadow is in ordinary
/// memory and filled when the guest faults. Its entries are always part of what the guest's allow.
struct ShadowPager {
  /// What it had to do.
  struct Work {
    var tableWrites = 0
    var fills = 0
    /// Entries that were for reading and became writable with the first write.
    var upgrades = 0
    var dirtied = 0
    var guestFaults = 0
    var rootLoads = 0
    var zapped = 0
    /// How often KVM was made to forget its own shadow of ours.
    var flushes = 0
  }

  /// The window that is shadowed, at 1 GiB. Below 1 GiB the bench's own tables serve.
  static let window: UInt64 = 1 << 30
  static let root: UInt64 = 0x40_0000

  private enum Bit {
    static let present: UInt64 = 1 << 0
    static let writable: UInt64 = 1 << 1
    static let accessed: UInt64 = 1 << 5
    static let dirty: UInt64 = 1 << 6
  }

  let bench: Bench
  private(set) var work = Work()
  private var guestRoot: UInt64 = 0

  /// How many pages the window has.
  private let pages: Int
  /// Whether KVM shadows our shadow, and has to be told of changes.
  private let isShadowed: Bool

  init(_ bench: Bench, pages: Int, isShadowed: Bool) {
    self.bench = bench
    self.pages = pages
    self.isShadowed = isShadowed
  }

  private mutating func flush() throws(LabError) {
    guard isShadowed else { return }
    work.flushes += 1
    try bench.forgetTranslations()
  }

  /// The guest wants `root` for its tables: starts an empty shadow, and returns its root.
  mutating func load(root: UInt64) throws(LabError) -> UInt64 {
    work.rootLoads += 1
    guestRoot = root
    let zeroes = [UInt64](repeating: 0, count: 512)
    for table in 0..<4 { try bench.store(zeroes, at: Self.root + UInt64(table) * 0x1000) }
    let open: UInt64 = 7
    try bench.store([Self.root + 0x1000 | open], at: Self.root)
    try bench.store([BenchLayout.pageTables + 0x2000 | open], at: Self.root + 0x1000)
    try flush()
    return Self.root
  }

  /// The guest wrote to its tables: does that, and forgets what followed from the old entry.
  mutating func wrote(_ mmio: Exit.MMIO, tables: UInt64) throws(LabError) {
    work.tableWrites += 1
    let view = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.view(at: GuestAddress(mmio.address), count: UInt64(mmio.width))
    }
    for byte in 0..<mmio.width {
      view.store(UInt8(truncatingIfNeeded: mmio.data >> UInt64(byte * 8)), byte)
    }
    // The last of the guest's four tables has an entry a page; a higher one concerns all of them.
    let first = tables + 0x3000
    let isLeaf = mmio.address >= first && mmio.address < first + UInt64(pages * 8)
    let zapped = isLeaf ? [Int(mmio.address - first) / 8] : Array(0..<pages)
    let before = work.zapped
    for page in zapped where try entry(page) != 0 {
      work.zapped += 1
      try bench.store([0], at: Self.root + 0x3000 + UInt64(page * 8))
    }
    if work.zapped > before { try flush() }
  }

  /// The guest faulted at `address`: fills the shadow's entry if the guest's tables allow the access,
  /// or returns false: the fault is the guest's own.
  mutating func fault(_ address: UInt64, error: UInt64) throws(LabError) -> Bool {
    let isWrite = error & 2 != 0
    let walk = try guestWalk(address)
    guard case .mapped(let physical, GuestMemory.pageSize) = walk.result,
      let leaf = walk.steps.last, !isWrite || walk.isWritable,
      (Self.window..<Self.window + UInt64(pages) << 12).contains(address)
    else {
      work.guestFaults += 1
      return false
    }
    // What the processor would set in the guest's entry (Intel SDM vol 3, "Accessed and Dirty Flags").
    let wasDirty = leaf.entry & Bit.dirty != 0
    let marked = leaf.entry | Bit.accessed | (isWrite ? Bit.dirty : 0)
    try bench.store([marked], at: leaf.address.value)
    // A clean page is mapped for reading alone, so that the first write is seen.
    let mayWrite = walk.isWritable && marked & Bit.dirty != 0
    let page = Int((address - Self.window) >> 12)
    if try entry(page) == 0 { work.fills += 1 } else { work.upgrades += 1 }
    if isWrite && !wasDirty { work.dirtied += 1 }
    let open: UInt64 = 7
    try bench.store([Self.root + 0x2000 | open], at: Self.root + 0x1008)
    try bench.store([Self.root + 0x3000 | open], at: Self.root + 0x2000)
    let frame = physical.value & ~0xFFF
    try bench.store(
      [frame | Bit.present | (mayWrite ? Bit.writable : 0)],
      at: Self.root + 0x3000 + UInt64(page * 8))
    try flush()
    return true
  }

  /// How many entries of the shadow allow what the guest's tables don't.
  func disagreements() throws(LabError) -> Int {
    var count = 0
    for page in 0..<pages {
      let shadow = try entry(page)
      guard shadow & Bit.present != 0 else { continue }
      let walk = try guestWalk(Self.window + UInt64(page) << 12)
      guard case .mapped(let physical, _) = walk.result, physical.value == shadow & ~0xFFF,
        shadow & Bit.writable == 0 || walk.isWritable
      else {
        count += 1
        continue
      }
    }
    return count
  }

  /// The shadow's entry of a page.
  func entry(_ page: Int) throws(LabError) -> UInt64 {
    // The processor sets accessed and dirty bits in it.
    try bench.words(at: Self.root + 0x3000 + UInt64(page * 8), 1)[0] & ~(Bit.accessed | Bit.dirty)
  }

  private func guestWalk(_ address: UInt64) throws(LabError) -> PageWalk {
    var special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
    special.cr3 = guestRoot
    return PageWalk(address, special, bench.memory)
  }
}
