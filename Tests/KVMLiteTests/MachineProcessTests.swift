import Foundation
import KVMLite
import Synchronization
import TestSupport
import Testing

@Suite("A machine in a process of its own", .needsKVM, .limited)
struct MachineProcessTests {
  /// Writes `!` and then jumps to itself: no more exits.
  private static let spin: [UInt8] = [0xB0, 0x21, 0xE6, 0xE9, 0xEB, 0xFE]

  private static func make(
    program: String = Kvmlite.path, report: @escaping @Sendable (String) -> Void = { _ in }
  ) throws -> VirtualMachine {
    var configuration = VMConfiguration()
    configuration.memorySize = 2 << 20
    configuration.mode = .real
    return try VirtualMachine(
      configuration, image: spin, timeLimit: .seconds(3600),
      isolation: .process(program: program), report: report)
  }

  /// The kvmlites that this process has started for machines, but not their helpers.
  private static func children() throws -> [pid_t] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { pid_t($0) }.filter {
      guard let status = try? String(contentsOfFile: "/proc/\($0)/status", encoding: .utf8),
        let command = try? String(contentsOfFile: "/proc/\($0)/cmdline", encoding: .utf8)
      else { return false }
      return status.contains("PPid:\t\(getpid())\n") && command.contains("--control-fd")
    }
  }

  #if DEBUG
    @Test("ends the run with an account when its guest has taken over that process")
    func takeover() async throws {
      let result = await #expect(
        processExitsWith: .success, observing: [\.standardOutputContent],
        performing: {
          unsafe setenv("KVMLITE_TAKEOVER", "vcpu:2:path:0", 1)
          // The thread is there before the guest's first instruction, and so perhaps before the machine.
          do { print("\(try await Self.make().run())") } catch { print("\(error)") }
        })
      let text = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
      #expect(text.contains("thread vcpu0 made the system call open"), "\(text)")
    }
  #endif

  @Test("that is killed ends the run, and all who wait are told")
  func killed() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent],
      performing: {
        let machine = try Self.make()
        async let outcome = machine.run()
        try await machine.console.wait(for: "!")
        let waiting = Task { try await machine.console.wait(for: "?") }
        for child in try Self.children() { kill(child, SIGKILL) }
        print("\(try await outcome)")
        do { _ = try await waiting.value } catch { print("\(error)") }
        do { try await machine.pause() } catch { print("\(error)") }
        print("left: \(try Self.children().count)")
      })
    let text = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
    #expect(text.contains("the machine's process ended with status 137"), "\(text)")
    #expect(text.contains("before the machine ended"), "\(text)")
    #expect(text.contains("process has ended"), "\(text)")
    #expect(text.contains("left: 0"), "\(text)")
  }

  @Test("that a signal ends says which")
  func signal() async throws {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent],
      performing: {
        let machine = try Self.make()
        async let outcome = machine.run()
        try await machine.console.wait(for: "!")
        for child in try Self.children() { kill(child, SIGTERM) }
        print("\(try await outcome)")
      })
    let text = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
    #expect(text.contains("the run was ended by SIGTERM"), "\(text)")
  }

  @Test("goes when nobody has the machine any more, or when this process is killed")
  func goes() async throws {
    let result = await #expect(
      processExitsWith: .signal(SIGKILL), observing: [\.standardOutputContent],
      performing: {
        _ = try Self.make()
        let machine = try Self.make()
        let run = Task { try await machine.run() }
        try await machine.console.wait(for: "!")
        print(try Self.children().map(String.init).joined(separator: " "))
        fflush(nil)
        withExtendedLifetime(run) { _ = kill(getpid(), SIGKILL) }
      })
    let text = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
    let children = text.split { !$0.isNumber }.compactMap { pid_t($0) }
    #expect(children.count == 1, "the first has gone with its machine: \(text)")
    let deadline = Deadline()
    for child in children {
      while kill(child, 0) == 0, !deadline.isOver { await Task.yield() }
      #expect(kill(child, 0) < 0)
    }
  }

  @Test("is named where there is no such program")
  func noProgram() {
    #expect {
      _ = try Self.make(program: "/no/such/kvmlite")
    } throws: { error in
      (error as? VirtualMachineError)?.reason == .resource
        && error.localizedDescription.contains("/no/such/kvmlite")
    }
  }
}
