import Devices
import KVM

/// Exits by reason, with times: what one VCPU's recorder counts.
public struct ExitStatistics: Sendable {
  /// One line of the table.
  public struct Count: Sendable {
    /// How many exits.
    public var count: UInt64 = 0
    /// How long kvmlite took for them, in nanoseconds.
    public var handling: UInt64 = 0
  }

  /// By what the exits are called: `io`, `mmio`, or a rarer reason.
  public internal(set) var portIO = Count()
  /// Accesses to addresses without memory.
  public internal(set) var mmio = Count()
  /// Kicks: signals that made `KVM_RUN` return.
  public internal(set) var interrupted = Count()
  /// Everything else, by reason.
  package internal(set) var rare: [ExitReason: Count] = [:]
  /// Time inside `KVM_RUN`, in nanoseconds.
  public internal(set) var inGuest: UInt64 = 0
  /// Port I/O and MMIO that no device claimed.
  public internal(set) var unclaimed: UInt64 = 0
  /// Accesses that repeated instructions made beyond the first.
  public internal(set) var repeated: UInt64 = 0

  mutating func add(_ exit: Exit, inGuest time: UInt64, handling: UInt64, isClaimed: Bool) {
    inGuest &+= time
    switch exit {
    case .portIO(let io):
      portIO.add(handling)
      repeated &+= UInt64(io.count - 1)
      if !isClaimed { unclaimed &+= 1 }
    case .mmio:
      mmio.add(handling)
      if !isClaimed { unclaimed &+= 1 }
    case .interrupted: interrupted.add(handling)
    default: rare[exit.reason, default: Count()].add(handling)
    }
  }

  /// Adds another VCPU's numbers.
  mutating func add(_ other: ExitStatistics) {
    portIO.add(other.portIO)
    mmio.add(other.mmio)
    interrupted.add(other.interrupted)
    rare.merge(other.rare) { $0.adding($1) }
    inGuest &+= other.inGuest
    unclaimed &+= other.unclaimed
    repeated &+= other.repeated
  }

  /// All lines that aren't zero, the most frequent first.
  public var rows: [(name: String, count: Count)] {
    let fixed = [("io", portIO), ("mmio", mmio), ("kick", interrupted)]
    let others = rare.map { ($0.key.name, $0.value) }
    return (fixed + others).filter { $0.1.count > 0 }
      .sorted { ($0.1.count, $1.0) > ($1.1.count, $0.0) }
      .map { (name: $0.0, count: $0.1) }
  }
}

extension ExitStatistics.Count {
  mutating func add(_ nanoseconds: UInt64) {
    count &+= 1
    handling &+= nanoseconds
  }

  mutating func add(_ other: Self) { self = adding(other) }

  func adding(_ other: Self) -> Self {
    Self(count: count &+ other.count, handling: handling &+ other.handling)
  }
}

/// What there is to tell of a run that was observed.
public struct RunStatistics: Sendable {
  /// All VCPUs' exits together.
  public var exits = ExitStatistics()
  /// Wall-clock time from the first VCPU's start to the last one's end, in nanoseconds.
  public var elapsed: UInt64 = 0
  /// How many VCPUs there were.
  public var vcpuCount = 0
  /// RAM that the guest and its loader touched, in bytes.
  public var touchedMemory = 0
  /// RAM that the guest has, in bytes.
  public var memorySize: UInt64 = 0
  /// What the IDE drives and the virtio devices did.
  public var devices: [DeviceStatistics] = []
  /// KVM's own counters that aren't zero, all VCPUs and the VM added up.
  public var kernel: [(name: String, value: UInt64)] = []

  /// Time that VCPUs spent in kvmlite, in nanoseconds.
  public var inKvmlite: UInt64 { exits.rows.reduce(0) { $0 &+ $1.count.handling } }
}
