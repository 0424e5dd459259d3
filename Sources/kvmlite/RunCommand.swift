import ArgumentParser
import Boot
import Host
import Machine
import Memory

/// `kvmlite [run]`: runs an image.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run a guest image (this is the default).",
    discussion: """
      Exit status: 0 when the guest ends in order (power-off, reset with --no-reboot, a halt that \
      nothing can end), (V<<1)|1 when it writes V to port 0xF4, 64 wrong options, 65 malformed \
      image, 66 unreadable image, 69 no usable KVM, 70 the guest crashed, 71 the host failed, \
      77 no permission for /dev/kvm, 124 the time ran out, 128+N ended by signal N.
      """)

  @Argument(
    help: ArgumentHelp(
      "The guest image, or guest:NAME for a built-in guest (see: kvmlite guests).",
      valueName: "image"))
  var image: String?

  @Option(name: .shortAndLong, help: "The guest's memory: a number with K, M, G or T.")
  var memory = MemorySize(bytes: 128 << 20)

  @Option(name: .shortAndLong, help: "How many VCPUs it has.")
  var cpus = 1

  @Option(help: "The mode a flat image starts in: real, protected or long. (default: real)")
  var mode: CPUMode?

  @Option(
    help: ArgumentHelp("Where a flat image is loaded. (default: 0x10000)", valueName: "address"))
  var loadAddress: GuestAddress?

  @Option(
    help: ArgumentHelp(
      "The serial console: stdio, pty, none or file=PATH. (default: stdio)", valueName: "where"))
  var console = ConsoleChoice.stdio

  @Option(
    help: ArgumentHelp(
      "Print a line for each exit; with =io, =mmio, =irq only for these.", valueName: "kinds"))
  var trace: TraceKinds?

  @Option(
    help: ArgumentHelp(
      "Write all exits as trace events for ui.perfetto.dev.", valueName: "out.json"))
  var traceFile: String?

  @Option(
    help: ArgumentHelp(
      "Print counts and times at the end; as JSON with =json.", valueName: "format"))
  var stats: StatisticsFormat?

  @Option(help: ArgumentHelp("End the run after so many seconds.", valueName: "seconds"))
  var timeout: Double?

  @Flag(help: "End when the guest resets the machine, instead of starting it again.")
  var noReboot = false

  func run() throws {
    let status: Int32
    do throws(Failure) {
      status = try runToEnd()
    } catch {
      Message.error(error.message)
      status = error.status
    }
    throw ExitCode(status)
  }

  private func runToEnd() throws(Failure) -> Int32 {
    var configuration = Configuration(
      image: try ImageFile.read(image, mode: mode, limit: memory.bytes))
    if mode != nil { configuration.image.options.mode = mode }
    configuration.image.options.loadAddress = loadAddress
    configuration.memorySize = memory.bytes
    configuration.vcpuCount = cpus
    configuration.timeLimit = timeout
    configuration.observation = try observation()
    configuration.endingSignals = [Signal.interrupt, .terminate, .hangUp].map(\.number)
    return try withConsole(&configuration) { configuration throws(Failure) in
      try runMachine(configuration)
    }
  }

  /// Runs the machine, anew after each reset, and returns the exit status.
  private func runMachine(_ first: Configuration) throws(Failure) -> Int32 {
    var configuration = first
    let start = Clock.monotonicNanoseconds
    while true {
      let machine: Machine
      do { machine = try Machine(configuration) } catch {
        throw Failure(status: error.exitStatus, message: error.description)
      }
      let outcome = machine.run()
      if case .reset = outcome, !noReboot {
        let elapsed = Double(Clock.monotonicNanoseconds - start) / 1e9
        configuration.timeLimit = timeout.map { max($0 - elapsed, 0.001) }
        continue
      }
      return Account(machine, outcome).tell(statistics: stats)
    }
  }

  private func observation() throws(Failure) -> Observation? {
    guard trace != nil || traceFile != nil || stats != nil else { return nil }
    var observation = Observation()
    observation.kinds = trace ?? .all
    if trace != nil { observation.sinks.append(TextTrace(descriptor: 2)) }
    if let traceFile {
      do { observation.sinks.append(try ChromeTrace(path: traceFile)) } catch {
        throw Failure(status: 71, message: "\(traceFile): can't be written: \(error)")
      }
    }
    return observation
  }

  /// Sets up the console, runs `body` and puts the terminal back.
  private func withConsole(
    _ configuration: inout Configuration, _ body: (Configuration) throws(Failure) -> Int32
  ) throws(Failure) -> Int32 {
    switch console {
    case .stdio:
      let interactive = InteractiveConsole()
      configuration.consoleOutput = .descriptor(1)
      configuration.consoleInput = interactive.input
      return try body(configuration)
    case .none:
      return try body(configuration)
    case .file(let path):
      do {
        let file = try FileDescriptor(opening: path, [.writeOnly, .create, .truncate])
        configuration.consoleOutput = .descriptor(file.number)
        return try body(configuration)
      } catch let error as Errno {
        throw Failure(status: 71, message: "\(path): can't be written: \(error)")
      } catch let error as Failure {
        throw error
      } catch { throw Failure(status: 71, message: "\(error)") }
    case .pty:
      do {
        let terminal = try PseudoTerminal()
        Message.note("the console is at \(terminal.path)")
        configuration.consoleOutput = .descriptor(terminal.master.number)
        configuration.consoleInput = .descriptor(terminal.master.number)
        return try body(configuration)
      } catch let error as Errno {
        throw Failure(status: 71, message: "no pseudo terminal to be had: \(error)")
      } catch let error as Failure {
        throw error
      } catch { throw Failure(status: 71, message: "\(error)") }
    }
  }
}
