import Boot
import Host
import Inspect
import Machine

/// One use of kvmlite: runs a guest as the options say, anew after each reset, and gives the exit
/// status.
struct Session {
  private let options: RunOptions

  init(_ options: RunOptions) { self.options = options }

  /// Runs to the end; what goes wrong is said on standard error.
  func run() -> Int32 {
    do throws(Failure) {
      var configuration = try makeConfiguration()
      let (networks, vsock) = (configuration.networks, configuration.vsock)
      defer {
        for network in networks { network.backEnd.close() }
        vsock?.host.close()
      }
      return try withConsole(&configuration)
    } catch {
      Message.error(error.message)
      return error.status
    }
  }

  private func makeConfiguration() throws(Failure) -> Configuration {
    var configuration = Configuration(image: try makeImage())
    if let mode = options.mode { configuration.image.options.mode = mode }
    configuration.image.options.loadAddress = options.loadAddress
    configuration.image.options.commandLine = options.commandLine
    for path in options.initrds {
      let bytes = try InputFile.contents(
        of: path, limit: options.memorySize, hint: "the guest's memory; give it more with --memory")
      configuration.image.options.initrds.append(BootFile(bytes, name: path))
    }
    configuration.devices = Set(options.devices)
    configuration.virtioBus = options.virtioBus
    if let target = options.balloonTarget {
      configuration.devices.insert(.balloon)
      configuration.balloonTarget = target
    }
    configuration.deviceTrouble = { Message.note($0) }
    for disk in options.disks { configuration.disks.append(try disk.disk()) }
    for (index, option) in options.networks.enumerated() {
      if let network = try option.network(index: index) { configuration.networks.append(network) }
    }
    configuration.vsock = try options.vsock?.vsock()
    configuration.cpu = options.cpu
    configuration.memorySize = options.memorySize
    configuration.vcpuCount = options.vcpuCount
    configuration.timeLimit = options.timeLimit
    configuration.observation = try makeObservation()
    configuration.endingSignals = [Signal.interrupt, .quit, .terminate, .hangUp]
      .filter { !$0.isIgnored }.map(\.number)
    let walks = options.walks
    configuration.look = (
      Signal.user1.number,
      { machine in
        Message.note(
          walks.isEmpty
            ? "nothing to look at: give addresses by --walk" : "the guest stands still")
        for address in walks { WalkAccount(machine: machine).tell(address.value) }
      }
    )
    return configuration
  }

  private func makeImage() throws(Failure) -> Configuration.Image {
    guard let firmware = options.firmware else {
      return try ImageFile.read(options.image, limit: options.memorySize)
    }
    guard options.image == nil else {
      throw Failure(
        status: 64, message: "firmware starts from a disk, not from an image: give only one of both"
      )
    }
    let bytes = try InputFile.contents(of: firmware, limit: 16 << 20, hint: "a firmware ROM")
    var image = Configuration.Image(bytes, name: firmware)
    image.isFirmware = true
    return image
  }

  private func makeObservation() throws(Failure) -> Observation? {
    guard options.trace != nil || options.traceFile != nil || options.statistics != nil else {
      return nil
    }
    var observation = Observation()
    observation.kinds = options.trace ?? .all
    observation.continuesAfterReset = options.reboots
    if options.trace != nil {
      if FileDescriptor(borrowing: 1).isTerminal && FileDescriptor(borrowing: 2).isTerminal {
        observation.terminalLine = TerminalLine()
      }
      observation.sinks.append(
        TextTrace(descriptor: 2, terminalLine: observation.terminalLine))
    }
    if let path = options.traceFile {
      do { observation.sinks.append(try ChromeTrace(path: path)) } catch {
        throw Failure(status: 71, message: "\(path): can't be written: \(error)")
      }
    }
    return observation
  }

  // MARK: Console

  /// Sets up the console, runs, and puts the terminal back.
  private func withConsole(_ configuration: inout Configuration) throws(Failure) -> Int32 {
    configuration.consoleInputDevice = options.console.input
    switch options.console.place {
    case .none: return try runToEnd(configuration)
    case .stdio:
      let terminal = InteractiveConsole()
      configuration.consoleOutput = .descriptor(1)
      configuration.consoleInput = terminal.input
      return try runToEnd(configuration)
    case .file(let path):
      let file: FileDescriptor = try orFailure("\(path): can't be written") { () throws(Errno) in
        try FileDescriptor(opening: path, [.writeOnly, .create, .truncate])
      }
      configuration.consoleOutput = .descriptor(file.number)
      return try runToEnd(configuration)
    case .pty:
      let terminal = try orFailure("no pseudo terminal to be had") { () throws(Errno) in
        try PseudoTerminal()
      }
      Message.note("the console is at \(terminal.path)")
      configuration.consoleOutput = .terminal(terminal.master.number)
      configuration.consoleInput = .descriptor(terminal.master.number)
      return try runToEnd(configuration)
    }
  }

  private func orFailure<Result: ~Copyable>(
    _ what: String, _ body: () throws(Errno) -> Result
  ) throws(Failure) -> Result {
    do { return try body() } catch { throw Failure(status: 71, message: "\(what): \(error)") }
  }

  // MARK: Running

  private func runToEnd(_ first: Configuration) throws(Failure) -> Int32 {
    var configuration = first
    let start = Clock.monotonicNanoseconds
    while true {
      let machine: Machine
      do { machine = try Machine(configuration) } catch {
        throw Failure(error)
      }
      if options.isVerbose { MachineSummary(machine).tell() }
      let outcome = machine.run()
      guard case .reset = outcome, options.reboots else {
        let status = Account(machine, outcome).tell(statistics: options.statistics)
        for address in options.walks { WalkAccount(machine: machine).tell(address.value) }
        return status
      }
      // A reset takes nothing from what the user has typed.
      configuration.unreadInput = machine.unreadInput
      let elapsed = Double(Clock.monotonicNanoseconds - start) / 1e9
      configuration.timeLimit = options.timeLimit.map { max($0 - elapsed, 0.001) }
    }
  }
}
