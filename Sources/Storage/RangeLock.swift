/// Which clusters of a disk somebody is at work on: shared by those who leave their place in the file
/// as it is, alone for whoever changes it.
///
/// It is a plain value; whoever has to wait does so outside. All that a request covers is asked for
/// at once, so nobody waits for anybody who waits.
struct RangeLock {
  private struct Holder {
    var range: ClosedRange<UInt64>
    var isExclusive: Bool
    var ticket: UInt64
  }

  private var holders: [Holder] = []
  private var nextTicket: UInt64 = 0
  // How many threads wait to be let in, so that nobody is woken in vain.
  var waiting = 0

  /// Enters `range`; nil if somebody is in the way.
  mutating func enter(_ range: ClosedRange<UInt64>, exclusive: Bool) -> UInt64? {
    for holder in holders
    where (exclusive || holder.isExclusive) && holder.range.overlaps(range) { return nil }
    nextTicket &+= 1
    holders.append(Holder(range: range, isExclusive: exclusive, ticket: nextTicket))
    return nextTicket
  }

  /// Leaves what `enter` gave `ticket` for.
  mutating func leave(_ ticket: UInt64) {
    for index in holders.indices where holders[index].ticket == ticket {
      holders.swapAt(index, holders.count - 1)
      holders.removeLast()
      return
    }
  }
}
