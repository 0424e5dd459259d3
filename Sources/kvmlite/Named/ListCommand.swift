import ArgumentParser
import Host
import Machine

/// `kvmlite ls`: the machines there are.
struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ls", abstract: "List the machines that have names.",
    discussion: """
      REAL is what a machine's process takes of the host's memory, shared pages in parts; CPU is its \
      share of one processor, since its start or since the last look; disks and networks count what \
      the guest read and wrote.
      """)

  @Flag(help: "As JSON.")
  var json = false

  @Flag(name: .shortAndLong, help: "Look again each second, until interrupted.")
  var watch = false

  func run() throws {
    let store = MachineStore()
    var last: [MachineName: Listing] = [:]
    while true {
      let listings = Listing.all(in: store)
      try show(listings, since: last)
      guard watch else { return }
      last = Dictionary(uniqueKeysWithValues: listings.map { ($0.machine.name, $0) })
      Clock.wait(until: Clock.monotonicNanoseconds &+ 1_000_000_000)
    }
  }

  private func show(_ listings: [Listing], since last: [MachineName: Listing]) throws {
    let clear = watch && FileDescriptor(borrowing: 1).isTerminal ? "\u{1B}[H\u{1B}[2J" : ""
    if json {
      let machines = JSON(.array(listings.map(\.json)))
      return try Message.output(machines.text)
    }
    guard !listings.isEmpty else {
      return Message.note("there are no machines; start one by: kvmlite up [IMAGE]")
    }
    var table = TextTable([
      "NAME", "STATE", "UPTIME", "VCPUS", "MEMORY", "REAL", "CPU", "DISK R/W", "NET IN/OUT",
    ])
    for listing in listings { table.add(listing.cells(since: last[listing.machine.name])) }
    try Message.output(clear + table.text)
  }
}

/// What `ls` shows of one machine.
struct Listing {
  let machine: KnownMachine
  /// What its process says; nil where there is none.
  private let status: JSON?
  /// How its last run ended, where there is none now.
  private let outcome: JSON?
  private let isTaken: Bool

  /// For how long all machines together may make no answer.
  private static let patience = Seconds(2)

  /// All machines of the store's: they are asked at once, and answer beside each other.
  static func all(in store: MachineStore) -> [Listing] {
    let machines = store.names().map { KnownMachine($0, store.places($0)) }
    let deadline = patience.deadline
    return machines.map { machine in (machine, Asked(machine)) }.map { machine, asked in
      Listing(machine, asked.answer(until: deadline))
    }
  }

  /// A connection over which the status was asked for.
  private final class Asked {
    private let client: ControlClient?

    init(_ machine: KnownMachine) {
      do throws(Failure) { client = try machine.connect() } catch { client = nil }
      try? client?.send(.status)
    }

    func answer(until deadline: UInt64) -> JSON? {
      do throws(ControlClient.Trouble) { return try client?.answer(until: deadline) } catch {
        return nil
      }
    }
  }

  /// What is known of `machine`.
  init(_ machine: KnownMachine, _ status: JSON?) {
    self.machine = machine
    self.status = status
    isTaken = status == nil && machine.places.isTaken
    outcome = status == nil && !isTaken ? machine.readOutcome() : nil
  }

  /// What it is doing, in a word.
  var state: String {
    if let status { return status.text("state") }
    if isTaken { return "busy" }
    guard let outcome else { return "killed" }
    return outcome.text("end")
  }

  /// A row of the table.
  func cells(since last: Listing?) -> [String] {
    guard let status else {
      let code = outcome.map { " (status \($0.number("status")))" } ?? ""
      return [machine.name.description, "ended: \(state)\(code)"]
    }
    return [
      machine.name.description, state, duration(status.number("uptime_ns")),
      "\(status.number("vcpus"))", byteCount(status.number("memory_bytes")),
      status["pss_bytes"] == nil ? "n/a" : byteCount(status.number("pss_bytes")),
      cpuShare(since: last?.status),
      byteCount(status.number("disk_read_bytes")) + " / "
        + byteCount(status.number("disk_written_bytes")),
      byteCount(status.number("net_received_bytes")) + " / "
        + byteCount(status.number("net_sent_bytes")),
    ]
  }

  private func cpuShare(since last: JSON?) -> String {
    guard let status else { return "" }
    func grown(_ name: String) -> Double {
      // Another process may have the name by now.
      let before = last?.number("pid") == status.number("pid") ? last?.number(name) ?? 0 : 0
      return Double(status.number(name)) - Double(before)
    }
    let time = grown("uptime_ns")
    let tenths = time > 0 ? (grown("cpu_ns") / time * 1000).rounded() : 0
    return "\(tenths / 10) %"
  }

  /// The same for programs.
  var json: JSON {
    var members = [
      JSON.Member("name", JSON(.string(machine.name.description))),
      JSON.Member("state", JSON(.string(status == nil && !isTaken ? "ended" : state))),
    ]
    let known = status?.members?.filter { !["ok", "state"].contains($0.name) }
    members += known ?? []
    if let outcome { members.append(JSON.Member("outcome", outcome)) }
    return JSON(.object(members))
  }
}
