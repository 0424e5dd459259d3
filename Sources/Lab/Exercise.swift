import KVM

/// An exercise in which the student writes a guest: a flat image for long mode, as scripts/guest makes
/// it of docs/labs/skeletons.
package struct Exercise: Sendable {
  /// What the guest is to do.
  package let text: String
  let check: @Sendable ([UInt8]) throws(LabError) -> [Grade.Item]
}

extension Experiment {
  /// Runs `image` and says what it's worth; nil if the experiment has no such exercise.
  package func grade(guest image: [UInt8]) throws(LabError) -> Grade? {
    guard let exercise else { return nil }
    try Self.requireKVM()
    return Grade(name: name, items: try exercise.check(image))
  }
}

extension Bench {
  /// Runs a student's guest to its next exit, or until its time is over: then there is none.
  func runStudent() throws(LabError) -> Exit? {
    do { return try run() } catch {
      guard case .overdue = error else { throw error }
      return nil
    }
  }

  /// How the guest ended by `exit`, as a grade has it.
  func end(by exit: Exit?) throws(LabError) -> String {
    guard let exit else { return "not in time" }
    guard case .halt = exit, let exception = try exception() else { return exit.reason.name }
    return "exception \(exception.name)"
  }
}

extension Grade.Item {
  /// A number that must be met.
  static func counted(
    _ id: String, _ text: String, _ expected: Int, _ seen: Int, points: Int = 1,
    isWork: Bool = true
  ) -> Grade.Item {
    Grade.Item(
      id: id, text: text, expected: "\(expected)", seen: "\(seen)", isRight: expected == seen,
      points: points, isWork: isWork)
  }
}
