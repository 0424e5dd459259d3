import Memory
import TestSupport
import Testing

@Suite("Views of guest memory", .limited)
struct MemoryViewTests {
  private let memory: GuestMemory
  private let view: MemoryView

  init() throws {
    memory = try GuestMemory(ramSize: 8192)
    view = try memory.view(at: 0xFF8, count: 32)
  }

  @Test func integersAreLittleEndianAtAnyAlignment() {
    for position in 0...8 {
      view.store(0x1122_3344_5566_7788 as UInt64, position)
      #expect(view.load(position, as: UInt64.self) == 0x1122_3344_5566_7788)
      #expect(view.load(position, as: UInt8.self) == 0x88)
      #expect(view.load(position + 1, as: UInt16.self) == 0x6677)
      #expect(view.load(position + 3, as: UInt32.self) == 0x2233_4455)
      #expect(view.load(position + 7, as: UInt8.self) == 0x11)
    }
  }

  @Test func storesTouchNothingElse() throws {
    view.copy(from: [UInt8](repeating: 0xFF, count: 32).span, at: 0)
    view.store(0 as UInt16, 15)
    var expected = [UInt8](repeating: 0xFF, count: 32)
    expected[15] = 0
    expected[16] = 0
    #expect(try memory.read(32, at: 0xFF8) == expected)
    #expect(try memory.read(1, at: 0xFF7) == [0])
    #expect(try memory.read(1, at: 0x1018) == [0])
  }

  @Test func everyByteOfTheViewIsInReach() {
    view.store(0xAB as UInt8, 31)
    #expect(view.load(31, as: UInt8.self) == 0xAB)
    view.store(0x0123 as UInt16, 30)
    #expect(view.load(24, as: UInt64.self) >> 48 == 0x0123)
  }

  @Test func copiesGoBothWays() {
    let bytes = (0..<32).map { UInt8($0) }
    view.copy(from: bytes.span, at: 0)
    var back = [UInt8](repeating: 0, count: 30)
    var span = back.mutableSpan
    view.copy(to: &span, from: 2)
    #expect(back == Array(bytes[2...]))
  }

  @Test func viewsOfOneAddressShareTheirBytes() throws {
    let other = try memory.view(at: 0x1000, count: 8)
    view.store(0x55 as UInt8, 8)
    #expect(other.load(0, as: UInt8.self) == 0x55)
  }

  @Test func viewKeepsTheMemory() throws {
    func makeView() throws -> MemoryView {
      try GuestMemory(ramSize: 4096).view(at: 0, count: 4)
    }
    let view = try makeView()
    view.store(7 as UInt32, 0)
    #expect(view.load(0, as: UInt32.self) == 7)
  }

  @Test func accessOutsideTheViewTraps() async {
    // Exit tests run in a process of their own, which the trap ends.
    await #expect(processExitsWith: .failure) {
      let view = try GuestMemory(ramSize: 4096).view(at: 0, count: 32)
      _ = view.load(25, as: UInt64.self)
    }
    await #expect(processExitsWith: .failure) {
      let view = try GuestMemory(ramSize: 4096).view(at: 0, count: 32)
      view.store(0 as UInt8, -1)
    }
    await #expect(processExitsWith: .failure) {
      let view = try GuestMemory(ramSize: 4096).view(at: 0, count: 4)
      _ = view.load(0, as: UInt64.self)
    }
    await #expect(processExitsWith: .failure) {
      let view = try GuestMemory(ramSize: 4096).view(at: 0, count: 32)
      view.copy(from: [UInt8](repeating: 0, count: 2).span, at: Int.max)
    }
  }
}
