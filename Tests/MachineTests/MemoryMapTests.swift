import Devices
import Host
import KVM
import Machine
import Memory
import Synchronization
import TestSupport
import Testing

@Suite("The memory map", .needsKVM, .limited)
struct MemoryMapTests {
  /// Keeps what it hears; refuses what is at `refused`.
  private final class Listener: MemoryListener {
    let heard = Mutex<[String]>([])
    let refused: UInt64?

    init(refusing refused: UInt64? = nil) { self.refused = refused }

    func slotAdded(_ slot: MemoryMap.Slot) throws(MemoryMapError) {
      guard slot.addresses.lowerBound != refused else { throw .refused("no") }
      heard.withLock { $0.append("+\(slot.number) \(GuestAddress(slot.addresses.lowerBound))") }
    }

    func slotRemoved(_ slot: MemoryMap.Slot) { heard.withLock { $0.append("-\(slot.number)") } }
  }

  /// Reads the byte at 0xD0000000 and writes it to port 0xE9, for ever.
  private static let reader: [UInt8] = [
    0xA0, 0x00, 0x00, 0x00, 0xD0,  // 00: mov al,ds:0xd0000000
    0xE6, 0xE9,  //                   05: out 0xe9,al
    0xEB, 0xF7,  //                   07: jmp 0x0
  ]

  private func region(at start: GuestAddress, of byte: UInt8) throws -> GuestMemory.Region {
    let memory = try GuestMemory(ramSize: 4096)
    try memory.write([byte].span, at: 0)
    return GuestMemory.Region(start: start, kind: .ram, mapping: memory.regions[0].mapping)
  }

  @Test("names the slot that the guest has, with a hole in its memory too")
  func hole() throws {
    var setup = Setup(TestGuest.halt, mode: .real)
    #expect(try setup.makeMachine().memoryMap.slot(at: 0x10_0000)?.number == 0)
    setup.add(.testDevice)
    let map = try setup.makeMachine().memoryMap
    #expect(map.slots.map(\.addresses) == [0..<0xA_0000, 0xC_0000..<128 << 20])
    #expect(map.slot(at: 0x9_FFFF)?.number == 0)
    #expect(map.slot(at: 0xA_0000) == nil && map.slot(at: 0xB_FFFF) == nil)
    #expect(map.slot(at: 0x10_0000)?.number == 1)
    #expect(map.slot(at: 0xC000_0000) == nil)
  }

  @Test("gives memory to a guest that stands still, and takes it away")
  func addAndRemove() throws {
    let console = WaitingSink()
    var setup = Setup(Self.reader, mode: .protected, console: console)
    setup.memorySize = 1 << 20
    let machine = try setup.makeMachine()
    let (commands, control) = (machine.commands, machine.control)
    let added = try region(at: 0xD000_0000, of: 0x41)
    let failures = Mutex<[String]>([])
    let tester = try HostThread.start(name: "tester") {
      func prints(_ byte: UInt8) {
        if !console.wait(forByte: byte) { failures.withLock { $0.append("no \(byte)") } }
      }
      func whileStill(_ body: @escaping @Sendable (MemoryMap) throws -> Void) {
        commands.send(
          .inspect { machine in
            do { try body(machine.memoryMap) } catch { failures.withLock { $0.append("\(error)") } }
          })
      }
      prints(0xFF)
      whileStill { map in _ = try map.add(added) }
      prints(0x41)
      console.forget()
      whileStill { map in map.slot(at: 0xD000_0000).map { map.remove(slot: $0.number) } }
      prints(0xFF)
      control.stop(.user)
    }
    #expect(machine.run().kind == "stopped")
    tester.join()
    #expect(failures.withLock { $0 } == [])
    #expect(machine.memoryMap.slots.count == 1)
  }

  @Test("tells its listeners of what there is, comes and goes, and undoes what one refuses")
  func listeners() throws {
    var setup = Setup(TestGuest.halt, mode: .real)
    setup.memorySize = 1 << 20
    let map = try setup.makeMachine().memoryMap
    let (first, second) = (Listener(), Listener(refusing: 0xD100_0000))
    try map.add(first)
    try map.add(second)
    let slot = try map.add(region(at: 0xD000_0000, of: 1))
    #expect(slot.number == 1)
    #expect(throws: MemoryMapError.overlap) { try map.add(region(at: 0xD000_0000, of: 1)) }
    #expect(throws: MemoryMapError.overlap) { try map.add(region(at: 0xFFFFF, of: 1)) }
    #expect(throws: MemoryMapError.refused("no")) { try map.add(region(at: 0xD100_0000, of: 1)) }
    map.remove(slot: 1)
    map.remove(slot: 1)
    #expect(try map.add(region(at: 0xD200_0000, of: 1)).number == 1)
    #expect(
      first.heard.withLock { $0 } == [
        "+0 0x0", "+1 0xd0000000", "+2 0xd1000000", "-2", "-1", "+1 0xd2000000",
      ])
    #expect(
      second.heard.withLock { $0 } == ["+0 0x0", "+1 0xd0000000", "-1", "+1 0xd2000000"])
  }

  @Test("knows which pages the guest has written since it was asked last")
  func dirtyPages() throws {
    // Real mode, DS = 0x1000: writes to 0x15000 and 0x18000, and says so.
    let guest: [UInt8] = [
      0xA2, 0x00, 0x50,  // 00: mov ds:0x5000,al
      0xA2, 0x00, 0x80,  // 03: mov ds:0x8000,al
      0xE6, 0xE9,  //       06: out 0xe9,al
      0xFA,  //             08: cli
      0xF4,  //             09: hlt
    ]
    var setup = Setup(guest, mode: .real)
    setup.memorySize = 1 << 20
    let machine = try setup.makeMachine()
    try machine.memoryMap.setDirtyLogging(true)
    #expect(machine.run().kind == "halted")
    let pages = Set(try #require(try machine.memoryMap.takeDirtyPages()))
    #expect(pages.isSuperset(of: [0x1_5000, 0x1_8000]))
    #expect(pages.count < 16)
    #expect(try machine.memoryMap.takeDirtyPages() == [])
    try machine.memoryMap.setDirtyLogging(false)
    #expect(try machine.memoryMap.takeDirtyPages() == [])
  }
}
