import Host
import Machine

/// What the host gives one machine at most, and what is said of it.
struct MachineLimits {
  private let spec: VMConfiguration
  private let group: ControlGroup

  /// Limits this process, for a machine of `spec`. `error` is where words go that it can't say any more.
  init(_ spec: VMConfiguration, _ broker: Broker, error: Int32?) {
    self.spec = spec
    let memory = ByteCount.text(spec.limits.memory ?? 0)
    let words =
      "the host's kernel has ended this machine: it had used up its limit of memory, \(memory)"
    group = ControlGroup(
      ControlGroup.Limits(spec.limits), broker,
      words: .init(line: "kvmlite: " + words, outcome: OutcomeReport.ofMemoryLimit(words)),
      error: error)
  }

  /// Limits the disks that it has opened, too. Returns what came of all limits.
  func finish() -> [Confinement.Layer] { group.finish(files: spec.devices.compactMap(\.disk.path)) }

  /// Says which of `layers` aren't there, and what comes of those that are.
  func tell(_ layers: [Confinement.Layer]) {
    for layer in layers {
      if let lack = layer.lack {
        Message.note("\(layer.kind.limited) can't be limited: \(lack)")
      } else if layer.kind == .memoryLimit, let most = spec.limits.memory, spec.memorySize >= most {
        Message.note(
          "the guest's memory, \(ByteCount.text(spec.memorySize)), is not less than the limit of "
            + "\(ByteCount.text(most)): the host's kernel ends the machine when it is used")
      }
    }
  }
}

extension VMConfiguration.Limits {
  /// Says so where one of them may be why the host failed with `message`.
  func explain(_ message: String) {
    guard let threads, message.hasSuffix("\(Errno.tryAgain)") else { return }
    Message.note("that is what a limit of \(threads) threads does where more are needed: raise it")
  }
}

extension ControlGroup.Limits {
  /// Those of a spec.
  fileprivate init(_ limits: VMConfiguration.Limits) {
    self.init()
    (memory, cpus, threads) = (limits.memory, limits.cpus, limits.threads)
    (readRate, writeRate) = (limits.readRate, limits.writeRate)
  }
}

extension VMConfiguration.Limits {
  /// Some of each kind, which nothing reaches.
  static var trial: Self {
    var limits = Self()
    (limits.memory, limits.cpus, limits.threads) = (1 << 40, 1000, 1 << 20)
    (limits.readRate, limits.writeRate) = (1 << 40, 1 << 40)
    return limits
  }
}

extension Confinement.Layer.Kind {
  /// What a limit is of.
  fileprivate var limited: String {
    switch self {
    case .processorLimit: "processor time"
    case .threadLimit: "the number of threads"
    case .diskLimit: "what goes from and to disks"
    default: "memory"
    }
  }
}
