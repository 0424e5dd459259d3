/// A number of an experiment that may be another one.
package struct Variable: Sendable {
  /// What `--vary` calls it.
  package let name: String
  /// What it is a number of.
  package let meaning: String
  /// What it is without being asked for.
  package let usual: Int
  /// What it may be.
  package let range: ClosedRange<Int>
  /// What a student's seed may choose.
  let seeded: [Int]
  private let isPowerOfTwo: Bool

  init(
    _ name: String, _ meaning: String, _ usual: Int, _ range: ClosedRange<Int>,
    isPowerOfTwo: Bool = false, seeded: [Int] = []
  ) {
    (self.name, self.meaning, self.usual, self.range) = (name, meaning, usual, range)
    self.isPowerOfTwo = isPowerOfTwo
    self.seeded = seeded
  }

  func allows(_ value: Int) -> Bool {
    range.contains(value) && (!isPowerOfTwo || value & (value - 1) == 0)
  }
}

/// How one run of an experiment differs from the usual one: by a student's seed, which makes the numbers
/// that student's own, and by what was asked for.
package struct Variation: Sendable {
  /// A variation that there is none of; its words say which there are.
  package struct Unknown: Error, CustomStringConvertible {
    /// What is wrong.
    package let description: String
    /// The name that is none; nil where the value is what's wrong.
    package let name: String?
  }

  /// Whose run it is; nil for the usual one.
  package let student: String?
  private(set) var values: [String: Int]
  private let seed: UInt64

  /// The usual run.
  static let none = Variation(student: nil, values: [:], seed: 0)

  private init(student: String?, values: [String: Int], seed: UInt64) {
    (self.student, self.values, self.seed) = (student, values, seed)
  }

  /// The run of `student`, with each of `changes`, in which a later one counts.
  package init(
    of experiment: Experiment, student: String?, changes: [(name: String, value: Int)] = []
  ) throws(Unknown) {
    // FNV-1a, so that two students' numbers have nothing in common.
    let text = student.map { experiment.name + "/" + $0 } ?? ""
    let seed =
      student == nil
      ? 0 : text.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    var random = RandomNumbers(seed: seed)
    var values: [String: Int] = [:]
    for variable in experiment.variables {
      let choice = Int(random.next() % UInt64(max(1, variable.seeded.count)))
      values[variable.name] =
        student == nil || variable.seeded.isEmpty ? variable.usual : variable.seeded[choice]
    }
    for change in changes {
      guard let variable = experiment.variables.first(where: { $0.name == change.name }) else {
        let names = experiment.variables.map(\.name).joined(separator: ", ")
        throw Unknown(
          description: "'\(experiment.name)' has no '\(change.name)' to vary; it has: \(names)",
          name: change.name)
      }
      guard variable.allows(change.value) else {
        throw Unknown(
          description: "\(variable.name) is from \(variable.range.lowerBound) to "
            + "\(variable.range.upperBound) (\(variable.meaning))", name: nil)
      }
      values[change.name] = change.value
    }
    self.init(student: student, values: values, seed: seed)
  }

  /// The value of a variable of the experiment's.
  subscript(_ name: String) -> Int { values[name] ?? 0 }

  /// The same with another value.
  func changing(_ name: String, to value: Int) -> Variation {
    var other = self
    other.values[name] = value
    return other
  }

  /// Numbers without a pattern: the usual ones of `seed`, or the student's own.
  func random(_ seed: UInt64) -> RandomNumbers { RandomNumbers(seed: seed &+ self.seed) }

  /// `count` of `items` in their order, chosen at random; those of `kept` are always among them.
  func choice<Item>(
    _ count: Int, of items: [Item], keeping kept: (Item) -> Bool
  ) -> [Item] {
    var random = random(11)
    var places = Array(items.indices)
    for index in places.indices.reversed().dropLast() {
      places.swapAt(index, Int(random.next() % UInt64(index + 1)))
    }
    let sorted = places.filter { kept(items[$0]) } + places.filter { !kept(items[$0]) }
    return sorted.prefix(max(0, count)).sorted().map { items[$0] }
  }
}

/// A question whose number stands in no table: what the experiment finds if it is varied. Grading runs
/// the variant to see.
package struct Transfer: Sendable {
  let id: String
  /// What is varied, and the values of which the student's seed chooses.
  let variable: String
  let values: [Int]
  /// The fact of the variant's report that is the answer.
  let fact: String
  /// The question for a value.
  let text: @Sendable (Int) -> String

  /// A transfer question for one run.
  package struct Open: Sendable {
    /// What a sheet calls it.
    package let id: String
    /// The question.
    package let text: String
    /// What it's worth: a third of all points.
    package let points: Int
    let variable: String
    let value: Int
    let fact: String
  }

  /// The question to the student of `report`, about a value that isn't the run's own.
  func open(for report: Report) -> Open {
    let values = values.filter { $0 != report.variation[variable] }
    var random = report.variation.random(23)
    let value = values[Int(random.next() % UInt64(max(1, values.count)))]
    let others = report.questions.reduce(0) { $0 + $1.points }
    return Open(
      id: id, text: text(value), points: max(1, (others + 1) / 2), variable: variable,
      value: value, fact: fact)
  }
}
