import Devices
import TestSupport
import Testing

@Suite("IDE registers", .limited)
struct IDERegisterTests {
  @Test("after power-on: ready, with the signature of a disk, and no interrupt")
  func powerOn() throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.signature == [1, 1, 1, 0, 0])
    #expect(rig.line.levels == [])
  }

  @Test("a channel without drives floats, with DD7 pulled down")
  func absentChannel() throws {
    let rig = try IDERig(sectors: 128)
    for port in (0x170...0x177 as ClosedRange<UInt64>) { #expect(rig.read(port) == 0x7F) }
    #expect(rig.read(0x376) == 0x7F)
    #expect(rig.read(0x170, 2) == 0xFF7F)
    rig.write(0x172, 0x55)
    rig.write(0x177, 0xEC)
    #expect(rig.read(0x172) == 0x7F)
    #expect(rig.lines.secondary.levels == [])
  }

  @Test("for a slave that isn't there the master answers: status 0, and its own registers")
  func absentSlave() throws {
    let rig = try IDERig(sectors: 128)
    rig.write(IDERig.device, 0xB0)
    rig.write(IDERig.count, 0x55)
    #expect(rig.read(IDERig.command) == 0)
    #expect(rig.alternateStatus == 0)
    #expect(rig.read(IDERig.count) == 0x55)
    #expect(rig.read(IDERig.device) & 0x10 == 0x10)
    rig.write(IDERig.command, 0xEC)
    #expect(rig.read(IDERig.command) == 0)
    rig.write(IDERig.device, 0xA0)
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.line.levels == [])
  }

  @Test("registers are two deep, and HOB shows what was there before; any write clears HOB")
  func highOrder() throws {
    let rig = try IDERig(sectors: 128)
    for (index, port) in [IDERig.count, IDERig.low, IDERig.mid, IDERig.high].enumerated() {
      rig.write(port, 0x10 + UInt64(index))
      rig.write(port, 0x20 + UInt64(index))
    }
    #expect(rig.read(IDERig.mid) == 0x22)
    rig.write(IDERig.control, 0x80)
    #expect(rig.read(IDERig.count) == 0x10)
    #expect(rig.read(IDERig.high) == 0x13)
    rig.write(IDERig.error, 0)
    #expect(rig.read(IDERig.count) == 0x20)
  }

  @Test("a command interrupts once; Status takes it back, Alternate Status doesn't")
  func interrupt() throws {
    let rig = try IDERig(sectors: 128)
    rig.start(0x10)
    #expect(rig.line.levels == [true])
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.line.isRaised)
    #expect(rig.read(IDERig.command) == IDEStatus.idle)
    #expect(rig.line.levels == [true, false])
  }

  @Test("with nIEN the line stays low, and shows what waits when nIEN is cleared")
  func interruptDisable() throws {
    let rig = try IDERig(sectors: 128)
    rig.write(IDERig.control, 2)
    rig.start(0x10)
    #expect(rig.line.levels == [])
    rig.write(IDERig.control, 0)
    #expect(rig.line.levels == [true])
  }

  @Test("a command takes back an interrupt that nobody looked at, so that its own is an edge")
  func edge() throws {
    let rig = try IDERig(sectors: 128)
    rig.start(0x10)
    rig.start(0x10)
    #expect(rig.line.levels == [true, false, true])
  }

  @Test("only the selected drive's interrupt is on the line")
  func selection() throws {
    let rig = try IDERig([MemoryStore(sectors: 128), MemoryStore(sectors: 64)])
    rig.start(0x10, drive: 1)
    #expect(rig.line.isRaised)
    rig.write(IDERig.device, 0xA0)
    #expect(!rig.line.isRaised)
    rig.write(IDERig.device, 0xB0)
    #expect(rig.line.isRaised)
  }

  @Test("SRST holds both drives busy, and leaves the signature and drive 0 selected")
  func reset() throws {
    let rig = try IDERig([MemoryStore(sectors: 128), MemoryStore(sectors: 64)])
    rig.run(0xC6, count: 8, drive: 1)
    rig.write(IDERig.device, 0xB0)
    rig.write(IDERig.mid, 0x44)
    rig.write(IDERig.control, 4)
    #expect(rig.alternateStatus == IDEStatus.busy)
    rig.write(IDERig.count, 0x77)
    rig.write(IDERig.control, 0)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.signature == [1, 1, 1, 0, 0])
    #expect(rig.read(IDERig.device) == 0)
    // What SET MULTIPLE MODE had set is gone.
    #expect(rig.identify(drive: 1)[59] == 0)
  }

  @Test("SRST while the disk works: BSY until it is done, and nothing comes of the command")
  func resetInFlight() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.hold(true)
    rig.start(0x20)
    rig.write(IDERig.control, 4)
    rig.write(IDERig.control, 0)
    #expect(rig.alternateStatus == IDEStatus.busy)
    rig.store.hold(false)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.read(IDERig.error) == 1)
    #expect(rig.line.levels == [])
  }

  @Test("while the drive works every register reads as Status, and writes are lost")
  func busy() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.hold(true)
    rig.start(0x20, lba: 5)
    rig.write(IDERig.low, 0x66)
    rig.write(IDERig.command, 0xEC)
    #expect(rig.read(IDERig.low) >= 0x80)
    rig.store.hold(false)
    #expect(rig.settle() == IDEStatus.data)
    #expect(rig.take(512) == rig.store.sector(5))
    #expect(rig.read(IDERig.low) == 5)
  }

  @Test("EXECUTE DEVICE DIAGNOSTIC: drive 0 answers for both, whichever is selected")
  func diagnostic() throws {
    let rig = try IDERig(sectors: 128)
    rig.write(IDERig.device, 0xB0)
    rig.write(IDERig.command, 0x90)
    #expect(rig.line.isRaised)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.read(IDERig.error) == 1)
    #expect(rig.read(IDERig.device) == 0)
  }

  @Test("the data port pops a word for a byte, and two for 32 bits")
  func widths() throws {
    let rig = try IDERig(sectors: 128)
    rig.run(0xEC)
    let words = rig.identify()
    rig.run(0xEC)
    #expect(rig.read(IDERig.data, 1) == UInt64(words[0] & 0xFF))
    let double = UInt64(words[1]) | UInt64(words[2]) << 16
    #expect(rig.read(IDERig.data, 4) == double)
    #expect(rig.read(IDERig.data, 2) == UInt64(words[3]))
  }

  @Test("registers beside each other answer accesses that are wider than they are")
  func pieces() throws {
    let rig = try IDERig(sectors: 128)
    rig.write(IDERig.low, 0x3322_11, 4)
    #expect(rig.read(IDERig.low, 2) == 0x2211)
    #expect(rig.read(IDERig.high) == 0x33)
  }
}
