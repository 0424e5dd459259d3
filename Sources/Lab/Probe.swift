import Guests
import Host
import KVM

/// A few instructions that the lab runs in different modes: a routine of a guest with a table of them
/// (guest-asm/include/probe.inc).
struct Probe: Sendable {
  /// The instruction's name.
  let name: String
  /// Where it is in the image.
  let offset: Int

  /// The image that all probes of a guest are in.
  struct Kit: Sendable {
    let image: [UInt8]
    let probes: [Probe]
    /// The address of the HLT that ends the harness's loop.
    let end: UInt64

    /// Reads the table of the lab's guest `name`.
    init(_ name: String) throws(LabError) {
      let image = try labGuest(name).image
      func word(_ offset: Int) -> UInt64? {
        guard offset >= 0, offset + 8 <= image.count else { return nil }
        return (0..<8).reduce(0) { $0 | UInt64(image[offset + $1]) << UInt64($1 * 8) }
      }
      var probes: [Probe] = []
      let base = BenchLayout.image
      guard let table = word(8), let end = word(16), table >= base else {
        throw .unexpected("the lab's guest '\(name)' has no table of probes")
      }
      var row = Int(table - base)
      while let address = word(row), address != 0, row + 32 <= image.count {
        let text = image[(row + 8)..<(row + 32)].prefix { $0 != 0 }
        probes.append(
          Probe(name: String(decoding: text, as: UTF8.self), offset: Int(address - base)))
        row += 32
      }
      (self.image, self.probes, self.end) = (image, probes, end)
    }

    /// The address of the probe `name`.
    func address(of name: String) throws(LabError) -> UInt64 {
      guard let probe = probes.first(where: { $0.name == name }) else {
        throw .unexpected("the lab's guest has no routine '\(name)'")
      }
      return BenchLayout.image + UInt64(probe.offset)
    }
  }
}

/// What became of a probe.
enum ProbeOutcome: Equatable, Sendable {
  /// It ran, and nobody noticed.
  case nothing
  /// It ran, and KVM did some of it.
  case kernelExit
  /// It ran, because KVM did it in software: the processor never saw it.
  case emulated
  /// It ran, and left to user space for this reason.
  case userExit(ExitReason)
  /// An exception.
  case fault(vector: UInt8, error: UInt64)
  /// KVM emulates instructions here, and its emulator doesn't have this one.
  case notEmulated
  /// It ran; KVM has no counters here, so whether it left the guest is unknown.
  case ran
  /// Another end, in words.
  case other(String)

  /// As a cell of a table.
  var text: String {
    switch self {
    case .nothing: "runs"
    case .kernelExit: "exit in KVM"
    case .emulated: "emulated by KVM"
    case .userExit(let reason): "exit to user: " + reason.name.replacing("KVM_EXIT_", with: "")
    case .fault(let vector, let error):
      GuestException.name(of: vector)
        + (BenchLayout.hasErrorCode(vector) ? "(\(error == 0 ? "0" : hex(error)))" : "")
    case .notEmulated: "not in KVM's emulator"
    case .ran: "runs, exits n/a"
    case .other(let text): text
    }
  }

  /// Whether it trapped by an exception, as a privileged instruction does outside ring 0.
  var isFault: Bool { if case .fault = self { true } else { false } }

  /// Whether it ran to its end.
  var didRun: Bool {
    switch self {
    case .nothing, .kernelExit, .emulated, .userExit, .ran: true
    default: false
    }
  }
}

/// What a probe did and left in its scratch memory.
struct ProbeResult: Sendable {
  let outcome: ProbeOutcome
  /// KVM's exits for each execution, less those of the same loop without the instruction; nil where it
  /// could not be counted.
  let exitsEach: Double?
  /// How often KVM_RUN returned for it while it was counted; nil where it wasn't.
  var returns: Int?
  /// The scratch memory after one execution.
  let scratch: [UInt64]
}

/// Runs probes in a fresh virtual machine each, so that a failure is a finding and nothing more.
struct ProbeRunner {
  let kit: Probe.Kit
  var settings = Bench.Settings()

  /// How often a probe is run to be counted.
  var count = 200
  /// How often the counting is done at most, where it doesn't come to about a whole number.
  static let countings = 5

  /// Runs `probe` once to see what becomes of it and, if it runs, many times to count its exits.
  func run(_ probe: Probe, _ ring: Bench.Ring, baseline: Double?) throws(LabError) -> ProbeResult {
    let bench = try Bench(kit.image, settings: settings, seconds: 5, what: "'\(probe.name)'")
    try prepare(bench)
    let first = try attempt(bench, probe, ring, count: 1)
    let scratch = try bench.words(at: BenchLayout.scratch, 8)
    guard first.end == .nothing || first.end.didRun else {
      return ProbeResult(outcome: first.end, exitsEach: nil, scratch: scratch)
    }
    guard let counter = bench.exitCounter() else {
      let outcome = first.reason.map(ProbeOutcome.userExit) ?? .ran
      return ProbeResult(outcome: outcome, exitsEach: nil, scratch: scratch)
    }
    let counted = try leastOf(bench, probe, ring, counter, baseline ?? 0)
    guard counted.attempt.end.didRun else {
      return ProbeResult(outcome: counted.attempt.end, exitsEach: nil, scratch: scratch)
    }
    if let reason = counted.attempt.reason, counted.attempt.userExits >= count {
      return ProbeResult(
        outcome: .userExit(reason), exitsEach: counted.each, returns: counted.attempt.userExits,
        scratch: scratch)
    }
    let outcome: ProbeOutcome =
      counted.each > 0.5
      ? .kernelExit : counted.emulations >= count ? .emulated : .nothing
    return ProbeResult(outcome: outcome, exitsEach: counted.each, scratch: scratch)
  }

