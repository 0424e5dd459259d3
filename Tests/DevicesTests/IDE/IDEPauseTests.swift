import Devices
import Synchronization
import TestSupport
import Testing

/// The IDE controller stands still, and its state is moved to another one.
@Suite(.limited) struct IDEPauseTests {
  private func pause(_ rig: IDERig) -> StillFlag {
    let flag = StillFlag()
    rig.controller.pause { flag.set() }
    return flag
  }

  private func wait(_ flag: StillFlag) {
    while !flag.isSet { yieldProcessor() }
  }

  private func saved(_ rig: IDERig) throws -> StateReader {
    var state = StateWriter()
    rig.controller.save(to: &state)
    return try StateReader(state.bytes)
  }

  @Test func `an idle controller is still at once`() throws {
    let rig = try IDERig(sectors: 128)
    #expect(pause(rig).isSet)
    rig.controller.resume()
    #expect(rig.run(0x20) == IDEStatus.data)
    #expect(pause(rig).isSet)
  }

  @Test func `a pause waits for the disk, which may withhold its answer`() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.hold(true)
    rig.start(0x20, lba: 7)

    let flag = pause(rig)
    #expect(!flag.isSet)
    rig.store.hold(false)
    wait(flag)

    // Without a resume: the job was finished, and the block waits.
    #expect(rig.line.isRaised)
    #expect(rig.settle() == IDEStatus.data)
    #expect(rig.take(512) == rig.store.sector(7))
  }

  @Test func `what is asked of a paused controller is done after the pause`() throws {
    let rig = try IDERig(sectors: 128)
    let flag = pause(rig)
    rig.start(0x20, lba: 3)
    #expect(flag.isSet)
    #expect(rig.alternateStatus == IDEStatus.busy)

    rig.controller.resume()

    #expect(rig.settle() == IDEStatus.data)
    #expect(rig.take(512) == rig.store.sector(3))
  }

  @Test func `a pause that is called off before its end never tells`() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.hold(true)
    rig.start(0x20)
    let first = pause(rig)
    rig.controller.resume()
    rig.store.hold(false)
    rig.settle()

    wait(pause(rig))

    #expect(!first.isSet)
  }

  @Test func `half a read and half a write go on in another controller`() throws {
    let rig = try IDERig([MemoryStore(sectors: 128), MemoryStore(sectors: 128)])
    let other = try IDERig([MemoryStore(sectors: 128), MemoryStore(sectors: 128)])
    rig.run(0x20, lba: 10, count: 2)
    #expect(rig.take(100) == Array(rig.store.sector(10)[..<100]))

    try other.controller.restore(from: saved(rig))

    #expect(other.take(412) == Array(other.store.sector(10)[100...]))
    #expect(other.line.isRaised)
    #expect(other.settle() == IDEStatus.data)
    #expect(other.take(512) == other.store.sector(11))

    other.start(0x30, lba: 20)
    other.give([UInt8](repeating: 0xAB, count: 300))
    try rig.controller.restore(from: saved(other))
    rig.give([UInt8](repeating: 0xCD, count: 212))
    #expect(rig.settle() == IDEStatus.idle)
    #expect(
      rig.store.sector(20)
        == [UInt8](repeating: 0xAB, count: 300) + [UInt8](repeating: 0xCD, count: 212))
  }

  @Test func `an interrupt that waits is raised again, and a disk of another size refused`() throws
  {
    let rig = try IDERig(sectors: 128)
    rig.start(0xEC)
    let other = try IDERig(sectors: 128)
    try other.controller.restore(from: saved(rig))
    #expect(other.line.levels == [true])
    #expect(other.masterFlags == 4)

    let larger = try IDERig(sectors: 129)
    #expect(throws: StateError.impossible("sectors")) {
      try larger.controller.restore(from: saved(rig))
    }
    #expect(larger.settle() == IDEStatus.idle)
  }

  @Test func `a reset leaves drives as they come on, and disks as they are`() throws {
    let rig = try IDERig(sectors: 128)
    rig.start(0x30, lba: 1)
    rig.give([UInt8](repeating: 0x77, count: 512))
    rig.settle()
    rig.run(0xC6, count: 8)
    rig.run(0xEF, count: 0x45, features: 3)
    rig.run(0xEF, features: 0x66)
    rig.run(0xE6)
    rig.master(toMemory: true)

    rig.controller.reset()

    #expect(!rig.line.isRaised)
    #expect(rig.signature == [1, 1, 1, 0, 0])
    #expect(rig.masterStatus == 0)
    let words = rig.identify()
    #expect(words[59] == 0 && words[88] == 0x003F)
    #expect(rig.store.sector(1) == [UInt8](repeating: 0x77, count: 512))
  }
}
