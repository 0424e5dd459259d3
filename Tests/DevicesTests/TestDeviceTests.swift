import Devices
import Synchronization
import TestSupport
import Testing

@Suite(.limited) struct TestDeviceTests {
  private final class FlushLog: Sendable {
    private let pages = Mutex<[UInt64]>([])
    var all: [UInt64] { pages.withLock { $0 } }
    func add(_ page: UInt64) { pages.withLock { $0.append(page) } }
  }

  private let log = FlushLog()
  private let bus: Bus

  init() throws {
    let log = log
    var bus = Bus()
    try bus.add(TestDevice(flush: { log.add($0) }), at: 0xE0, count: TestDevice.portCount)
    try bus.add(TestMemory(), at: 0xFF00_0000, count: TestMemory.size)
    self.bus = bus
  }

  @Test(arguments: [(1, 0x78 as UInt64), (2, 0x5678), (4, 0x1234_5678)])
  func `the latch keeps each width`(width: Int, value: UInt64) {
    bus.write(0xE0, width: width, value: value)
    #expect(bus.read(0xE0, width: width) == value)
    #expect(bus.read(0xE0, width: 4) == value)
  }

  @Test func `its bytes are at ports of their own, and a second time`() {
    bus.write(0xE0, width: 4, value: 0x1234_5678)
    bus.write(0xE1, width: 1, value: 0xAB)
    #expect(bus.read(0xE0, width: 4) == 0x1234_AB78)
    #expect(bus.read(0xE2, width: 2) == 0x1234)
    #expect((0xE8..<0xEC).map { bus.read($0, width: 1) } == [0x78, 0xAB, 0x34, 0x12])
    bus.write(0xE8, width: 2, value: 0xCDEF)
    #expect(bus.read(0xE0, width: 4) == 0x1234_CDEF)
    #expect(bus.read(0xE8, width: 4) == 0x1234_CDEF)
  }

  @Test func `32 bits at 0xE4 flush the page of an address`() {
    bus.write(0xE4, width: 4, value: 0x0012_3456)
    bus.write(0xE4, width: 2, value: 0x1000)
    bus.write(0xE6, width: 1, value: 0x10)
    #expect(log.all == [0x0012_3000])
    #expect(bus.read(0xE4, width: 4) == 0xFFFF_FFFF)
    #expect(bus.read(0xE0, width: 4) == 0)
  }

  @Test func `each interrupt port sets its line`() throws {
    let lines = (0..<24).map { _ in RecordingLine() }
    var bus = Bus()
    try bus.add(TestInterruptPorts(lines: lines), at: 0x2000, count: 24)
    bus.write(0x2017, width: 1, value: 2)
    bus.write(0x2000, width: 1, value: 1)
    bus.write(0x2000, width: 1, value: 0)
    bus.write(0x2004, width: 4, value: 0xFFFF_FFFF)
    #expect(lines[23].levels == [true])
    #expect(lines[0].levels == [true, false])
    #expect(lines[1..<23].allSatisfy { $0.levels.isEmpty })
  }

  @Test func `the memory keeps what is written in any width`() {
    bus.write(0xFF00_0000, width: 8, value: 0x0123_4567_89AB_CDEF)
    bus.write(0xFF00_FFFF, width: 1, value: 0x5A)
    #expect(bus.read(0xFF00_0000, width: 4) == 0x89AB_CDEF)
    #expect(bus.read(0xFF00_0003, width: 2) == 0x6789)
    #expect(bus.read(0xFF00_FFFF, width: 1) == 0x5A)
    #expect(bus.read(0xFF00_FFFE, width: 2) == 0x5A00)
    // The byte behind the last is nobody's.
    #expect(bus.read(0xFF00_FFFF, width: 2) == 0xFF5A)
  }
}
