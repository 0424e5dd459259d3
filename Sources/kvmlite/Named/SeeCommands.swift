import ArgumentParser
import Host
import Machine

// The verbs that look at one machine.

/// `kvmlite inspect`.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show what a machine, or a saved one, is made of, and where its files are.",
    discussion: """
      Of a saved machine, its folder, it shows what the folder has, and what is needed to go on with \
      it; 65 for one that is damaged.
      """)

  @Argument(
    help: ArgumentHelp(
      "The machine's name (see: kvmlite ls), or a folder that kvmlite save made.",
      valueName: "machine"))
  var name: String

  @Flag(help: "As JSON.")
  var json = false

  @Flag(help: "Look whether all memory of a saved machine is as it was saved, which takes a while.")
  var verify = false

  func run() throws {
    let isJSON = json
    try ending { () throws(Failure) in
      if name.contains("/") || MachineStore().lacks(name) && SavedAccount.isThere(name) {
        return try SavedAccount.tell(name, isJSON: isJSON, verifies: verify)
      }
      let machine = try KnownMachine(name)
      guard !verify else {
        throw Failure(
          status: 64,
          message: "--verify is for a saved machine: give its folder, such as ./\(name)")
      }
      let account = try MachineAccount(machine)
      do { try Message.output(isJSON ? account.json.text : account.text) } catch { return 71 }
      return 0
    }
  }
}

/// `kvmlite stats`.
struct StatsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Show what a machine has done so far.",
    discussion: """
      Counts of exits are there if it was started with --stats or --trace-file; KVM's own counters are \
      there always. The machine stands still for a moment.
      """)

  @OptionGroup var machine: MachineArgument

  @Flag(help: "As JSON.")
  var json = false

  @Flag(name: .shortAndLong, help: "Look again each second, until it ends.")
  var watch = false

  func run() throws {
    let (isJSON, isRepeated) = (json, watch)
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      var last: JSON?
      repeat {
        if last != nil { Clock.wait(until: Clock.monotonicNanoseconds &+ 1_000_000_000) }
        guard last == nil || machine.places.isTaken else { return 0 }
        let now = try machine.ask(.stats)
        let isScreen = isRepeated && FileDescriptor(borrowing: 1).isTerminal
        let text = isJSON ? now.text : Self.table(now, since: last)
        do { try Message.output((isScreen ? "\u{1B}[H\u{1B}[2J" : "") + text) } catch { return 71 }
        last = now
      } while isRepeated
      return 0
    }
  }

  private static func table(_ now: JSON, since last: JSON?) -> String {
    var table = TextTable(["", "so far"] + (last == nil ? [] : ["in a second"]))
    table.add(["time", duration(now.number("elapsed_ns"))])
    table.add(["memory touched", byteCount(now.number("touched_bytes"))])
    let time = Double(now.number("elapsed_ns")) - Double(last?.number("elapsed_ns") ?? 0)
    for group in ["exits", "kvm"] {
      for member in now[group]?.members ?? [] {
        let count = now[group]?.number(member.name) ?? 0
        var row = ["\(group) \(member.name)", "\(count)"]
        if let last, time > 0 {
          let more = Double(count) - Double(last[group]?.number(member.name) ?? 0)
          row.append("\(Int((more / time * 1e9).rounded()))")
        }
        table.add(row)
      }
    }
    return table.text
  }
}

/// All that can be told of a machine.
struct MachineAccount {
  private let machine: KnownMachine
  private let spec: VMConfiguration
  private let status: JSON?
  private let devices: JSON?
  private let state: String

  init(_ machine: KnownMachine) throws(Failure) {
    self.machine = machine
    do throws(StoreError) { spec = try machine.places.readSpec() } catch {
      throw Failure(error, machine.name)
    }
    let isRunning = try machine.connect() != nil
    status = isRunning ? try machine.ask(.status) : nil
    devices = isRunning ? try machine.ask(.inspect)["devices"] : nil
    state = Listing(machine, status).state
  }

  /// What its files are called, and where they are.
  private var places: [(name: String, path: String)] {
    let places = machine.places
    return [
      ("spec", places.spec), ("console", places.console), ("words", places.words),
      ("outcome", places.outcome), ("lock", places.lock),
    ].filter { FileDescriptor.exists($0.1) }
  }

  /// Where other programs may connect.
  private var sockets: [(name: String, path: String)] {
    var sockets = status == nil ? [] : [("control", machine.places.control)]
    for device in spec.devices {
      if let path = device.vsock.socket { sockets.append((device.id, path)) }
    }
    return sockets
  }

  var json: JSON {
    func object(_ list: [(name: String, path: String)]) -> JSON {
      JSON(.object(list.map { JSON.Member($0.name, JSON(.string($0.path))) }))
    }
    var members = [
      JSON.Member("name", JSON(.string(machine.name.description))),
      JSON.Member("state", JSON(.string(state))),
    ]
    if let status { members.append(JSON.Member("pid", JSON(.unsigned(status.number("pid"))))) }
    members += [
      JSON.Member("places", object(places)), JSON.Member("sockets", object(sockets)),
      JSON.Member("spec", spec.json),
    ]
    if let devices { members.append(JSON.Member("devices", devices)) }
    if let outcome = machine.readOutcome() { members.append(JSON.Member("outcome", outcome)) }
    return JSON(.object(members))
  }

  var text: String {
    var table = TextTable([machine.name.description, state])
    if let status { table.add(["process", "\(status.number("pid"))"]) }
    table.add(["image", spec.firmware ?? spec.image ?? "guest:hello-real"])
    table.add(["memory", byteCount(spec.memorySize)])
    table.add(["VCPUs", "\(spec.vcpuCount)"])
    for (name, path) in places { table.add([name, path]) }
    for (name, path) in sockets { table.add([name + " socket", path]) }
    if case .array(let list)? = devices?.value {
      for device in list {
        var at: [String] = []
        if case .array(let places)? = device["places"]?.value {
          at = places.compactMap { if case .string(let text) = $0.value { text } else { nil } }
        }
        table.add([device.text("id"), device.text("kind") + ": " + at.joined(separator: ", ")])
      }
    }
    return table.text
  }
}
