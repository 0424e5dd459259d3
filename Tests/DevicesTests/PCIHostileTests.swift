import Devices
import Synchronization
import TestSupport
import Testing

@Suite(.limited) struct PCIHostileTests {
  private func isInside(_ place: BusAddress, _ size: UInt64) -> Bool {
    let windows = PCITestBus.windows
    let (start, choices): (UInt64, [PCIWindow?]) =
      switch place {
      case .port(let port): (UInt64(port), [windows.ports])
      case .memory(let address): (address, [windows.memory32, windows.memory64])
      }
    return choices.contains { window in
      guard let window else { return false }
      return start >= window.start && start + size <= window.start + window.count
    }
  }

  @Test(arguments: [1 as UInt64, 2, 3])
  func `random configuration never traps, and no range or doorbell leaves its window`(
    seed: UInt64
  ) throws {
    var random = SplitMix(seed)
    let bus = try PCITestBus()
    bus.pci.assign { _ in 10 }
    for (index, device) in bus.devices.enumerated() {
      device.slot.connect(try Doorbell(width: 4), bar: index % 2 * 2, offset: 12)
    }
    var outside = 0
    for _ in 0..<Trials.rounds(30_000) {
      let width = 1 << Int.random(in: 0...3, using: &random)
      // Values like addresses in, at the edge of and outside of the windows, and any.
      let near = [0, 0xC000, 0xFFF0, 0xC000_0000, 0xFDFF_F000, 0xFE00_0000, 0xFFFF_FFFF]
      let value =
        Bool.random(using: &random)
        ? UInt64(near.randomElement(using: &random) ?? 0) : random.next()
      let register = UInt64.random(in: 0..<0x60, using: &random)
      let device = UInt64.random(in: 0..<6, using: &random)
      switch Int.random(in: 0..<6, using: &random) {
      case 0: bus.setConfig(device, register, width: min(width, 4), value)
      case 1:
        bus.mmio.write(
          PCITestBus.ecam + device << 15 + UInt64.random(in: 0..<0x1000, using: &random),
          width: width, value: value)
      case 2: bus.ports.write(0xCF8 + random.next() % 8, width: min(width, 4), value: value)
      case 3:
        for function in bus.functions {
          for case .memory(let address)? in function.places {
            let offset = random.next() % 0x2000
            bus.mmio.write(address &+ offset, width: width, value: value)
            _ = bus.mmio.read(address &+ offset, width: width)
          }
        }
      case 4: bus.ports.write(0xC000 + random.next() % 0x4000, width: min(width, 4), value: value)
      default: bus.setConfig(device, 4, width: 2, 7)
      }
      for function in bus.functions {
        for case (let bar, let place?) in zip(function.bars, function.places)
        where !isInside(place, bar.size) { outside += 1 }
      }
      outside += bus.doorbells.places.count { !isInside($0, 4) }
    }
    #expect(outside == 0)
  }

  /// What two threads share.
  private final class Race: Sendable {
    let bus: PCITestBus
    let isDone = Atomic(false)
    let strange = Atomic(0)

    init(_ bus: PCITestBus) { self.bus = bus }
  }

  @Test func `ranges move under accesses of other processors`() async throws {
    let race = Race(try PCITestBus())
    race.bus.setConfig(2, 4, width: 2, 2)
    race.bus.devices[0].write(offset: 0, width: 4, value: 0x5A5A_5A5A)
    async let moves: Void = {
      for round in 0..<Trials.rounds(20_000) {
        race.bus.functions[0].writeConfiguration(
          0x10, width: 4, value: round % 2 == 0 ? 0xD000_0000 : 0xE000_0000)
      }
      race.isDone.store(true, ordering: .releasing)
    }()
    async let reads: Void = {
      while !race.isDone.load(ordering: .acquiring) {
        let value = race.bus.mmio.read(0xD000_0000, width: 4)
        if value != 0x5A5A_5A5A && value != 0xFFFF_FFFF { race.strange.add(1, ordering: .relaxed) }
      }
    }()
    _ = await (moves, reads)
    #expect(race.strange.load(ordering: .relaxed) == 0)
  }
}
