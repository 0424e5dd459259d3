import Host

/// An exercise in which the student writes a program in C for the host.
package struct ProgramExercise: Sendable {
  /// Compiles and tries it; the seed chooses what it is tried with.
  let check: @Sendable ([UInt8], UInt64) throws(LabError) -> [Grade.Item]
}

extension Experiment {
  /// Says what the C program `source` is worth; nil if the experiment has no such exercise. Without a
  /// seed, what it is tried with is new each time.
  package func grade(program source: [UInt8], seed: UInt64? = nil) throws(LabError) -> Grade? {
    guard let programExercise else { return nil }
    try Self.requireKVM()
    let seed = if let seed { seed } else { try Self.newSeed() }
    return Grade(name: name, items: try programExercise.check(source, seed))
  }

  private static func newSeed() throws(LabError) -> UInt64 {
    try host { () throws(Errno) in
      var bytes = [UInt8](repeating: 0, count: 8)
      var span = bytes.mutableSpan
      try RandomBytes.fill(&span)
      return bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}

/// Tries a student's hypervisor with the guests of the lab `build`.
struct HypervisorCheck {
  private let program: StudentProgram
  private var random: RandomNumbers
  /// Guests that each task is tried with: two, so that no constant is right.
  private static let trials = 2
  /// Seconds for a guest; more where the processor is made of software.
  static let seconds = HostTimes.read(wasAsked: false).maker == nil ? 5 : 20

  /// What the program was worth in a task: nil if it was right, else what it did.
  private struct Failure {
    let expected: String
    let seen: String
    let wasOverdue: Bool
  }

  /// All that there is to say of `source`.
  static func items(_ source: [UInt8], seed: UInt64) throws(LabError) -> [Grade.Item] {
    var check = HypervisorCheck(
      program: try StudentProgram(source, seconds: seconds), random: RandomNumbers(seed: seed))
    return try check.items()
  }

  private mutating func items() throws(LabError) -> [Grade.Item] {
    let trouble = try program.compile()
    var items: [Grade.Item] = []
    if let trouble {
      items.append(
        Grade.Item(
          id: "compile", text: "it can be compiled", expected: "a program",
          seen: trouble.words, isRight: false, points: 0, place: "the compiler's words",
          isWork: false))
    }
    // One that doesn't end in a step would cost as much time in each other one.
    var isLate = false
    for task in BuildTask.allCases {
      var failure: Failure?
      if trouble != nil {
        failure = Failure(expected: "", seen: "doesn't compile", wasOverdue: false)
      } else if isLate {
        failure = Failure(
          expected: "", seen: "not tried: it did not end before", wasOverdue: false)
      } else {
        failure = try self.failure(task)
      }
      isLate = isLate || failure?.wasOverdue == true
      items.append(
        Grade.Item(
          id: "\(task.step)-\(task.rawValue)", text: task.text, expected: failure?.expected ?? "",
          seen: failure?.seen ?? "right", isRight: failure == nil, points: task.points,
          place: "step \(task.step): \(task.text)"))
    }
    return items
  }

  private mutating func failure(_ task: BuildTask) throws(LabError) -> Failure? {
    var known: [UInt8] = []
    for _ in 0..<Self.trials {
      var trial = try task.trial(&random)
      var right = try SmallMachine.run(trial.image, input: trial.input).printed
      // No two are the same.
      while right == known {
        trial = try task.trial(&random)
        right = try SmallMachine.run(trial.image, input: trial.input).printed
      }
      known = right
      let (end, output, words) = try program.run(trial.image, input: trial.input)
      guard end != .exited(0) || output != right else { continue }
      return Failure(
        expected: Self.told(right), seen: Self.told(end, output, words),
        wasOverdue: end == .overdue)
    }
    return nil
  }

  /// The end of a wrong run, in words.
  private static func told(_ end: Workshop.End, _ output: [UInt8], _ words: String) -> String {
    let said = words.isEmpty ? "" : " (it says: \(words))"
    switch end {
    case .overdue: return "did not end in \(seconds) seconds"
    case .killed(let signal):
      return signal.name == "SIGXFSZ" ? "printed too much" : "ended by \(signal.name)" + said
    case .exited(0): return output.isEmpty ? "printed nothing" + said : "printed " + told(output)
    case .exited(let status): return "ended with status \(status)" + said
    }
  }

  /// What was printed, in one line.
  private static func told(_ output: [UInt8]) -> String {
    let text = String(decoding: output.prefix(80), as: UTF8.self).replacing("\n", with: "\\n")
    return "'" + Markup.printable(text) + (output.count > 80 ? "..." : "") + "'"
  }
}
