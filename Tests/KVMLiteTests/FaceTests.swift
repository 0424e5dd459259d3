import Foundation
import KVMLite
import TestSupport
import Testing

@Suite("The library's face", .needsKVM, .limited)
struct FaceTests {
  /// Writes `!` and then jumps to itself: no more exits.
  private static let spin: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xEB, 0xFE,  // 04: jmp 0x4
  ]

  /// In this process, and, where that doesn't take minutes, in one of its own.
  private static let isolations: [VirtualMachine.Isolation] =
    Trials.areFew ? [.threads] : [.threads, .process(program: Kvmlite.path)]

  private static func make(
    _ isolation: VirtualMachine.Isolation, _ image: [UInt8] = spin, restartsAtReset: Bool = false,
    countsExits: Bool = false
  ) throws -> VirtualMachine {
    var configuration = VMConfiguration()
    configuration.memorySize = 2 << 20
    configuration.mode = .real
    // It only bounds a hang.
    return try VirtualMachine(
      configuration, image: image, timeLimit: .seconds(3600), restartsAtReset: restartsAtReset,
      countsExits: countsExits, isolation: isolation)
  }

  private static func isStopped(_ outcome: Outcome) -> Bool {
    if case .stopped(.user) = outcome { true } else { false }
  }

  @Test(
    "as many spinning machines as processors, and more, don't hold up another task's timer",
    arguments: isolations)
  func timers(isolation: VirtualMachine.Isolation) async throws {
    let count = ProcessInfo.processInfo.activeProcessorCount + 1
    let machines = try (0..<count).map { _ in try Self.make(isolation) }
    let outcomes = try await withThrowingTaskGroup(of: Outcome.self) { group in
      for machine in machines { group.addTask { try await machine.run() } }
      for machine in machines { try await machine.console.wait(for: "!") }
      for _ in 0..<10 { try await Task.sleep(for: .milliseconds(1)) }
      for machine in machines { await machine.stop() }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    // If the timer had waited for a machine, that would have come to the end of its time.
    #expect(outcomes.count == count && outcomes.allSatisfy(Self.isStopped), "\(outcomes)")
  }

  @Test("a cancelled task stops its machine, whenever that comes", arguments: isolations)
  func cancellation(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation)
    let task = ownTask { try await machine.run() }
    try await machine.console.wait(for: "!")
    task.cancel()
    #expect(try await Self.isStopped(task.value))
    #expect(machine.state == .ended)

    let early = try Self.make(isolation)
    let cancelled = ownTask {
      while !Task.isCancelled { await Task.yield() }
      return try await early.run()
    }
    cancelled.cancel()
    #expect(try await Self.isStopped(cancelled.value))
  }

  @Test("a machine is saved while it runs, and goes on as another", arguments: isolations)
  func saved(isolation: VirtualMachine.Isolation) async throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "kvmlite-\(UUID())").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let folder = directory + "/saved"
    let guest = try #require(Guest.named("echo-irq"))
    let machine = try VirtualMachine(VMConfiguration(guest: guest), isolation: isolation)
    async let outcome = machine.run()
    machine.console.write("1")
    try await machine.console.wait(for: "1")
    try await machine.save(to: folder)
    machine.console.write("2")
    try await machine.console.wait(for: "2")
    try await machine.save(to: folder, stops: true)
    #expect(try await Self.isStopped(outcome))

    for typed in ["3", "4"] {
      let again = try VirtualMachine(restoring: folder, isolation: isolation)
      async let end = again.run()
      again.console.write(typed)
      try await again.console.wait(for: typed)
      #expect(!again.console.text.contains("2"))
      await again.stop()
      #expect(try await Self.isStopped(end))
    }
    #expect(throws: VirtualMachineError.self) {
      _ = try VirtualMachine(restoring: directory, isolation: isolation)
    }
    await #expect(throws: VirtualMachineError.self) { try await machine.save(to: directory) }
  }

  @Test("a machine runs once, in whichever way", arguments: isolations)
  func once(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation, [0xB0, 5, 0xE6, 0xF4])  // mov al,5; out 0xf4,al
    #expect(machine.state == .created)
    #expect(try machine.runBlocking().exitValue == 5)
    await #expect { _ = try await machine.run() } throws: { error in
      (error as? VirtualMachineError)?.reason == .hasRun
        && error.localizedDescription.contains("runs once")
    }
    #expect(throws: VirtualMachineError.self) { try machine.runBlocking() }
  }

  @Test("the time limit ends the run and says where the guest was", arguments: isolations)
  func timeLimit(isolation: VirtualMachine.Isolation) async throws {
    let guest = try #require(Guest.named("spin"))
    let outcome = try await VirtualMachine(
      VMConfiguration(guest: guest), timeLimit: .milliseconds(50), isolation: isolation
    ).run()
    guard case .timedOut(let positions) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect(positions.count == 1 && positions.first?.text.hasPrefix("running at") == true)
  }

  @Test("waits end with the text, the run, the time or the task", arguments: isolations)
  func waits(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation)
    async let outcome = machine.run()
    #expect(try await machine.console.wait(for: "!") == "!")
    // What has been waited for is behind.
    await Self.expect(.timedOut) {
      try await machine.console.wait(for: "!", timeout: .milliseconds(1))
    }
    let task = ownTask { try await machine.console.wait(for: "?") }
    task.cancel()
    await Self.expect(.cancelled) { try await task.value }
    let last = ownTask { try await machine.console.wait(for: "?") }
    await machine.stop()
    await Self.expect(.hasEnded) { try await last.value }
    await Self.expect(.hasEnded) { try await machine.console.wait(for: "?") }
    #expect(try await Self.isStopped(outcome))
  }

  @Test(
    "commands after the end are refused in words, those before it are all answered",
    arguments: isolations)
  func commands(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation)
    let run = ownTask { try await machine.run() }
    await Self.expect(.isNotPaused) { try await machine.resume() }
    try await machine.pause()
    #expect(machine.state == .paused)
    try await machine.resume()
    try await machine.reset()
    try await machine.requestPowerOff()
    // Some of these come before the end and some after it: each must have its answer.
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<20 {
        group.addTask { try? await machine.pause() }
        group.addTask { try? await machine.reset() }
        group.addTask { _ = await machine.statistics }
      }
      group.addTask { await machine.stop() }
    }
    #expect(try await Self.isStopped(run.value))
    await Self.expect(.hasEnded) { try await machine.pause() }
    await Self.expect(.hasEnded) { try await machine.reset() }
  }

  @Test(
    "a reset from outside starts the guest anew, though its own would end the run",
    arguments: isolations)
  func reset(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation)
    async let outcome = machine.run()
    try await machine.console.wait(for: "!")
    try await machine.reset()
    try await machine.console.wait(for: "!")
    await machine.stop()
    #expect(machine.console.text == "!!")
    #expect(try await Self.isStopped(outcome))
  }

  @Test(
    "memory, registers and counts can be had before, during and after the run",
    arguments: isolations)
  func looks(isolation: VirtualMachine.Isolation) async throws {
    let machine = try Self.make(isolation, countsExits: true)
    let place = GuestAddress(0x10000)
    #expect(try await machine.memory(at: place, count: 6) == Self.spin)
    async let outcome = machine.run()
    try await machine.console.wait(for: "!")
    #expect(try await machine.registers().rip == 4)
    #expect(try await machine.specialRegisters().cs.selector == 0x1000)
    #expect(await machine.statistics.exits.portIO.count == 1)
    await Self.expect(.nothingThere) { _ = try await machine.registers(ofVCPU: 1) }
    for (address, count) in [(0x20_0000, 1), (0x10000, -1), (0x10000, Int.max)] {
      await Self.expect(.nothingThere) {
        _ = try await machine.memory(at: GuestAddress(UInt64(address)), count: count)
      }
    }
    await machine.stop()
    _ = try await outcome
    if case .threads = isolation {
      #expect(try await machine.memory(at: place, count: 6) == Self.spin)
      #expect(try await machine.registers().rip == 4)
    } else {
      await Self.expect(.hasEnded) { try await machine.memory(at: place, count: 6) }
      await Self.expect(.hasEnded) { try await machine.registers() }
    }
    let statistics = await machine.statistics
    #expect(statistics.exits.portIO.count == 1)
    #expect(await machine.statistics.elapsed == statistics.elapsed)
  }

  @Test("a crash prints as words", arguments: isolations)
  func crash(isolation: VirtualMachine.Isolation) async throws {
    let guest = try #require(Guest.named("triple-fault"))
    let outcome = try await VirtualMachine(
      VMConfiguration(guest: guest), timeLimit: .seconds(3600), isolation: isolation
    ).run()
    guard case .crashed(let report) = outcome else {
      Issue.record("\(outcome)")
      return
    }
    #expect("\(outcome)".contains("VCPU 0: the guest made a triple fault"))
    #expect("\(report)".contains("Registers:") && "\(report)".contains("Last exits"))
    #expect("\(Outcome.timedOut([]))" == "the time was up, and the guest was still running")
    #expect("\(Outcome.stopped(.signal(SIGTERM)))" == "the run was ended by SIGTERM")
  }

  @Test("what can't be a machine is refused by kind and in words", arguments: isolations)
  func refusals(isolation: VirtualMachine.Isolation) {
    var configuration = VMConfiguration()
    configuration.image = "guest:helo-real"
    // By its exit status it is like a file that isn't there.
    let reason =
      if case .threads = isolation {
        VirtualMachineError.Reason.configuration
      } else {
        VirtualMachineError.Reason.resource
      }
    Self.expect(isolation, reason, "did you mean 'hello-real'", configuration)
    configuration.image = "/no/such/image"
    Self.expect(isolation, .resource, "/no/such/image", configuration)
    configuration = VMConfiguration()
    configuration.vcpuCount = 0
    Self.expect(isolation, .configuration, "VCPU", configuration)
    configuration = VMConfiguration()
    configuration.devices = [.init(.disk(.init()))]
    Self.expect(isolation, .configuration, "disk0", configuration)
  }

  private static func expect(
    _ isolation: VirtualMachine.Isolation, _ reason: VirtualMachineError.Reason, _ text: String,
    _ configuration: VMConfiguration,
    _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(sourceLocation: location) {
      _ = try VirtualMachine(configuration, isolation: isolation)
    } throws: { error in
      let found = (error as? VirtualMachineError)?.reason
      return found == reason && error.localizedDescription.contains(text)
    }
  }

  private static func expect(
    _ reason: VirtualMachineError.Reason, _ location: SourceLocation = #_sourceLocation,
    _ body: () async throws -> some Any
  ) async {
    do {
      _ = try await body()
      Issue.record("nothing was thrown", sourceLocation: location)
    } catch {
      let error = error as? VirtualMachineError
      #expect(error?.reason == reason, "\(error as Any)", sourceLocation: location)
    }
  }
}
