import Host
import Machine
import Memory

/// A machine in a process of its own.
final class ChildMachine: MachinePlace {
  private typealias Answer = Result<JSON, VirtualMachineError>
  private typealias Reply = @Sendable (Answer) -> Void

  private struct Shared {
    var state = MachineState.created
    var hasBegun = false
    /// Whether the run is to end as soon as it begins.
    var isStopped = false
    /// Who waits for which answer; nil for nobody any more.
    var replies: [UInt64: Reply]? = [:]
    var lastID: UInt64 = 0
    /// What was said before the machine was there; nil once it is.
    var words: [String]? = []
    /// What waits for the run to begin.
    var early: [(kind: ControlMessage.Kind, reply: Reply)] = []
    /// How the process ended, and what is told of it; nil while it is there.
    var end: MachineProcess.End?
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let process: MachineProcess
  private let configuration: VMConfiguration
  private let timeLimit: Duration?
  private let shared = Guarded(Shared())

  private static let hasEnded = VirtualMachineError(.hasEnded, "the machine's process has ended")

  /// Starts the process, and waits until it has made the machine of `configuration`; `image` is the
  /// contents of its image. Throws what that process says if it can't. `report` gets what it says later.
  init(
    _ configuration: VMConfiguration, _ image: [UInt8]?, _ settings: MachineProcess.Settings,
    timeLimit: Duration?, _ console: VirtualMachine.Console,
    report: @escaping @Sendable (String) -> Void
  ) throws(VirtualMachineError) {
    let spec = configuration.completed()
    do throws(SpecError) { try spec.check() } catch {
      throw VirtualMachineError(MachineError.configuration(error.message))
    }
    self.configuration = spec
    self.timeLimit = timeLimit
    do throws(Errno) {
      process = try ConfinedThreads.with { () throws(Errno) in
        try MachineProcess(spec, image, settings)
      }
    } catch {
      throw VirtualMachineError(
        .resource,
        "'\(settings.program)' can't be started: \(error): a machine in a process of its own needs "
          + "the program kvmlite: give its path")
    }
    let listener = MachineProcess.Listener(
      output: { console.log.write($0.span) },
      words: { [shared] line in
        let isLater = shared.locked { shared in
          shared.words?.append(line)
          return shared.words == nil
        }
        if isLater { report(line) }
      },
      message: { [weak self] in self?.take($0) },
      end: { [weak self] end in
        console.log.end()
        self?.note(end)
      })
    do throws(Errno) { try process.begin(console.queue, listener) } catch {
      process.end()
      throw VirtualMachineError(.host, "a thread can't be started: \(error)")
    }
    let isThere = Guarded<Bool?>(nil)
    ask(.registers) { answer in
      isThere.locked { $0 = (try? answer.get()) != nil }
      isThere.wakeAll()
    }
    guard isThere.waiting({ $0 }) else {
      throw VirtualMachineError(endProcess())
    }
    let words = shared.locked { shared in
      defer { shared.words = nil }
      return shared.words ?? []
    }
    for line in words { report(line) }
  }

  func close() { process.end() }

  // MARK: What the process says

  private func take(_ message: JSON) {
    guard case .unsigned(let id)? = message["id"]?.value else { return }
    let reply = shared.locked { shared in
      if case .string(let name)? = message["state"]?.value, shared.hasBegun,
        let state = MachineState(rawValue: name)
      {
        shared.state = state
      }
      return shared.replies?.removeValue(forKey: id)
    }
    if message["ok"]?.value == .bool(true) {
      reply?(.success(message))
    } else if case .string(let text)? = message["error"]?.value {
      reply?(.failure(VirtualMachineError(refusal: text)))
    } else {
      reply?(.failure(VirtualMachineError(.host, "the machine's process answers with no sense")))
    }
  }

