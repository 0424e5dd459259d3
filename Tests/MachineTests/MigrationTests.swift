import Devices
import Guests
import Host
import Machine
import Memory
import Storage
import Synchronization
import TestSupport
import Testing

/// Machines that go from one kvmlite to another while they run.
@Suite("A machine that migrates", .needsKVM, .limited)
struct MigrationTests {
  /// Sends a machine away after a while, and makes it anew on the other side.
  private final class Migration: Sendable {
    /// Made by one thread and used by another, after that.
    private final class Arrived: @unchecked Sendable {
      let machine: Machine
      init(_ machine: Machine) { self.machine = machine }
    }

    private let threads: Mutex<[HostThread]> = Mutex([])
    private let arrived = Mutex<Arrived?>(nil)
    private let troubles = Mutex<[String]>([])

    /// If it `holds` the machine, that stands still from then on: on a slow host it would end before.
    init(
      _ machine: CommandQueue, after pause: UInt64, holds: Bool = false, downtime: UInt64,
      _ setup: Setup
    ) throws {
      let (ours, theirs) = try StreamSocket.makePair()
      let near = Mutex<SharedDescriptor?>(SharedDescriptor(FileDescriptor(owning: ours)))
      let far = Mutex<SharedDescriptor?>(SharedDescriptor(FileDescriptor(owning: theirs)))
      let (resources, options) = (setup.resources, setup.options)
      let source = try HostThread.start(name: "source") { [self] in
        guard let socket = near.withLock({ $0.take() }) else { return }
        let end = Clock.monotonicNanoseconds &+ pause
        while Clock.monotonicNanoseconds < end { HostThread.yield() }
        if holds { machine.send(.hold { _ in }) }
        defer { if holds { machine.send(.release) } }
        do throws(MigrationSource.Trouble) {
          try MigrationSource(machine, over: socket, downtime: downtime).run()
        } catch { troubles.withLock { $0.append("\(error)") } }
      }
      let target = try HostThread.start(name: "target") { [self] in
        guard let socket = far.withLock({ $0.take() }) else { return }
        let target = MigrationTarget(MigrationStream(socket, socket))
        do {
          let come = try target.receive()
          let made = Arrived(
            try Machine(restoring: come.machine, .moved(come.memory), resources, options))
          try target.takeOver()
          arrived.withLock { $0 = made }
          target.runs()
        } catch { troubles.withLock { $0.append("\(error)") } }
      }
      threads.withLock { $0 = [source, target] }
    }

    /// The machine on the other side; nil if it had ended before.
    func result() throws -> Machine? {
      for thread in threads.withLock({ $0 }) { thread.join() }
      if let made = arrived.withLock({ $0 }) { return made.machine }
      let troubles = troubles.withLock { $0 }
      try #require(troubles.contains { $0.contains("it has ended") }, "\(troubles)")
      return nil
    }
  }

  // The others end before they have gone anywhere.
  @Test(
    "prints, computes and writes as if it never had",
    arguments: MovingTests.cases.filter { !["smp", "string-io"].contains($0.name) })
  func randomMoments(example: MovingTests.Case) throws {
    let guest = try #require(Guest.named(example.name))
    var random = SplitMix(UInt64(example.name.utf8.reduce(7) { $0 &* 31 &+ Int($1) }))
    let alone = try run(guest, example, moves: 0, &random)
    var moves = 0
    var rounds = 0
    while moves < Trials.rounds(20), rounds < 60 {
      let moved = try run(guest, example, moves: 5, &random)
      let text = String(decoding: moved.output, as: UTF8.self)
      try #require(
        moved.output == alone.output, "\(text) after \(moved.moves) moves: \(moved.outcome)")
      try #require(moved.outcome == alone.outcome && moved.disks == alone.disks)
      moves += moved.moves
      rounds += 1
    }
    #expect(moves > 0)
  }

  private struct End {
    var output: [UInt8] = []
    var disks: [[UInt8]] = []
    var outcome = ""
    var moves = 0
  }

  /// Runs `guest`, which migrates up to `moves` times, each at a moment of `random`'s choice.
  private func run(
    _ guest: Guest, _ example: MovingTests.Case, moves: Int, _ random: inout SplitMix
  ) throws -> End {
    let rig = MovingTests.Rig(guest, example)
    var machine = try rig.makeMachine(guest)
    var end = End()
    while true {
      let holds = end.moves % 3 == 0
      let most = UInt64.random(in: 4...(holds ? 14 : 20), using: &random)
      let pause = UInt64.random(in: 0..<(1 << most), using: &random)
      // A short time has memory gone through again and again.
      let downtime: UInt64 = end.moves % 2 == 0 ? 100_000 : 1_000_000_000
      let migration =
        try end.moves < moves
        ? Migration(
          machine.commands, after: pause, holds: holds, downtime: downtime, rig.setup) : nil
      let outcome = machine.run()
      guard let next = try migration?.result() else {
        end.outcome = "\(outcome)"
        break
      }
      end.moves += 1
      machine = next
    }
    (end.output, end.disks) = (rig.console.bytes, rig.disks.map(\.bytes))
    return end
  }

  @Test("is slowed down when it writes faster than it is sent")
  func busy() throws {
    // Writes all of 4 MiB again and again, a count to each page, and `.` at each turn.
    let guest: [UInt8] = [
      0xB8, 0x00, 0x00, 0x20, 0x00,  //        00: mov eax,0x200000
      0xFF, 0x00,  //                          05: inc DWORD PTR [eax]
      0x05, 0x00, 0x10, 0x00, 0x00,  //        07: add eax,0x1000
      0x3D, 0x00, 0x00, 0x60, 0x00,  //        0c: cmp eax,0x600000
      0x72, 0xF2,  //                          11: jb 0x5
      0xB0, 0x2E,  //                          13: mov al,0x2e
      0xE6, 0xE9,  //                          15: out 0xe9,al
      0xEB, 0xE7,  //                          17: jmp 0x0
    ]
    let console = WaitingSink()
    var setup = Setup(guest, mode: .protected, console: console)
    setup.memorySize = 8 << 20
    let first = try setup.makeMachine()
    let migration = try Migration(first.commands, after: 1_000_000, downtime: 1, setup)
    let outcome = first.run()
    #expect(outcome.kind == "stopped")
    let second = try #require(try migration.result())
    let count = console.bytes.count
    let control = second.control
    let stopper = try HostThread.start(name: "stopper") {
      _ = console.wait(forBytes: count + 3)
      control.stop(.user)
    }
    _ = second.run()
    stopper.join()
    // Each page was counted as often as there are dots, but for the turn that it was stopped in.
    let dots = UInt32(console.bytes.count)
    for page in stride(from: UInt64(0x20_0000), to: 0x60_0000, by: 0x1000) {
      let bytes = try second.memory.read(4, at: GuestAddress(page))
      let found = bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      try #require(found == dots || found == dots + 1, "page \(page): \(found) of \(dots)")
    }
  }
}
