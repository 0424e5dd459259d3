import Foundation
import Glibc
import TestSupport
import Testing

/// Guests made at random attack all devices at once, from several VCPUs, while somebody outside resets,
/// holds and looks at the machine. KVMLITE_HOSTILE_SEED is the first machine's seed,
/// KVMLITE_HOSTILE_SECONDS how long it goes on.
@Suite("A hostile guest and a restless user", .needsKVM, .limited)
struct HostileMachineTests {
  private static func told<Number: LosslessStringConvertible>(_ name: String) -> Number? {
    ProcessInfo.processInfo.environment["KVMLITE_HOSTILE_" + name].flatMap { Number($0) }
  }

  private static let timeout = 3
  /// What kvmlite itself may need, besides the guest's memory; a debug build isn't small.
  private static let ownMemory = 192 << 20
  private static let diskSize = 1 << 20

  @Test("end by kvmlite's own rules, and leave what is beside them alone")
  func attacks() throws {
    let first: UInt64 = Self.told("SEED") ?? 1
    let seconds = Self.told("SECONDS") ?? 18.0
    print("hostile guests from KVMLITE_HOSTILE_SEED=\(first) on")
    let end = Date(timeIntervalSinceNow: seconds)
    var seed = first
    var reached = false
    var rounds = 0
    repeat {
      let errors = try attack(seed)
      reached = reached || errors.contains("it waits for a reset by the guest's driver")
      seed &+= 1
      rounds += 1
    } while Date() < end || !reached && !Trials.areFew && rounds < 20
    // Or the guests were no danger to anybody.
    #expect(reached || Trials.areFew)
  }

  private func attack(_ seed: UInt64) throws -> String {
    let word: Comment = "KVMLITE_HOSTILE_SEED=\(seed)"
    let machines = try NamedMachines()
    var numbers = SplitMix(seed)
    let neighbour = (0..<Self.diskSize).map { _ in UInt8(truncatingIfNeeded: numbers.next()) }
    let kept = try ["base", "beside"].map { try machines.file($0, neighbour) }
    let overlay = machines.path + "/overlay"
    try #require(
      machines.run("disk", "create", "--backing", kept[0], "--backing-format", "raw", overlay).end
        == .exited(0), word)
    let disks = try ["ide", "mmio"].map { try machines.file($0, neighbour) }
    let image = try machines.file("hostile", HostileGuest(seed: seed).image)

    let machine = try machines.start(
      [
        "run", "--name", "hostile", "--timeout", "\(Self.timeout)", "--mode", "long",
        "--console", "none", "-c", "\(HostileGuest.vcpus)", "-m", "\(HostileGuest.memory)",
        "--device", "rng", "--device", "balloon", "--device", "virtio-console",
        "--vsock", "cid=5,socket=\(machines.path)/vsock", "--disk", "\(overlay),format=qcow2",
        "--disk", "\(disks[0]),format=raw,bus=ide", "--disk", "\(disks[1]),format=raw,bus=mmio",
        image,
      ], deadline: Deadline(seconds: 60))
    let most = try disturb(machines, machine, &numbers, word)
    let result = try Kvmlite.end(of: machine)

    // In order, by the exit port (0x10), crashed, out of time.
    let ends: [ChildProcess.End] = [0, 33, 70, 124].map { .exited($0) }
    #expect(ends.contains(result.end), "\(word): \(result.errors)")
    for bad in ["sandbox:", "Fatal error", "kvmlite itself"] {
      #expect(!result.errors.contains(bad), "\(word): \(result.errors)")
    }
    #expect(result.errors.utf8.count < 100_000, word)
    #expect(most < Int(HostileGuest.memory) + Self.ownMemory, word)
    #expect(!result.leftProcesses, word)
    for path in kept {
      #expect(FileManager.default.contents(atPath: path) == Data(neighbour), word)
    }
    for path in disks {
      #expect(FileManager.default.contents(atPath: path)?.count == Self.diskSize, word)
    }
    #expect(try machines.run("disk", "check", overlay).end == .exited(0), word)
    return result.errors
  }

  /// Sends the machine messages until it ends, and returns the most memory that it had.
  private func disturb(
    _ machines: NamedMachines, _ machine: ChildProcess, _ numbers: inout SplitMix, _ word: Comment
  ) throws -> Int {
    var most = 0
    while let now = mostMemory(of: machine.identifier) {
      most = max(most, now)
      let verb = ["pause", "resume", "resume", "reset", "stats", "inspect"][Int(numbers.next() % 6)]
      let result = try machines.run(verb, "hostile")
      // 66: it isn't there, 75: it isn't (or is) paused.
      #expect(
        [0, 66, 75].map { .exited($0) }.contains(result.end), "\(word): \(verb): \(result.errors)")
    }
    return most
  }

  /// The most memory that a process has had at once, unless it has ended (proc_pid_status(5)).
  private func mostMemory(of process: pid_t) -> Int? {
    let text = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
    let line = text?.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line.flatMap { Int($0.split(whereSeparator: { !$0.isNumber }).first ?? "") }
      .map { $0 << 10 }
  }
}
