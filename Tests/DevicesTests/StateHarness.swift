import Devices
import Synchronization
import TestSupport
import Testing

/// A device with all around it recorded, to be reset, saved and restored at random moments.
protocol StateSubject: AnyObject {
  /// The device, or all that hang together.
  var device: any Stateful { get }

  /// Does one thing to it, as a guest or a host would, and returns what was answered. It chooses by
  /// `random` alone, and nothing is in flight when it returns: a device with threads is waited for.
  func operate(_ random: inout SplitMix) -> [UInt64]

  /// What lines, sinks, messages and the machine have heard since this was called last.
  func heard() -> [String]

  /// How the lines stand now.
  var levels: [Bool] { get }

  /// The fields that tell something of the host, by their paths.
  var hostFields: Set<String> { get }

  /// Makes what isn't the device's own, such as memory and disks, as `other` has it.
  func takeWorld(of other: Self)
}

extension StateSubject {
  var hostFields: Set<String> { [] }
  func takeWorld(of other: Self) {}

  var saved: [UInt8] {
    var writer = StateWriter()
    device.save(to: &writer)
    return writer.bytes
  }

  func restore(_ bytes: [UInt8]) throws(StateError) {
    try device.restore(from: StateReader(bytes))
  }

  /// Some operations, whose answers nobody wants.
  func use(_ random: inout SplitMix, _ count: Int) {
    for _ in 0..<count { _ = operate(&random) }
    _ = heard()
  }
}

/// What must hold for every device that has a state.
enum StateHarness {
  /// All of it, for one seed: each number of `count` operations is tried once or more.
  static func check<Subject: StateSubject>(
    seed: UInt64, count: Int = 300, rounds: Int = 60, _ make: () throws -> Subject
  ) throws {
    try resetEqualsNew(seed: seed, count: count, make)
    try restoredAnswersAlike(seed: seed, count: count, make)
    try lacksNothing(seed: seed, count: count, make)
    try bearsDamage(seed: seed, count: count, rounds: rounds, make)
  }

  /// A device that was used and reset has the state of a new one, and answers like it.
  static func resetEqualsNew<Subject: StateSubject>(
    seed: UInt64, count: Int, _ make: () throws -> Subject
  ) throws {
    var random = SplitMix(seed)
    let (used, new) = (try make(), try make())
    used.use(&random, count)
    used.device.reset()
    new.takeWorld(of: used)
    expectAlike(used, new, seed, count, "reset")
  }

  /// A device whose state was taken out and put into another goes on there.
  static func restoredAnswersAlike<Subject: StateSubject>(
    seed: UInt64, count: Int, _ make: () throws -> Subject
  ) throws {
    var random = SplitMix(seed)
    for _ in 0..<4 {
      let (used, other) = (try make(), try make())
      used.use(&random, Int.random(in: 0...count, using: &random))
      // What it takes over may have been in use, too.
      other.use(&random, Int.random(in: 0...20, using: &random))
      other.takeWorld(of: used)
      try other.restore(used.saved)
      expectAlike(used, other, random.next(), count, "restored")
    }
  }

  /// Without any of its fields a state isn't taken.
  static func lacksNothing<Subject: StateSubject>(
    seed: UInt64, count: Int, _ make: () throws -> Subject
  ) throws {
    var random = SplitMix(seed)
    let used = try make()
    used.use(&random, count)
    let bytes = used.saved
    for field in StateField.all(in: bytes) {
      let less = StateField.removing(field, from: bytes)
      #expect(throws: StateError.self, "without \(field.path)") { try make().restore(less) }
    }
  }

  /// Whatever bytes come, there is an error, or a device that answers.
  static func bearsDamage<Subject: StateSubject>(
    seed: UInt64, count: Int, rounds: Int = 60, _ make: () throws -> Subject
  ) throws {
    var random = SplitMix(seed)
    let (used, victim) = (try make(), try make())
    for _ in 0..<Trials.rounds(rounds) {
      used.use(&random, count / 10)
      let bytes = used.saved
      for field in StateField.all(in: bytes) {
        var damaged = bytes
        let value = UInt8.random(in: 0...3, using: &random)
        for place in field.value {
          damaged[place] =
            switch value {
            case 0: 0xFF
            case 1: 0
            case 2: UInt8.random(in: 0...255, using: &random)
            default: damaged[place] ^ (1 << UInt8.random(in: 0...7, using: &random))
            }
        }
        tryOut(victim, damaged, &random)
      }
      for _ in 0..<10 { tryOut(victim, Self.damaged(bytes, &random), &random) }
    }
    victim.device.reset()
    victim.use(&random, count)
  }

  private static func tryOut(
    _ subject: some StateSubject, _ bytes: [UInt8], _ random: inout SplitMix
  ) {
    // An error is as good as none: neither may trap, then or later.
    do throws(StateError) { try subject.restore(bytes) } catch {}
    subject.use(&random, 5)
    _ = subject.saved
  }

