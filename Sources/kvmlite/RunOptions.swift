import Boot
import Machine
import Memory

/// What the command line asks of a run.
struct RunOptions {
  var image: String?
  var memorySize: UInt64 = 128 << 20
  var vcpuCount = 1
  var mode: CPUMode?
  var loadAddress: GuestAddress?
  var initrds: [String] = []
  var firmware: String?
  var devices: [OptionalDevice] = []
  var balloonTarget: UInt64?
  var virtioBus = Configuration.VirtioBus.pci
  var disks: [DiskOption] = []
  var networks: [NetworkOption] = []
  var vsock: VsockOption?
  var commandLine: String?
  var cpu = CPUModel.host
  var console = ConsoleChoice()
  var trace: TraceKinds?
  var traceFile: String?
  var statistics: StatisticsFormat?
  var walks: [GuestAddress] = []
  var timeLimit: Double?
  var reboots = true
  var isVerbose = false
}

extension RunOptions {
  /// The options of a command line that has none: `kvmlite [run] [IMAGE]`; nil for any other.
  init?(withoutOptions arguments: [String]) {
    let words = arguments.first == "run" ? arguments.dropFirst() : arguments[...]
    let commands = ["run", "doctor", "guests", "lab", "disk", "backend", "timeline", "help"]
    guard words.count <= 1,
      words.allSatisfy({ !$0.hasPrefix("-") && !$0.isEmpty && !commands.contains($0) })
    else { return nil }
    self.init(image: words.first)
  }
}
