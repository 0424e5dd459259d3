import Devices
import TestSupport
import Testing

@Suite("IDE commands", .limited)
struct IDECommandTests {
  @Test("IDENTIFY DEVICE: model, serial number, sizes, modes, and a sum of zero")
  func identify() throws {
    let rig = try IDERig([MemoryStore(sectors: 4000)], serials: ["SN 0123"])
    let words = rig.identify()
    func text(_ range: Range<Int>) -> String {
      let bytes = words[range].flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
      return String(decoding: bytes, as: UTF8.self)
    }
    #expect(words[0] == 0x0040)
    #expect(text(10..<20) == "SN 0123".padding(20))
    #expect(text(23..<27) == "1.0".padding(8))
    #expect(text(27..<47) == "kvmlite disk".padding(40))
    #expect([words[1], words[3], words[6]] == [3, 16, 63])
    #expect(words[60] == 4000 && words[61] == 0)
    #expect(words[100...103] == [4000, 0, 0, 0])
    #expect(words[49] & 0x0300 == 0x0300)  // DMA, LBA
    #expect(words[63] == 0x0007 && words[88] == 0x003F)
    #expect(words[83] & 0xF400 == 0x7400)  // FLUSH CACHE (EXT), LBA48
    let sum = words.reduce(0) { ($0 + Int($1 & 0xFF) + Int($1 >> 8)) & 0xFF }
    #expect(sum == 0 && words[255] & 0xFF == 0xA5)
    #expect(rig.alternateStatus == IDEStatus.idle)
  }

  @Test("words 60 and 61 stop at the most that 28 bits reach; words 100 to 103 don't")
  func large() throws {
    let store = HugeStore(sectors: 1 << 33)
    let controller = try IDERig.controller(store)
    defer { controller.stop() }
    let block = controller.commandBlocks[0]
    block.put(0xEC, 7)
    let words = (0..<256).map { _ in UInt16(truncatingIfNeeded: block.read(offset: 0, width: 2)) }
    #expect(words[1] == 16383)
    #expect(words[60...61] == [0xFFFF, 0x0FFF])
    #expect(words[100...103] == [0, 0, 2, 0])
  }

