import Doctor
import Host
import KVM
import Machine

/// One experiment of the lab: it runs guests and reports what happened.
package struct Experiment: Sendable {
  /// What the command calls it, such as `modes`.
  package let name: String
  /// What it is about, in a few words.
  package let title: String
  /// The lecture it belongs to.
  package let lecture: String
  /// A guest for the student to write, if there is one.
  package let exercise: Exercise?
  /// A program for the student to write, if there is one.
  package let programExercise: ProgramExercise?
  /// What can be varied about it.
  package let variables: [Variable]
  /// The question whose answer is what a variant finds.
  let transfer: Transfer?
  private let body: @Sendable (inout Report, String) throws(LabError) -> Void

  init(
    _ name: String, _ title: String, _ lecture: String, exercise: Exercise? = nil,
    programExercise: ProgramExercise? = nil, variables: [Variable] = [], transfer: Transfer? = nil,
    _ body: @escaping @Sendable (inout Report) throws(LabError) -> Void
  ) {
    self.init(
      withProgram: name, title, lecture, exercise: exercise, programExercise: programExercise,
      variables: variables, transfer: transfer
    ) { report, _ throws(LabError) in try body(&report) }
  }

  /// An experiment whose body gets the path of the program kvmlite.
  init(
    withProgram name: String, _ title: String, _ lecture: String, exercise: Exercise? = nil,
    programExercise: ProgramExercise? = nil, variables: [Variable] = [], transfer: Transfer? = nil,
    _ body: @escaping @Sendable (inout Report, String) throws(LabError) -> Void
  ) {
    self.name = name
    self.title = title
    self.lecture = lecture
    self.exercise = exercise
    self.programExercise = programExercise
    self.variables = variables
    self.transfer = transfer
    self.body = body
  }

  /// Runs it on this host's KVM. Takes less than a minute and needs no right but that to /dev/kvm.
  ///
  /// `program` is kvmlite, of which some experiments start a second process. `times` are shown where
  /// they mean nothing, too, if they are asked for.
  package func run(
    program: String = "/proc/self/exe", times: HostTimes = .read(wasAsked: false),
    variation: Variation? = nil
  ) throws(LabError) -> Report {
    try Self.requireKVM()
    let usual = try? Variation(of: self, student: nil)
    var report = Report(
      self, backEnd: BackEnd.read(HostFacts.read()), times: times,
      variation: variation ?? usual ?? .none)
    try body(&report, program)
    if let transfer { report.leaveOpen(transfer.open(for: report)) }
    return report
  }

  /// Runs the variant that the transfer question of `report` is about, and so answers it.
  package func answerTransfer(
    of report: inout Report, program: String = "/proc/self/exe"
  ) throws(LabError) {
    guard let open = report.transfer else { return }
    let variation = report.variation.changing(open.variable, to: open.value)
    var variant = Report(
      self, backEnd: report.backEnd, times: HostTimes(maker: "a variant"), variation: variation)
    try body(&variant, program)
    guard case .number(let number)? = variant.fact(open.fact) else {
      throw .unexpected("the variant \(open.variable)=\(open.value) says nothing of \(open.fact)")
    }
    report.answer(open, .number(number))
  }

  /// Finds out whether KVM can be used before anything else is done, which without it is nothing.
  static func requireKVM() throws(LabError) {
    _ = try kvm { () throws(KVMError) in try System().version() }
  }

  /// The experiment of that name.
  package static func named(_ name: String) -> Experiment? { all.first { $0.name == name } }

  /// All experiments, in the order of the course.
  package static let all: [Experiment] = [
    modes, critical, risc, exits, build, translation, twoStage, shadow, tlb, slots, ioModels, split,
    multiplex, stack, cow,
  ]
}
