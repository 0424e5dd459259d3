import Devices
import TestSupport
import Testing

@Suite("IDE under a hostile guest", .limited)
struct IDEHostileTests {
  @Test(
    "random accesses to all registers, with tables anywhere, never trap nor hang",
    arguments: [1, 2, 3, 4] as [UInt64])
  func random(seed: UInt64) throws {
    let rig = try IDERig([MemoryStore(sectors: 300), MemoryStore(sectors: 40)])
    rig.store.spoil(17, 200)
    var random = IDEFuzzer(state: seed)
    for _ in 0..<Trials.rounds(20_000) { random.step(rig) }
    rig.stopMaster()
    rig.write(IDERig.control, 6)
    rig.write(IDERig.control, 0)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.identify()[60] == 300)
  }
}

/// What a guest gone mad does, by a seeded generator, so that it can be had again.
private struct IDEFuzzer {
  var state: UInt64

  private mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state >> 33
  }

  private static let codes: [UInt64] = [
    0x20, 0x24, 0x29, 0x30, 0x34, 0x39, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0x25, 0x35, 0x06, 0x40, 0x42,
    0x90, 0x91, 0xE0, 0xE5, 0xE7, 0xEC, 0xEF, 0xF8, 0x27, 0x70, 0x00, 0xA1,
  ]

  mutating func step(_ rig: IDERig) {
    let value = next()
    switch next() % 12 {
    case 0: rig.write(IDERig.command, Self.codes[Int(value) % Self.codes.count])
    case 1: rig.write(IDERig.command, value & 0xFF)
    case 2: rig.write(IDERig.control, value & (value & 0x100 == 0 ? 0x80 : 0x86))
    case 3: rig.write(IDERig.count, value & 0xF)
    case 4: rig.write(IDERig.busMaster + value % 16, next() & 0xFF, 1 << Int(next() % 3))
    case 5: rig.write(IDERig.busMaster, value & 1 | (value & 2) << 2)
    case 6:
      if let view = try? rig.memory.view(at: .init(value & 0xFFFF8), count: 8) {
        view.store(value << 12 ^ next(), 0)
      }
    case 7: rig.write(IDERig.error + value % 6, next() & 0xFF, 1 << Int(next() % 3))
    case 8: _ = rig.read(0x1F0 + value % 8, 1 << Int(next() % 3))
    case 9:
      var bytes = [UInt8](repeating: 0, count: 512)
      var span = bytes.mutableSpan
      rig.ports.read(IDERig.data, width: 1 << Int(value % 3), into: &span)
    case 10:
      let bytes = [UInt8](repeating: UInt8(value & 0xFF), count: 512)
      rig.ports.write(IDERig.data, width: 1 << Int(value % 3), bytes: bytes.span)
    default:
      // A reset lasts until the guest ends it.
      rig.write(IDERig.control, 0)
      rig.settle()
    }
  }
}
