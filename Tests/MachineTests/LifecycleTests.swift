import Devices
import Host
import Memory
import Synchronization
import TestSupport
import Testing

@testable import Machine

@Suite("A machine takes commands", .needsKVM, .limited)
struct LifecycleTests {
  /// Counts at 0x18000 for ever.
  private static let counter: [UInt8] = [
    0xB0, 0x21,  //                    00: mov al,0x21
    0xE6, 0xE9,  //                    02: out 0xe9,al
    0xFF, 0x06, 0x00, 0x80,  //        04: inc WORD PTR ds:0x8000
    0xE6, 0x80,  //                    08: out 0x80,al
    0xEB, 0xF8,  //                    0a: jmp 0x4
  ]

  /// A machine that runs on a thread of its own.
  private final class Running: @unchecked Sendable {
    // Sound as Sendable: the outcome is written by the thread that is joined before it is read.
    let machine: Machine
    let console = WaitingSink()
    private var thread: HostThread?
    private var outcome: Outcome?

    init(_ image: [UInt8], configure: (inout Setup) -> Void = { _ in }, starts: Bool = true) throws
    {
      var setup = Setup(image, mode: .real, console: console)
      configure(&setup)
      machine = try setup.makeMachine()
      if starts { try start() }
    }

    func start() throws {
      thread = try HostThread.start(name: "machine") { self.outcome = self.machine.run() }
    }

    /// Asks, and waits for the answer.
    func ask(_ command: Command) -> Result<Void, CommandError> {
      let answer = Guarded<Result<Void, CommandError>?>(nil)
      machine.commands.send(command) { result in
        answer.locked { $0 = result }
        answer.wakeAll()
      }
      return answer.waiting { $0 }
    }

    func end() -> Outcome? {
      thread?.join()
      thread = nil
      return outcome
    }

    func word() throws -> UInt16 {
      try machine.memory.view(at: 0x1_8000, count: 2).load(0, as: UInt16.self)
    }

    /// Waits until the guest's counter isn't `old` any more.
    func waitForChange(from old: UInt16) throws {
      let deadline = Deadline()
      while try word() == old, !deadline.isOver { HostThread.yield() }
    }
  }

  private func isSuccess(_ result: Result<Void, CommandError>) -> Bool {
    if case .success = result { true } else { false }
  }

  @Test("paused, it does nothing until it is resumed")
  func pause() throws {
    let running = try Running(Self.counter)
    #expect(running.console.wait(forBytes: 1))
    #expect(isSuccess(running.ask(.pause)))
    #expect(running.machine.commands.state == .paused)
    let count = try running.word()
    // An inspection is an answer from a loop that is awake; meanwhile nothing moves.
    for _ in 0..<20 { #expect(isSuccess(running.ask(.inspect { _ in }))) }
    #expect(try running.word() == count)
    #expect(isSuccess(running.ask(.resume)))
    try running.waitForChange(from: count)
    #expect(try running.word() != count)
    #expect(isSuccess(running.ask(.stop(.user))))
    #expect(running.end()?.kind == "stopped")
    #expect(running.machine.commands.state == .ended)
  }

  @Test("paused before it starts, it runs no instruction")
  func pauseFirst() throws {
    let running = try Running(Self.counter, starts: false)
    let paused = Guarded(false)
    running.machine.commands.send(.pause) { _ in
      paused.locked { $0 = true }
      paused.wakeAll()
    }
    try running.start()
    _ = paused.waiting { $0 ? true : nil }
    #expect(running.console.bytes.isEmpty)
    #expect(isSuccess(running.ask(.resume)))
    #expect(running.console.wait(forBytes: 1))
    _ = running.ask(.stop(.user))
    _ = running.end()
  }

  @Test("reset, it starts its image anew", arguments: [1, 3])
  func reset(cpus: Int) throws {
    let running = try Running(
      Self.counter,
      configure: {
        $0.restartsAtReset = true
        $0.vcpuCount = cpus
      })
    for round in 1...Trials.rounds(20) {
      #expect(running.console.wait(forBytes: round))
      #expect(isSuccess(running.ask(.reset)))
    }
    _ = running.ask(.stop(.user))
    #expect(running.end()?.kind == "stopped")
  }

  @Test("shows what it is at without being disturbed")
  func inspect() throws {
    let running = try Running(Self.counter)
    #expect(running.console.wait(forBytes: 1))
    let pointer = Mutex<UInt64>(0)
    let look: @Sendable (Machine) -> Void = { machine in
      let registers = try? machine.engine.runners[0].vcpu.registers()
      pointer.withLock { $0 = registers?.rip ?? .max }
    }
    #expect(isSuccess(running.ask(.inspect(look))))
    #expect(pointer.withLock { $0 } <= 0x0C)
    let count = try running.word()
    try running.waitForChange(from: count)
    _ = running.ask(.stop(.user))
    _ = running.end()
  }

  @Test("asked for what can't be, it refuses")
  func refusals() throws {
    let running = try Running(Self.counter)
    #expect(running.ask(.resume) == .failure(.isNotPaused))
    _ = running.ask(.stop(.user))
    _ = running.end()
    #expect(running.ask(.pause) == .failure(.hasEnded))
    guard case .hostFailed(let message) = running.machine.run() else {
      Issue.record("a machine ran twice")
      return
    }
    #expect(message.contains("runs once"))
  }

  @Test("at any moment, from several threads at once, and answers each command once")
  func randomCommands() throws {
    let running = try Running(
      TestGuest.ticker(divisor: 1193, count: .max),
      configure: {
        $0.restartsAtReset = true
        $0.vcpuCount = 2
      })
    #expect(running.console.wait(forBytes: 1))
    let answers = Guarded(0)
    let rounds = Trials.rounds(100)
    let threads = try (0..<3).map { seed in
      try HostThread.start(name: "asker") {
        var random = SplitMix(UInt64(seed))
        for _ in 0..<rounds {
          let commands: [Command] = [.pause, .resume, .reset, .inspect { _ in }, .powerButton]
          running.machine.commands.send(commands[Int(random.next() % 5)]) { _ in
            answers.locked { $0 += 1 }
            answers.wakeAll()
          }
        }
      }
    }
    for thread in threads { thread.join() }
    _ = running.ask(.resume)
    _ = answers.waiting { $0 == 3 * rounds ? true : nil }
    _ = running.ask(.stop(.user))
    #expect(running.end()?.kind == "stopped")
  }
}

extension Result where Success == Void, Failure == CommandError {
  fileprivate static func == (left: Self, right: Self) -> Bool {
    switch (left, right) {
    case (.success, .success): true
    case (.failure(let left), .failure(let right)): left == right
    default: false
    }
  }
}