  @Test(
    "unknown commands, packets, SMART and NOP are aborted",
    arguments: [
      0xA1, 0xA0, 0xB0, 0x00, 0x08, 0xF9, 0x60, 0xFF, 0x87,
    ] as [UInt64])
  func abort(code: UInt64) throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.run(code) == IDEStatus.failed)
    #expect(rig.read(IDERig.error) == 4)
    #expect(rig.line.edges == 1)
    // The next command is none the worse for it.
    #expect(rig.run(0x10) == IDEStatus.idle)
    #expect(rig.read(IDERig.error) == 0)
  }

  @Test("READ SECTORS: a block for each sector, each with an interrupt, none after the last")
  func readSectors() throws {
    let rig = try IDERig(sectors: 128)
    rig.start(0x20, lba: 3, count: 3)
    for sector in 3..<6 {
      #expect(rig.settle() == IDEStatus.data)
      #expect(rig.take(512) == rig.store.sector(sector))
    }
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.line.edges == 3)
    #expect(rig.read(IDERig.data, 2) == 0)
  }

  @Test("a count of 0 is 256 sectors, more than fit into the buffer")
  func readMost() throws {
    let rig = try IDERig(sectors: 300)
    rig.start(0x20, lba: 44, count: 0)
    for sector in 44..<300 {
      rig.settle()
      let bytes = rig.take(512, width: 4)
      if bytes != rig.store.sector(sector) { Issue.record("sector \(sector)") }
    }
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.line.edges == 256)
  }

  @Test("READ SECTORS EXT takes 48 bits of address and 16 of count")
  func readExt() throws {
    let rig = try IDERig(sectors: 600)
    rig.start(0x24, lba: 10, count: 0x0102, isExt: true)
    for sector in 10..<268 {
      rig.settle()
      if rig.take(512) != rig.store.sector(sector) { Issue.record("sector \(sector)") }
    }
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.fails(0x24, lba: 1 << 32, isExt: true))
    #expect(rig.read(IDERig.error) == 0x10)
    #expect(rig.address(isExt: true) == 0x1_0000_0000)
  }

  @Test("WRITE SECTORS: no interrupt asks for the first block; all is there at the last's")
  func writeSectors() throws {
    let rig = try IDERig(sectors: 128)
    rig.start(0x30, lba: 7, count: 2)
    #expect(rig.alternateStatus == IDEStatus.data)
    #expect(rig.line.edges == 0)
    rig.give([UInt8](repeating: 0xA1, count: 512))
    #expect(rig.settle() == IDEStatus.data)
    rig.give([UInt8](repeating: 0xA2, count: 512))
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.store.sector(7) == [UInt8](repeating: 0xA1, count: 512))
    #expect(rig.store.sector(8) == [UInt8](repeating: 0xA2, count: 512))
    #expect(rig.store.sector(9) == [UInt8](repeating: 10, count: 512))
    #expect(rig.line.edges == 2)
    #expect(rig.store.flushes == 0)
  }

  @Test("READ and WRITE MULTIPLE move as many sectors in a block as SET MULTIPLE MODE says")
  func multiple() throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.fails(0xC4))  // not before it is set
    #expect(rig.fails(0xC6, count: 3))
    #expect(rig.fails(0xC6, count: 32))
    #expect(rig.run(0xC6, count: 4) == IDEStatus.idle)
    #expect(rig.identify()[59] == 0x0104)
    let before = rig.line.edges
    rig.run(0xC4, lba: 0, count: 6)
    #expect(rig.take(2048) == rig.store.sectors(0..<4))
    rig.settle()
    #expect(rig.take(1024) == rig.store.sectors(4..<6))
    #expect(rig.alternateStatus == IDEStatus.idle)
    #expect(rig.line.edges == before + 2)
    let data = (0..<5 * 512).map { UInt8(truncatingIfNeeded: $0 / 7) }
    rig.start(0xC5, lba: 100, count: 5)
    rig.give(Array(data[..<2048]))
    rig.settle()
    rig.give(Array(data[2048...]))
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.store.sectors(100..<105) == data)
    rig.start(0x29, lba: 100, count: 1, isExt: true)
    rig.settle()
    #expect(rig.take(512) == Array(data[..<512]))
    rig.start(0x39, lba: 1, count: 1, isExt: true)
    rig.give([UInt8](repeating: 9, count: 512))
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.store.sector(1)[0] == 9)
    #expect(rig.run(0xC6, count: 0) == IDEStatus.idle)
    #expect(rig.fails(0xC4))
  }

  @Test(
    "beyond the end: IDNF with the first sector that isn't there, and nothing is moved",
    arguments: [0x20, 0x30, 0xC8, 0xCA, 0x40, 0x70] as [UInt64])
  func beyond(code: UInt64) throws {
    let rig = try IDERig(sectors: 128)
    if code != 0x70 {
      #expect(rig.run(code, lba: 120, count: 9) == IDEStatus.failed)
      #expect(rig.read(IDERig.error) == 0x10)
      #expect(rig.address() == 128)
    }
    #expect(rig.fails(code, lba: 0x0FFF_FFFF))
    #expect(rig.read(IDERig.error) == 0x10)
    #expect(rig.address() == 0x0FFF_FFFF)
    #expect(rig.run(code == 0x70 ? code : 0x40, lba: 127) == IDEStatus.idle)
  }

  @Test("CHS: sectors count from 1; what isn't there is IDNF; the translation can be changed")
  func chs() throws {
    let rig = try IDERig(sectors: 4000)
    func read(_ cylinder: UInt64, _ head: UInt64, _ sector: UInt64) -> [UInt8]? {
      rig.write(IDERig.device, 0xA0 | head)
      rig.write(IDERig.count, 1)
      rig.write(IDERig.low, sector)
      rig.write(IDERig.mid, cylinder & 0xFF)
      rig.write(IDERig.high, cylinder >> 8)
      rig.write(IDERig.command, 0x20)
      guard rig.settle() & 1 == 0 else {
        #expect(rig.read(IDERig.error) == 0x10)
        return nil
      }
      return rig.take(512)
    }
    #expect(read(0, 0, 1) == rig.store.sector(0))
    #expect(read(1, 2, 3) == rig.store.sector(1136))
    #expect(read(0, 0, 0) == nil)
    #expect(read(0, 0, 64) == nil)
    #expect(read(3, 15, 63) == nil)
    rig.write(IDERig.device, 0xA3)
    rig.write(IDERig.count, 10)
    rig.write(IDERig.command, 0x91)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(read(1, 2, 3) == rig.store.sector(62))
    #expect(read(0, 4, 1) == nil)
    let words = rig.identify()
    #expect(words[54...56] == [100, 4, 10])
    rig.write(IDERig.count, 0)
    rig.write(IDERig.command, 0x91)
    #expect(rig.settle() == IDEStatus.failed)
  }

  @Test("a bad sector: what comes before it is read, then UNC with its address")
  func unreadable() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.spoil(12)
    rig.start(0x20, lba: 10, count: 4)
    for sector in 10..<12 {
      #expect(rig.settle() == IDEStatus.data)
      #expect(rig.take(512) == rig.store.sector(sector))
    }
    #expect(rig.settle() == IDEStatus.failed)
    #expect(rig.read(IDERig.error) == 0x40)
    #expect(rig.address() == 12)
    #expect(rig.fails(0x42, lba: 0, count: 100, isExt: true))
    #expect(rig.address(isExt: true) == 12)
    #expect(rig.run(0x40, lba: 13, count: 100) == IDEStatus.idle)
  }

  @Test("a sector that can't be written: ABRT with its address, and those before it are there")
  func unwritable() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.spoil(12)
    rig.start(0x30, lba: 10, count: 3)
    for _ in 0..<3 {
      rig.give([UInt8](repeating: 0xBB, count: 512))
      rig.settle()
    }
    #expect(rig.alternateStatus == IDEStatus.failed)
    #expect(rig.read(IDERig.error) == 4)
    #expect(rig.address() == 12)
    #expect(rig.store.sector(11)[0] == 0xBB)
    #expect(rig.store.sector(12)[0] == 13)
  }

  @Test(
    "a read-only disk refuses writes with WP, and tells of no TRIM",
    arguments: [
      0x30, 0x34, 0x35, 0xCA,
    ] as [UInt64])
  func writeProtected(code: UInt64) throws {
    let rig = try IDERig(sectors: 128, isReadOnly: true)
    #expect(rig.run(code) == IDEStatus.failed)
    #expect(rig.read(IDERig.error) == 0x44)
    #expect(rig.identify()[169] == 0)
    #expect(rig.run(0x20) == IDEStatus.data)
  }

  @Test("FLUSH CACHE flushes; a flush that fails is ABRT")
  func flush() throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.run(0xE7) == IDEStatus.idle)
    #expect(rig.run(0xEA) == IDEStatus.idle)
    #expect(rig.store.flushes == 2)
    rig.store.failFlushes()
    #expect(rig.fails(0xE7))
    #expect(rig.read(IDERig.error) == 4)
  }

  @Test("SET FEATURES: without the write cache each write is flushed; modes show in IDENTIFY")
  func features() throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.identify()[85] & 0x20 != 0)
    #expect(rig.run(0xEF, features: 0x82) == IDEStatus.idle)
    #expect(rig.identify()[85] & 0x20 == 0)
    let before = rig.store.flushes
    rig.start(0x30, lba: 0)
    rig.give([UInt8](repeating: 1, count: 512))
    rig.settle()
    #expect(rig.store.flushes == before + 1)
    #expect(rig.run(0xEF, features: 0x02) == IDEStatus.idle)
    #expect(rig.identify()[85] & 0x20 != 0)
    #expect(rig.run(0xEF, count: 0x22, features: 0x03) == IDEStatus.idle)
    #expect(rig.identify()[63] == 0x0407)
    #expect(rig.run(0xEF, count: 0x45, features: 0x03) == IDEStatus.idle)
    let words = rig.identify()
    #expect(words[63] == 0x0007 && words[88] == 0x203F)
    #expect(rig.fails(0xEF, count: 0x46, features: 0x03))
    #expect(rig.fails(0xEF, features: 0x55))
  }

  @Test("READ NATIVE MAX ADDRESS (EXT) gives the last sector")
  func nativeMax() throws {
    let rig = try IDERig(sectors: 128)
    #expect(rig.run(0xF8) == IDEStatus.idle)
    #expect(rig.address() == 127)
    #expect(rig.run(0x27, isExt: true) == IDEStatus.idle)
    #expect(rig.address(isExt: true) == 127)
  }

  @Test("power: CHECK POWER MODE tells which; a sleeping drive hears a reset alone")
  func power() throws {
    let rig = try IDERig(sectors: 128)
    func mode() -> UInt64 {
      rig.run(0xE5)
      return rig.read(IDERig.count)
    }
    #expect(mode() == 0xFF)
    rig.run(0xE1)
    #expect(mode() == 0x80)
    rig.run(0xE0)
    #expect(mode() == 0)
    rig.run(0x20)
    _ = rig.take(512)
    #expect(mode() == 0xFF)
    rig.run(0xE6)
    rig.start(0x10)
    #expect(!rig.line.isRaised)
    rig.write(IDERig.control, 4)
    rig.write(IDERig.control, 0)
    #expect(rig.run(0x10) == IDEStatus.idle)
  }

  @Test("a slave has registers and contents of its own")
  func slave() throws {
    let rig = try IDERig([MemoryStore(sectors: 128), MemoryStore(sectors: 64)])
    rig.start(0x30, lba: 1, drive: 1)
    rig.give([UInt8](repeating: 0xCC, count: 512))
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.stores[1].sector(1)[0] == 0xCC)
    #expect(rig.stores[0].sector(1)[0] == 2)
    #expect(rig.fails(0x20, lba: 64, drive: 1))
    #expect(!rig.fails(0x20, lba: 64, drive: 0))
    #expect(rig.identify(drive: 1)[60] == 64)
    #expect(rig.controller.statistics.map { $0.rings[0].statistics.bytesWritten } == [0, 512])
  }

  @Test("repeated accesses of the data port are one call, as many words as they say")
  func repeated() throws {
    for width in [2, 4] {
      let rig = try IDERig(sectors: 128)
      rig.run(0x20, lba: 9)
      var bytes = [UInt8](repeating: 0, count: 512)
      var span = bytes.mutableSpan
      rig.ports.read(IDERig.data, width: width, into: &span)
      #expect(bytes == rig.store.sector(9))
      rig.start(0x30, lba: 4)
      rig.ports.write(IDERig.data, width: width, bytes: bytes.span)
      #expect(rig.settle() == IDEStatus.idle)
      #expect(rig.store.sector(4) == bytes)
      #expect(rig.controller.statistics[0]["data_port_accesses"] == UInt64(1024 / width))
    }
  }
}

extension String {
  fileprivate func padding(_ count: Int) -> String {
    self + String(repeating: " ", count: count - utf8.count)
  }
}
