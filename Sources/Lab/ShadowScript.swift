/// Orders for the kernel of guest-asm/lab/shadow.S, random but the same each time, with what each must
/// give: made by a model of memory that knows nothing of page tables' formats.
struct ShadowScript {
  /// An order; the numbers are the guest's.
  enum Order: UInt64 { case end, store, flush, read, write, root }

  /// What the guest leaves where it faulted.
  static let faulted = UInt64.max
  /// Where the frames are that pages are mapped to.
  static let frames: UInt64 = 0x50_0000

  /// The words of all orders.
  private(set) var words: [UInt64] = []
  /// For each order, what its result must be; nil where it has none.
  private(set) var expected: [UInt64?] = []
  /// How many orders of a kind there are.
  private(set) var maps = 0
  private(set) var unmaps = 0
  private(set) var protects = 0
  private(set) var reads = 0
  private(set) var writes = 0
  private(set) var faults = 0
  private(set) var stores = 0

  private var mapped: [(frame: Int, isWritable: Bool)?]
  private var contents: [UInt64]
  private var random: RandomNumbers
  private let tables: UInt64
  private let pages: Int

  /// Makes `count` orders for a kernel whose four tables are at `tables` and map `pages` pages.
  init(count: Int, pages: Int, _ random: RandomNumbers, tables: UInt64) {
    self.tables = tables
    self.pages = pages
    self.random = random
    mapped = Array(repeating: nil, count: pages)
    contents = (0..<pages).map(Self.value)
    let open: UInt64 = 7
    add(.store, tables + 0x1008, tables + 0x2000 | open)
    add(.store, tables + 0x2000, tables + 0x3000 | open)
    add(.root, tables, 0)
    for step in 0..<count {
      if step % 100 == 99 { add(.root, tables, 0) }
      addStep()
    }
    add(.end, 0, 0)
  }

  /// What frame `index` holds at first.
  static func value(_ index: Int) -> UInt64 { 0xF00D_0000 + UInt64(index) }

  private mutating func addStep() {
    let page = Int(random.next() % UInt64(pages))
    let linear = ShadowPager.window + UInt64(page) << 12
    switch random.next() % 10 {
    case 0, 1, 2:
      maps += 1
      let frame = Int(random.next() % UInt64(pages))
      change(page, linear, (frame, random.next() % 2 == 0))
    case 3:
      unmaps += 1
      change(page, linear, nil)
    case 4:
      guard let old = mapped[page] else { return }
      protects += 1
      change(page, linear, (old.frame, !old.isWritable))
    case 5, 6, 7:
      reads += 1
      let result = mapped[page].map { contents[$0.frame] } ?? Self.faulted
      if result == Self.faulted { faults += 1 }
      add(.read, linear, 0, result)
    default:
      writes += 1
      let value = random.next() >> 1
      let isAllowed = mapped[page]?.isWritable == true
      if isAllowed, let frame = mapped[page]?.frame { contents[frame] = value } else { faults += 1 }
      add(.write, linear, value, isAllowed ? 0 : Self.faulted)
    }
  }

  private mutating func change(
    _ page: Int, _ linear: UInt64, _ new: (frame: Int, isWritable: Bool)?
  ) {
    mapped[page] = new
    let entry = new.map { Self.frames + UInt64($0.frame) << 12 | 1 | ($0.isWritable ? 2 : 0) } ?? 0
    add(.store, tables + 0x3000 + UInt64(page * 8), entry)
    add(.flush, linear, 0)
  }

  private mutating func add(
    _ order: Order, _ address: UInt64, _ value: UInt64, _ result: UInt64? = nil
  ) {
    if order == .store { stores += 1 }
    words += [order.rawValue, address, value, 0]
    expected.append(result)
  }
}