  private func note(_ end: MachineProcess.End) {
    let (replies, waiting) = shared.locked { shared in
      (shared.end, shared.state) = (end, .ended)
      defer { (shared.replies, shared.early, shared.waiting) = (nil, [], []) }
      return (Array((shared.replies ?? [:]).values) + shared.early.map(\.reply), shared.waiting)
    }
    shared.wakeAll()
    for reply in replies { reply(.failure(Self.hasEnded)) }
    ConfinedThreads.wake { for continuation in waiting { continuation.resume() } }
  }

  // MARK: Asking it

  private func ask(
    _ kind: ControlMessage.Kind, _ members: [(name: String, value: UInt64)] = [],
    flags: [String] = [], files: [SharedDescriptor] = [], then reply: @escaping Reply
  ) {
    let isSent = shared.locked { shared in
      guard shared.replies != nil else { return false }
      shared.lastID += 1
      shared.replies?[shared.lastID] = reply
      do throws(Errno) {
        try process.send(kind, id: shared.lastID, members, flags: flags, files: files)
        return true
      } catch { return shared.replies?.removeValue(forKey: shared.lastID) == nil }
    }
    if !isSent { reply(.failure(Self.hasEnded)) }
  }

  private func answer(
    _ kind: ControlMessage.Kind, _ members: [(name: String, value: UInt64)] = [],
    flags: [String] = [], files: [SharedDescriptor] = []
  ) async -> Answer {
    await withCheckedContinuation { continuation in
      ask(
        kind, members, flags: flags, files: files,
        then: { answer in
          ConfinedThreads.wake { continuation.resume(returning: answer) }
        })
    }
  }

  // MARK: Running

  var state: MachineState { shared.locked { $0.state } }
  var hasBegun: Bool { shared.locked { $0.hasBegun } }

  func begin() -> Bool {
    shared.locked { shared in
      defer { shared.hasBegun = true }
      return !shared.hasBegun
    }
  }

  func run() -> Outcome {
    let (early, isStopped) = shared.locked { shared in
      if shared.end == nil { shared.state = .running }
      defer { shared.early = [] }
      return (shared.early, shared.isStopped)
    }
    if let timeLimit {
      process.call(after: timeLimit) { [weak self] in self?.ask(.timeOut) { _ in } }
    }
    // Who wants it to be paused has it stand still until somebody resumes it.
    if isStopped {
      ask(.stop) { _ in }
    } else if !early.contains(where: { $0.kind == .pause }) {
      ask(.resume) { _ in }
    }
    for request in early { ask(request.kind, then: request.reply) }
    let end = shared.waiting { $0.end }
    process.end()
    return Outcome(end)
  }

  func end() { _ = endProcess() }

  /// Has the process end, and waits until all that it said is heard.
  private func endProcess() -> MachineProcess.End {
    process.hangUp()
    let end = shared.waiting { $0.end }
    process.end()
    return end
  }

  func stop() {
    let hasBegun = shared.locked { shared in
      shared.isStopped = true
      return shared.hasBegun
    }
    if hasBegun { ask(.stop) { _ in } }
  }

  func waitForEnd() async {
    await withCheckedContinuation { continuation in
      let isOver = shared.locked { shared in
        if shared.end == nil { shared.waiting.append(continuation) }
        return shared.end != nil
      }
      if isOver { continuation.resume() }
    }
  }

  func send(_ command: Command) async throws(VirtualMachineError) {
    let kind: ControlMessage.Kind =
      switch command {
      case .pause: .pause
      case .resume: .resume
      case .reset: .reset
      default: .powerButton
      }
    let answer = await withCheckedContinuation { continuation in
      let reply: Reply = { answer in
        ConfinedThreads.wake { continuation.resume(returning: answer) }
      }
      let isEarly = shared.locked { shared in
        // Between `begin()` and `run()`, too.
        guard shared.state == .created else { return false }
        shared.early.append((kind, reply))
        return true
      }
      if !isEarly { ask(kind, then: reply) }
    }
    _ = try answer.get()
  }

