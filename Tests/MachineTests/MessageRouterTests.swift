import Devices
import Host
import KVM
import TestSupport
import Testing

@testable import Machine

@Suite("Interrupts by message", .needsKVM, .limited)
struct MessageRouterTests {
  private func makeVM() throws -> VM {
    let vm = try System().makeVM()
    try vm.makeIRQChip()
    return vm
  }

  private func isTaken(_ event: SharedEvent) -> Bool {
    event.event.raise()
    return !event.event.isRaised
  }

  @Test("go to the virtual machine that takes another's place")
  func nextMachine() throws {
    let router = KVMMessageRouter()
    let event = try SharedEvent()
    let route = router.makeRoute(for: event)
    route.set(InterruptMessage(address: 0xFEE0_0000, data: 0x41))
    var first: VM? = try makeVM()
    try router.connect(to: #require(first))
    #expect(isTaken(event), "by KVM")

    let second = try makeVM()
    try router.connect(to: second)
    first = nil

    #expect(isTaken(event), "by the next one")
    #expect(first == nil)
  }
}
