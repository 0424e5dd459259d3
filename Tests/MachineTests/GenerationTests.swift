import Boot
import Devices
import Memory
import TestSupport
import Testing

@testable import Machine

/// The generation ID, by which a guest sees that its machine was forked.
@Suite("A machine's generation", .needsKVM, .limited)
struct GenerationTests {
  private let page = Layout.generation

  private func setup(_ console: (any ByteSink)? = nil) -> Setup {
    var setup = Setup(generationGuest, console: console)
    setup.memorySize = 4 << 20
    return setup
  }

  /// One that was taken out while its guest waited, and its memory.
  private func saved() throws -> (SavedMachine, GuestMemory) {
    let console = WaitingSink()
    let machine = try setup(console).makeMachine()
    let mover = try Mover(machine.commands, after: 0) { _ = console.wait(forBytes: 1) }
    _ = machine.run()
    return (try #require(try mover.result()), machine.memory)
  }

  @Test(
    "is another at the first instruction of each that goes on from a copy, and no guest's to change"
  )
  func forks() throws {
    let (saved, memory) = try saved()
    var generations = [try memory.read(GenerationID.size, at: page)]
    for _ in 0..<2 {
      let console = ConsoleBuffer()
      let setup = setup(console)
      let copy = try SavedMemory(copying: memory)
      let outcome = try Machine(restoring: saved, .copied(copy), setup.resources, setup.options)
        .run()
      #expect(outcome.kind == "halted")
      #expect(console.bytes.count == GenerationID.size + 1 && console.bytes.last == 0)
      generations.append(Array(console.bytes.prefix(GenerationID.size)))
    }
    #expect(Set(generations).count == 3, "\(generations)")
    #expect(generations.allSatisfy { $0.contains { $0 != 0 } })
  }

  @Test("stays the same where it is moved, and after a reset")
  func stays() throws {
    let (saved, memory) = try saved()
    let before = try memory.read(GenerationID.size, at: page)
    let setup = setup()
    let machine = try Machine(restoring: saved, .moved(memory), setup.resources, setup.options)
    let bus = machine.inventory.ports
    #expect(bus.read(UInt64(Layout.generalPurposeEvents.start), width: 2) == 0)
    try machine.reset()
    #expect(try machine.memory.read(GenerationID.size, at: page) == before)
  }

  @Test("is drawn anew for each that starts, and is there only for guests that are told of it")
  func starts() throws {
    let ids = try (0..<2).map { _ in
      try setup().makeMachine().memory.read(GenerationID.size, at: page)
    }
    #expect(ids[0] != ids[1])
    let flat = try Setup(TestGuest.halt, mode: .real).makeMachine()
    #expect(flat.inventory.generation == nil)
    #expect(flat.inventory.ports.read(0x60C, width: 4) == 0xFFFF_FFFF)
  }

  @Test("isn't there in one that was saved without it, which goes on")
  func older() throws {
    let (saved, memory) = try saved()
    let older = SavedMachine(sections: saved.sections.filter { $0.name != "device/events" })
    let before = try #require(GuestMemory(regions: memory.regions.filter { $0.kind == .ram }))
    let setup = setup()
    let machine = try Machine(restoring: older, .moved(before), setup.resources, setup.options)
    #expect(machine.inventory.generation == nil && machine.inventory["events"] == nil)
    #expect(machine.memoryMap.slot(at: page) == nil)
  }
}