  private static func damaged(_ bytes: [UInt8], _ random: inout SplitMix) -> [UInt8] {
    guard !bytes.isEmpty else { return [0] }
    var bytes = bytes
    let place = Int.random(in: bytes.indices, using: &random)
    switch Int.random(in: 0..<5, using: &random) {
    case 0: bytes.removeSubrange(place...)
    case 1: bytes.remove(at: place)
    case 2: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
    case 3: bytes.swapAt(place, Int.random(in: bytes.indices, using: &random))
    default: bytes[place] = UInt8.random(in: 0...255, using: &random)
    }
    return bytes
  }

  /// Both have the same state and lines, and the same answers to the same operations.
  private static func expectAlike<Subject: StateSubject>(
    _ one: Subject, _ other: Subject, _ seed: UInt64, _ count: Int, _ what: String
  ) {
    func differences() -> [String] {
      StateField.differences(one.saved, other.saved, but: one.hostFields)
    }
    #expect(differences() == [], "\(what), seed \(seed): the states")
    #expect(one.levels == other.levels, "\(what), seed \(seed): the lines")
    _ = (one.heard(), other.heard())
    var (random, same) = (SplitMix(seed), SplitMix(seed))
    for step in 0..<count {
      let (answers, others) = (one.operate(&random), other.operate(&same))
      let (heard, otherHeard) = (one.heard(), other.heard())
      guard answers == others, heard == otherHeard else {
        Issue.record(
          """
          \(what), seed \(seed), step \(step): \(answers.prefix(9)) and \(others.prefix(9)), \
          \(heard) and \(otherHeard)
          """)
        return
      }
    }
    #expect(differences() == [], "\(what), seed \(seed): at the end")
  }
}

/// A field of a state as its bytes have it.
struct StateField {
  /// The names of its groups and its own.
  let path: String
  /// Where it begins, the fields that it is in, and where its value is.
  let start: Int
  let outer: [Range<Int>]
  let value: Range<Int>
  let isGroup: Bool

  /// All fields, and what is in them if they are groups.
  static func all(in bytes: [UInt8]) -> [StateField] {
    fields(bytes, bytes.indices, "", []) ?? []
  }

  // A value is a group if it can be read as one.
  private static func fields(
    _ bytes: [UInt8], _ range: Range<Int>, _ path: String, _ outer: [Range<Int>]
  ) -> [StateField]? {
    var (fields, place): ([StateField], Int) = ([], range.lowerBound)
    while place < range.upperBound {
      let nameEnd = place + 1 + Int(bytes[place])
      guard nameEnd + 4 <= range.upperBound, bytes[place] > 0 else { return nil }
      let name = String(decoding: bytes[place + 1..<nameEnd], as: UTF8.self)
      let count = (0..<4).reduce(0) { $0 | Int(bytes[nameEnd + $1]) << (8 * $1) }
      guard count <= range.upperBound - nameEnd - 4 else { return nil }
      let value = nameEnd + 4..<nameEnd + 4 + count
      let inner = Self.fields(bytes, value, "\(path)\(name).", outer + [value]) ?? []
      fields.append(
        StateField(
          path: path + name, start: place, outer: outer, value: value, isGroup: !inner.isEmpty))
      fields += inner
      place = value.upperBound
    }
    return fields
  }

  /// `bytes` without `field`; the lengths of the groups around it are put right.
  static func removing(_ field: StateField, from bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    let size = field.value.upperBound - field.start
    for group in field.outer {
      for index in 0..<4 {
        bytes[group.lowerBound - 4 + index] =
          UInt8(truncatingIfNeeded: (group.count - size) >> (8 * index))
      }
    }
    bytes.removeSubrange(field.start..<field.value.upperBound)
    return bytes
  }

  /// What two states have in different ways, in words.
  static func differences(_ one: [UInt8], _ other: [UInt8], but ignored: Set<String>) -> [String] {
    let (fields, others) = (
      all(in: one).filter { !$0.isGroup }, all(in: other).filter { !$0.isGroup }
    )
    let found = zip(fields, others).compactMap { field, same in
      field.path == same.path && one[field.value] == other[same.value]
        || ignored.contains(field.path)
        ? nil : "\(field.path): \(one[field.value]), \(same.path): \(other[same.value])"
    }
    return fields.count == others.count ? found : found + ["one has more fields"]
  }
}

/// Takes down what a device says to the world.
final class StateLog: Sendable {
  private let entries = Mutex<[String]>([])

  func note(_ text: String) { entries.withLock { $0.append(text) } }

  /// What was said since the last call.
  func take() -> [String] {
    entries.withLock { entries in
      defer { entries = [] }
      return entries
    }
  }
}

/// A line whose levels are taken down; set to what it has already it says nothing.
final class LoggedLine: InterruptLine {
  private let name: String
  private let log: StateLog
  private let level = Mutex(false)

  init(_ name: String, _ log: StateLog) { (self.name, self.log) = (name, log) }

  var isRaised: Bool { level.withLock { $0 } }

  func set(_ isRaised: Bool) {
    level.withLock { level in
      if level != isRaised { log.note("\(name) \(isRaised ? "up" : "down")") }
      level = isRaised
    }
  }
}
