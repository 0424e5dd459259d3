import Foundation
import Machine
import Memory
import TestSupport
import Testing

/// Debian's cloud kernel in machines that are saved at random moments and go on as others.
@Suite(
  "Stock Linux kernels that are moved", .needsKVM, .needsRingZero, .needsKernels, .serialized,
  .limited)
struct MovingTests {
  /// Writes to two disks, reads them back around the page cache, and sleeps, over and over.
  private static let work =
    "for i in $(seq 1 24); do for d in vda sda; do seq $i 20000 | "
    + "dd of=/dev/$d bs=4k seek=$((i * 7)) conv=notrunc,fsync 2>/dev/null; done; "
    + "echo 3 >/proc/sys/vm/drop_caches; sleep 0.05; "
    + "echo round $i $(cat /dev/vda /dev/sda | md5sum); done"

  private func machine() throws -> (VMConfiguration, Resources, ConsoleBuffer, [RAMDisk]) {
    let console = ConsoleBuffer()
    let disks = [RAMDisk(sectors: 8192), RAMDisk(sectors: 8192)]
    var spec = VMConfiguration()
    spec.image = Kernels.path("devices/vmlinuz")
    spec.initrds = [Kernels.path("devices/initrd.cpio.gz")]
    spec.append = "quiet RUN=\"\(Self.work)\""
    spec.vcpuCount = 2
    spec.devices = [
      .init(.disk(.init(bus: .virtio)), id: "first"), .init(.disk(.init(bus: .ide)), id: "second"),
    ]
    var given = Resources(console: console)
    given.disks = ["first": disks[0], "second": disks[1]]
    return (spec, try Resources(opening: spec, besides: given), console, disks)
  }

  @Test("print, sleep and write as if they never had been")
  func randomMoments() throws {
    let (spec, resources, console, disks) = try machine()
    let options = RunOptions(timeLimit: 300 * Deadline.patience)
    var random = SplitMix(11)
    var machine = try Machine(spec, resources, options)
    var moves = 0
    while true {
      let pause = UInt64.random(
        in: 0..<(1 << UInt64.random(in: 20...29, using: &random)), using: &random)
      let mover = try moves < 100 ? Mover(machine.commands, after: pause) : nil
      let outcome = machine.run()
      guard let saved = try mover?.result() else {
        if case .poweredOff = outcome {} else { Issue.record("\(outcome) after \(moves) moves") }
        break
      }
      moves += 1
      let memory: RestoredMemory =
        moves % 4 == 3 ? .copied(try SavedMemory(copying: machine.memory)) : .moved(machine.memory)
      machine = try Machine(
        restoring: SavedMachine(bytes: saved.bytes), memory, resources, options)
    }

    #expect(moves >= 20)
    var (rounds, contents) = ([String](), [UInt8](repeating: 0, count: 8192 * 512))
    for round in 1...24 {
      let text = (round...20000).map { "\($0)\n" }.joined()
      contents.replaceSubrange(
        round * 7 * 4096..<round * 7 * 4096 + text.utf8.count, with: text.utf8)
      rounds.append("round \(round) \(try md5(of: contents + contents))")
    }
    let lines = console.text.split(whereSeparator: \.isNewline).map(String.init)
    #expect(lines.filter { $0.hasPrefix("round ") } == rounds.map { $0 + " -" })
    #expect(disks.allSatisfy { $0.bytes == contents })
    for complaint in ["rror", "lost", "BUG", "stall", "lockup", "unstable", "reset"] {
      #expect(!lines.contains { $0.contains(complaint) }, "\(lines)")
    }
  }

  private func md5(of bytes: [UInt8]) throws -> String {
    let file = FileManager.default.temporaryDirectory.appending(path: "md5-\(UUID().uuidString)")
    try Data(bytes).write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    let sum = try ChildProcess("md5sum", [file.path])
    #expect(try sum.waitForEnd() == .exited(0))
    return String(sum.outputText.prefix(32))
  }
}
