import Memory
import TestSupport
import Testing

@Suite("Guest addresses", .limited)
struct GuestAddressTests {
  @Test func advancingStopsAtTheEnd() {
    #expect(GuestAddress(0xFFF).advanced(by: 1) == 0x1000)
    #expect(GuestAddress(UInt64.max).advanced(by: 0) == GuestAddress(UInt64.max))
    #expect(GuestAddress(UInt64.max).advanced(by: 1) == nil)
    #expect(GuestAddress(2).advanced(by: UInt64.max) == nil)
  }

  @Test func orderAndWordsAreThoseOfTheNumber() {
    #expect(GuestAddress(9) < GuestAddress(10))
    #expect(GuestAddress(0x10000).description == "0x10000")
  }
}
