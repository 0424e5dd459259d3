extension VMConfiguration {
  /// What the host gives a machine's process and the programs that it starts at most; nil for any
  /// amount.
  ///
  /// The command kvmlite has the host keep them. The library doesn't for a machine in the caller's
  /// process.
  public struct Limits: Sendable, Equatable {
    /// Bytes of memory, the guest's and kvmlite's own, from 1 MiB on.
    public var memory: UInt64?
    /// So many processors' time: 1.5 for that of one and a half. From 0.01 on.
    public var cpus: Double?
    /// How many threads there are, one of them for each VCPU.
    public var threads: Int?
    /// How many bytes are read in a second from each disk of the host's, from 4096 on.
    public var readRate: UInt64?
    /// The same for what is written.
    public var writeRate: UInt64?

    /// No limits.
    public init() {}
  }
}

extension VMConfiguration.Limits {
  /// Those that the settings of an option name, such as `memory=256M`.
  package init(settings: [(name: String, value: String?)]) throws(SpecError) {
    for setting in settings {
      try SpecKeys.limits.read(setting: setting.name, setting.value, into: &self)
    }
  }

  /// Takes those that `other` has in place of its own.
  package mutating func take(_ other: Self) {
    memory = other.memory ?? memory
    cpus = other.cpus ?? cpus
    threads = other.threads ?? threads
    readRate = other.readRate ?? readRate
    writeRate = other.writeRate ?? writeRate
  }
}

extension VMConfiguration {
  /// Refuses limits that no machine can keep: besides its VCPUs' threads there are kvmlite's own, and
  /// KVM's.
  func checkLimits() throws(SpecError) {
    let (least, overflow) = vcpuCount.addingReportingOverflow(2)
    guard let threads = limits.threads, overflow || threads < least else { return }
    throw SpecError(
      "a limit of \(threads) threads is too few: with \(vcpuCount) VCPUs there are \(least) or more",
      path: ["limits", "threads"])
  }
}

extension SpecKeys {
  static let limits = SpecTable<VMConfiguration.Limits>(
    "limits", "what the host gives a machine at most",
    [
      .init("memory", \.memory, .allMemory, "the guest's memory and kvmlite's own, in all"),
      .init("cpus", \.cpus, .processors, "so many processors' time"),
      .init(
        "threads", \.threads, .number(1...4_194_304), "kvmlite's threads, one of them for each VCPU"
      ),
      .init("read", \.readRate, .rate, "what it reads from each disk of the host's in a second"),
      .init("write", \.writeRate, .rate, "what it writes to each of them in a second"),
    ])
}

extension SpecType where Value == Double {
  /// An amount of processor time. The kernel gives at least a hundredth of one processor's.
  fileprivate static let processors = SpecType(
    words: "a number from 0.01 to 1000000, such as 1.5",
    read: { (json) throws(SpecError) in
      let number: Double? =
        switch json.value {
        case .unsigned(let whole): Double(whole)
        case .real(let number): number
        default: nil
        }
      return number.flatMap { (0.01...1_000_000).contains($0) ? $0 : nil }
    },
    print: { JSON(UInt64(exactly: $0).map { .unsigned($0) } ?? .real($0)) },
    setting: { text in
      let text = text ?? ""
      let isPlain = text.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x2E }
      return JSON(isPlain ? Double(text).map { .real($0) } ?? .string(text) : .string(text))
    })
}

extension SpecType where Value == UInt64 {
  /// At least 1 MiB: with less not even kvmlite would start.
  fileprivate static let allMemory = amount(
    from: 1 << 20, "a size such as 512M, or bytes, from 1M on")
  /// How much a second: with less than a page nothing would come to an end.
  fileprivate static let rate = amount(from: 4096, "a size such as 10M, or bytes, from 4K on")

  private static func amount(from least: UInt64, _ words: String) -> SpecType {
    SpecType(
      words: words,
      read: { (json) throws(SpecError) in try size.read(json).flatMap { $0 < least ? nil : $0 } },
      print: size.print)
  }
}
