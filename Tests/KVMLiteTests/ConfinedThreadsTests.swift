import Dispatch
import Foundation
import KVMLite
import Synchronization
import TestSupport
import Testing

@Suite("The threads of a machine in somebody's process", .needsKVM, .limited)
struct ConfinedThreadsTests {
  /// Writes `!` and then jumps to itself: no more exits.
  private static let spin: [UInt8] = [0xB0, 0x21, 0xE6, 0xE9, 0xEB, 0xFE]

  /// How many filters the calling thread, or one of this process's, has.
  private static func filters(ofThread thread: String) throws -> Int {
    let path = thread.isEmpty ? "/proc/thread-self/status" : "/proc/self/task/\(thread)/status"
    let line = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
      .first { $0.hasPrefix("Seccomp_filters:") }
    return Int(line?.split(separator: "\t").last ?? "") ?? 0
  }

  /// Keeps how many filters the threads have that wake a task.
  private final class Witness: TaskExecutor {
    let seen = Mutex<[Int]>([])
    private let queue = DispatchQueue(label: "witness")

    func enqueue(_ job: consuming ExecutorJob) {
      let count = (try? ConfinedThreadsTests.filters(ofThread: "")) ?? -1
      seen.withLock { $0.append(count) }
      let job = UnownedJob(job)
      queue.async { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
  }

  @Test("are confined, and those that wake tasks are not")
  func filters() async throws {
    var configuration = VMConfiguration()
    configuration.memorySize = 2 << 20
    configuration.mode = .real
    let machine = try VirtualMachine(
      configuration, image: Self.spin, timeLimit: .seconds(3600), countsExits: true)
    let witness = Witness()
    let outcome = Task(executorPreference: witness) { try await machine.run() }
    try await Task(executorPreference: witness) {
      try await machine.console.wait(for: "!")
      try await machine.pause()
      _ = try await machine.registers()
      try await machine.resume()
    }.value

    var found: [String: Int] = [:]
    for thread in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task") {
      // One may have ended meanwhile.
      guard
        let name = try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8),
        let count = try? Self.filters(ofThread: thread), count > 0
      else { continue }
      found[name.trimmingCharacters(in: .newlines)] = count
    }
    // The machine's own, and that of its maker.
    #expect(found["vcpu0"] == 2 && found["machine"] == 1, "\(found)")
    await machine.stop()
    _ = try await outcome.value
    let seen = witness.seen.withLock { $0 }
    #expect(seen.count > 4 && seen.allSatisfy { $0 == 0 }, "\(seen)")
  }

  #if DEBUG
    /// The roles, with a guest that has such a thread. The clock's needs seconds.
    private static let roles = [
      ("vcpu", "hello-real"), ("loop", "hello-real"), ("worker", "rtc-irq"),
    ]

    private static func acts(of role: String) -> [(name: String, call: String)] {
      Takeovers.acts.enumerated()
        .filter { $0.offset % 8 == 0 || role != "worker" && !Trials.areFew }.map(\.element)
    }

    /// Does each act in another machine, and says what came of both.
    private static func attempt() async throws {
      for (role, name) in roles {
        for act in acts(of: role) {
          unsafe setenv("KVMLITE_TAKEOVER", "\(role):\(act.call)", 1)
          guard let guest = Guest.named(name) else { continue }
          let outcome = try await VirtualMachine(VMConfiguration(guest: guest)).run()
          let end = outcome.exitStatus == 0 ? "ran on" : "\(outcome)"
          FileHandle.standardError.write(Data("\(role) \(act.name): \(end)\n".utf8))
        }
      }
    }

    @Test("are refused each forbidden act, and the guest goes on")
    func acts() async throws {
      let result = await #expect(
        processExitsWith: .success, observing: [\.standardErrorContent],
        performing: { try await Self.attempt() })
      let errors = try #require(result).standardErrorContent
      let lines = String(decoding: errors, as: UTF8.self).split(separator: "\n")
      // EPERM
      let refusals = lines.count { $0 == "it went on: -1" }
      let runs = lines.count { $0.hasSuffix("ran on") }
      let count = Self.roles.reduce(0) { $0 + Self.acts(of: $1.0).count }
      #expect(refusals >= count && runs == count, "\(lines)")
      #expect(lines.count == refusals + runs, "\(lines)")
    }
  #endif
}