  func save(
    state: SharedDescriptor, memory: SharedDescriptor, stays: Bool
  ) async throws(VirtualMachineError) {
    _ = try await answer(.save, flags: stays ? ["stay"] : [], files: [state, memory]).get()
  }

  // MARK: Looking

  func statistics() async -> RunStatistics {
    let now = try? await answer(.stats).get()
    let counts = now ?? shared.locked { $0.end?.statistics }
    var statistics = RunStatistics(counts ?? JSON(.object([])))
    statistics.vcpuCount = configuration.vcpuCount
    statistics.memorySize = configuration.memorySize
    return statistics
  }

  func memory(
    at address: GuestAddress, count: Int
  ) async throws(VirtualMachineError) -> [UInt8]? {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let (start, overflow) = address.value.addingReportingOverflow(UInt64(bytes.count))
      let part = min(count - bytes.count, ControlMessage.mostMemory)
      guard !overflow,
        let answer = try await found(
          answer(.memory, [("address", start), ("count", UInt64(part))])),
        case .string(let digits)? = answer["bytes"]?.value,
        let more = Self.bytes(digits), more.count == part
      else { return nil }
      bytes += more
    }
    return bytes
  }

  func registers(ofVCPU id: Int) async throws(VirtualMachineError) -> Registers? {
    guard let vcpu = UInt16(exactly: id) else { return nil }
    return RegisterNames.general(
      try await found(answer(.registers, [("vcpu", UInt64(vcpu))]))?["registers"])
  }

  func specialRegisters(ofVCPU id: Int) async throws(VirtualMachineError) -> SpecialRegisters? {
    guard let vcpu = UInt16(exactly: id) else { return nil }
    return RegisterNames.special(
      try await found(answer(.registers, [("vcpu", UInt64(vcpu))]))?["special_registers"])
  }

  /// What was found; nil if there is nothing there.
  private func found(_ answer: Answer) throws(VirtualMachineError) -> JSON? {
    do throws(VirtualMachineError) { return try answer.get() } catch {
      guard error.reason == .nothingThere else { throw error }
      return nil
    }
  }

  private static func bytes(_ digits: String) -> [UInt8]? {
    let digits = Array(digits.utf8)
    guard digits.count.isMultiple(of: 2) else { return nil }
    return stride(from: 0, to: digits.count, by: 2).reduce(into: [UInt8]?.some([])) {
      bytes, place in
      let text = String(decoding: digits[place...(place + 1)], as: UTF8.self)
      if let byte = UInt8(text, radix: 16) { bytes?.append(byte) } else { bytes = nil }
    }
  }
}

extension Outcome {
  /// How the run of a machine ended whose process did.
  fileprivate init(_ end: MachineProcess.End) {
    let last = end.words.last.map { ": \($0)" } ?? ""
    self =
      end.outcome.flatMap { Outcome($0) }
      ?? .hostFailed("the machine's process ended with status \(end.status)" + last)
  }
}

extension VirtualMachineError {
  /// Why a process could not make its machine, by its exit status.
  fileprivate init(_ end: MachineProcess.End) {
    let reason: Reason =
      switch end.status {
      case 64: .configuration
      case 65: .image
      case 66, 73, 74, 75: .resource
      case 69, 77: .kvm
      default: .host
      }
    let words = end.words.joined(separator: "\n")
    self.init(
      reason, words.isEmpty ? "the machine's process ended with status \(end.status)" : words)
  }

  /// What a machine's process refuses, by its words.
  fileprivate init(refusal text: String) {
    let reasons: [(CommandError, Reason)] = [
      (.hasEnded, .hasEnded), (.isNotPaused, .isNotPaused), (.resumed, .wasResumed),
    ]
    let reason = reasons.first { $0.0.description == text }?.1 ?? .nothingThere
    self.init(reason, text)
  }
}
