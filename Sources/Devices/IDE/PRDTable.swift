import Memory

/// A bus master's table of physical regions, as far as a transfer needs it ("Programming Interface
/// for Bus Master IDE Controller", revision 1.0, 1.2).
///
/// It is in guest memory and may say anything.
struct PRDTable {
  /// How far the bus master came.
  enum End {
    /// The last region that was used is not the table's last, or has room left.
    case hasMore
    /// The table's last region is used up.
    case exhausted
    /// The table, or a region, is where there is no memory.
    case fault
  }

  /// The memory of the regions, one after the other: no more than was asked for.
  private(set) var segments: [MemoryView] = []
  private(set) var end = End.hasMore

  /// Reads entries from `address` on until they have `byteCount` bytes, or end.
  init(at address: UInt32, in memory: GuestMemory, byteCount: Int, isToMemory: Bool) {
    var entry = address
    var total = 0
    while total < byteCount {
      guard let view = try? memory.view(at: GuestAddress(UInt64(entry)), count: 8) else {
        end = .fault
        return
      }
      let base = view.load(0, as: UInt32.self) & ~1
      let word = view.load(4, as: UInt32.self)
      // Zero means 64 KiB; bit 0 is none of the count.
      let size = word & 0xFFFE == 0 ? 0x10000 : Int(word & 0xFFFE)
      let used = min(size, byteCount - total)
      guard let region = Self.region(memory, base, used, isToMemory) else {
        end = .fault
        return
      }
      segments.append(region)
      total += used
      guard used == size else { return }
      if word & 0x8000_0000 != 0 {
        end = .exhausted
        return
      }
      guard entry & 0xFFFF < 0xFFF8 else {
        // A table doesn't cross 64 KiB: this one has lost its end. There is nothing after it.
        end = total < byteCount ? .fault : .hasMore
        return
      }
      entry += 8
    }
  }

  private static func region(
    _ memory: GuestMemory, _ base: UInt32, _ count: Int, _ isToMemory: Bool
  ) -> MemoryView? {
    let start = GuestAddress(UInt64(base))
    return isToMemory
      ? try? memory.writableView(at: start, count: UInt64(count))
      : try? memory.view(at: start, count: UInt64(count))
  }
}
