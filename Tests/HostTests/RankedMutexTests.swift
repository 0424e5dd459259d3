import Host
import TestSupport
import Testing

/// The order of locks, which debug builds hold to.
@Suite("Locks with ranks", .limited)
struct RankedMutexTests {
  private static func nest(_ outer: LockRank, _ inner: LockRank) -> Int {
    let first = RankedMutex(outer, 1)
    let second = RankedMutex(inner, 2)
    return first.withLock { one in second.withLock { one + $0 } }
  }

  @Test("are taken in their order, again and again")
  func order() {
    for rank in LockRank.allCases {
      for later in LockRank.allCases where later.rawValue > rank.rawValue {
        #expect(Self.nest(rank, later) == 3)
      }
    }
    HeldLocks.mayWait()
  }

  #if DEBUG
    @Test("trap in the wrong order, and two of one rank do")
    func disorder() async {
      await #expect(processExitsWith: .failure) { _ = Self.nest(.pin, .registers) }
      await #expect(processExitsWith: .failure) { _ = Self.nest(.kvm, .kvm) }
    }

    @Test("trap where one is held and its thread would wait for others")
    func waiting() async {
      await #expect(processExitsWith: .failure) {
        RankedMutex(.registers, 0).withLock { _ in
          let event = Guarded(0)
          _ = event.waits(until: 0) { _ in false }
        }
      }
    }
  #endif
}