  /// Many executions, counted.
  private struct Counted {
    let attempt: Attempt
    /// KVM's exits of each, less the harness's.
    let each: Double
    let emulations: Int
  }

  /// The least of a few countings: what a busy host does meanwhile adds exits and takes none away.
  private func leastOf(
    _ bench: Bench, _ probe: Probe, _ ring: Bench.Ring, _ counter: ExitCounter, _ baseline: Double
  ) throws(LabError) -> Counted {
    var least = try counted(bench, probe, ring, counter, baseline)
    for _ in 1..<Self.countings
    where abs(least.each - least.each.rounded()) > 0.1 || least.each > 1.5 {
      let again = try counted(bench, probe, ring, counter, baseline)
      if again.each < least.each { least = again }
    }
    return least
  }

  private func counted(
    _ bench: Bench, _ probe: Probe, _ ring: Bench.Ring, _ counter: ExitCounter, _ baseline: Double
  ) throws(LabError) -> Counted {
    try prepare(bench)
    let emulations = ExitCounter(bench.vcpu, "insn_emulation")
    let emulationsBefore = try emulations?.value() ?? 0
    let before = try counter.value()
    let attempt = try attempt(bench, probe, ring, count: count)
    let exits = Double(try counter.value() - before) / Double(count)
    return Counted(
      attempt: attempt, each: exits - baseline,
      emulations: try (emulations?.value() ?? 0) - emulationsBefore)
  }

  /// How often KVM tried in vain to emulate one execution of `probe` in ring 3; nil without counters.
  func failedEmulations(_ probe: Probe) throws(LabError) -> Int? {
    let bench = try Bench(kit.image, settings: settings, seconds: 5, what: "'\(probe.name)'")
    guard let counter = ExitCounter(bench.vcpu, "insn_emulation_fail") else { return nil }
    try prepare(bench)
    _ = try attempt(bench, probe, .user, count: 1)
    return try counter.value()
  }

  /// Fills the scratch memory as probe.inc has it.
  private func prepare(_ bench: Bench) throws(LabError) {
    let special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
    var words = [UInt64](repeating: 0, count: 16)
    words[8] = UInt64(special.gdt.limit) | special.gdt.base << 16
    words[9] = special.gdt.base >> 48
    words[10] = UInt64(special.idt.limit) | special.idt.base << 16
    words[11] = special.idt.base >> 48
    (words[12], words[13]) = (special.cr0, special.cr3)
    (words[14], words[15]) = (special.cr4, special.efer)
    try bench.store(words, at: BenchLayout.scratch)
  }

  private struct Attempt {
    var end: ProbeOutcome
    var reason: ExitReason?
    var userExits = 0
  }

  private func attempt(
    _ bench: Bench, _ probe: Probe, _ ring: Bench.Ring, count: Int
  ) throws(LabError) -> Attempt {
    try bench.start(at: BenchLayout.image, ring) { registers in
      registers.r14 = BenchLayout.image + UInt64(probe.offset)
      registers.r15 = UInt64(count)
      registers.rflags |= UInt64(settings.ioPrivilege) << 12
    }
    var attempt = Attempt(end: .nothing)
    while true {
      let exit = try bench.run()
      switch exit {
      case .halt:
        if let exception = try bench.exception() {
          // In ring 3 the HLT that ends the loop faults: that is the end, too.
          let isEnd = ring == .user && exception.instructionPointer == kit.end
          if !isEnd { attempt.end = .fault(vector: exception.vector, error: exception.error) }
          return attempt
        }
        if try bench.registers().rip == kit.end + 1 { return attempt }
        fallthrough
      case .portIO, .mmio, .msrAccess:
        attempt.reason = exit.reason
        attempt.userExits += 1
      case .internalError(suberror: 1):
        attempt.end = .notEmulated
        return attempt
      case .shutdown:
        attempt.end = .other("triple fault")
        return attempt
      default:
        attempt.end = .other(exit.reason.name)
        return attempt
      }
    }
  }

  /// Runs `probe` in this host's user mode; `n/a` with the reason where the host does not let it.
  func runOnHost(_ probe: Probe) -> (outcome: ProbeOutcome, scratch: [UInt64]) {
    let result: (end: UserMode.End, scratch: [UInt64])
    do throws(Errno) {
      result = try UserMode.run(kit.image, entry: probe.offset, scratch: [])
    } catch {
      // Some hosts allow no code that wasn't in a file.
      return (.other("\(Table.notMeasured): \(error.name)"), [UInt64](repeating: 0, count: 8))
    }
    let outcome: ProbeOutcome =
      switch result.end {
      case .returned: .nothing
      case .exception(let vector, let error): .fault(vector: vector, error: UInt64(error))
      case .killed(let number): .other(number == 0 ? "ended its process" : Signal(number).name)
      }
    return (outcome, Array(result.scratch.prefix(8)))
  }
}

/// A guest of the lab by name: they are all embedded, so it's there.
func labGuest(_ name: String) throws(LabError) -> Guest {
  guard let guest = Guest.lab.first(where: { $0.name == name }) else {
    throw .unexpected("kvmlite was built without the lab's guest '\(name)'")
  }
  return guest
}
