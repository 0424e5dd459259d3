import KVM
import Memory

// What the files of `--stats-file` and `--outcome-file` say (docs/statistics.md), for another process than
// the one that wrote them.

extension CrashReport {
  /// A crash in words.
  package struct Told: Sendable {
    package var summary = ""
    package var explanation: [String] = []
    package var lastExits: [String] = []
  }

  /// What `json`, the end of a machine that crashed, says.
  fileprivate init(_ json: JSON) {
    let words = Told(
      summary: json.text("summary"), explanation: json.texts("explanation"),
      lastExits: json.texts("last_exits"))
    (vcpu, told) = (Int(clamping: json.number("vcpu")), words)
    (exit, internalErrorData, history) = (.interrupted, [], ExitHistory())
    registers = RegisterNames.general(json["registers"])
    specialRegisters = RegisterNames.special(json["special_registers"])
    registersAreReset = json["registers_are_reset"]?.value == .bool(true)
    code =
      json["code"]?.items.prefix(16).compactMap { $0.number.flatMap(UInt8.init(exactly:)) } ?? []
    codeAddress = json.number("code_address")
    codeBits = Int(clamping: json.number("code_bits"))
  }
}

extension Outcome {
  /// The end that `json` tells of; nil if it is none.
  package init?(_ json: JSON) {
    switch json.text("end") {
    case "powered-off": self = .poweredOff
    case "halted": self = .halted
    case "reset": self = .reset
    case "exited": self = .exited(UInt32(clamping: json.number("value")))
    case "crashed": self = .crashed(CrashReport(json))
    case "timed-out":
      let positions = json["positions"]?.items ?? []
      self = .timedOut(
        positions.map {
          VCPUPosition(vcpu: Int(clamping: $0.number("vcpu")), text: $0.text("text"))
        })
    case "stopped": self = .stopped(.user)
    case "signal": self = .stopped(.signal(Int32(clamping: json.number("status")) - 128))
    case "input-changed": self = .inputChanged(json.text("path"))
    case "host-failed", "sandbox", "memory-limit": self = .hostFailed(json.text("message"))
    default: return nil
    }
  }
}

extension RunStatistics {
  /// The counts that `json` has; devices are left out.
  package init(_ json: JSON) {
    self.init()
    for member in json["exits"]?.members ?? [] {
      let count = ExitStatistics.Count(
        count: member.value.number ?? member.value.number("count"),
        handling: member.value.number("handling_ns"))
      switch member.name {
      case "io": exits.portIO = count
      case "mmio": exits.mmio = count
      case "kick": exits.interrupted = count
      case let name:
        if let reason = ExitReason.all.first(where: { $0.name == name }) {
          exits.rare[reason] = count
        }
      }
    }
    exits.inGuest = json.number("guest_ns")
    exits.unclaimed = json.number("unclaimed")
    exits.repeated = json.number("repeated")
    elapsed = json.number("elapsed_ns")
    vcpuCount = Int(clamping: json.number("vcpus"))
    touchedMemory = Int(clamping: json.number("touched_bytes"))
    memorySize = json.number("memory_bytes")
    kernel = json["kvm"]?.members?.map { ($0.name, $0.value.number ?? 0) } ?? []
  }
}

extension JSON {
  fileprivate var number: UInt64? {
    if case .unsigned(let number) = value { number } else { nil }
  }

  fileprivate var items: [JSON] {
    if case .array(let items) = value { items } else { [] }
  }

  fileprivate func number(_ name: String) -> UInt64 { self[name]?.number ?? 0 }

  fileprivate func text(_ name: String) -> String {
    if case .string(let text)? = self[name]?.value { text } else { "" }
  }

  fileprivate func texts(_ name: String) -> [String] {
    self[name]?.items.compactMap {
      if case .string(let text) = $0.value { text } else { nil }
    } ?? []
  }
}
