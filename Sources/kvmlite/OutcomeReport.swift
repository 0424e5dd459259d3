import Host
import Inspect
import Machine

/// How a run ended, for `--outcome-file`.
struct OutcomeReport {
  private let outcome: Outcome
  private let status: Int32

  init(_ outcome: Outcome, status: Int32) {
    self.outcome = outcome
    self.status = status
  }

  /// `end` says how, in a word, and what else there is to say of it follows; `status` is kvmlite's.
  func json() -> String {
    let fields: [(String, String)] =
      switch outcome {
      case .poweredOff: [("end", jsonString("powered-off"))]
      case .halted: [("end", jsonString("halted"))]
      case .reset: [("end", jsonString("reset"))]
      case .exited(let value): [("end", jsonString("exited")), ("value", "\(value)")]
      case .crashed(let report): Self.fields(report)
      case .timedOut(let positions):
        [("end", jsonString("timed-out")), ("positions", Self.list(positions.map(Self.text)))]
      case .stopped(.user): [("end", jsonString("stopped"))]
      case .stopped(.signal(let number)):
        [("end", jsonString("signal")), ("signal", jsonString(Signal(number).name))]
      case .inputChanged(let path):
        [("end", jsonString("input-changed")), ("path", jsonString(path))]
      case .hostFailed(let message):
        [("end", jsonString("host-failed")), ("message", jsonString(message))]
      }
    let all = fields + [("status", "\(status)")]
    return "{" + all.map { "\(jsonString($0.0)):\($0.1)" }.joined(separator: ",") + "}"
  }

  private static func fields(_ report: CrashReport) -> [(String, String)] {
    var fields = [
      ("end", jsonString("crashed")), ("vcpu", "\(report.vcpu)"),
      ("summary", jsonString(report.summary)),
      ("explanation", list(report.explanation.map(jsonString))),
      ("last_exits", list(report.lastExits.map(jsonString))),
      ("registers_are_reset", "\(report.registersAreReset)"),
    ]
    if let registers = report.registers {
      fields.append(("registers", RegisterNames.json(registers).text))
    }
    if let registers = report.specialRegisters {
      fields.append(("special_registers", RegisterNames.json(registers).text))
    }
    return fields + [
      ("code", list(report.code.map { "\($0)" })), ("code_address", "\(report.codeAddress)"),
      ("code_bits", "\(report.codeBits)"),
    ]
  }

  private static func text(_ position: VCPUPosition) -> String {
    "{\"vcpu\":\(position.vcpu),\"text\":\(jsonString(position.text))}"
  }

  private static func list(_ items: [String]) -> String {
    "[" + items.joined(separator: ",") + "]"
  }

  /// The same of a run that ended because a thread did what the sandbox forbids.
  static func ofSandbox(_ message: String) -> String {
    "{\"end\":\"sandbox\",\"message\":\(jsonString(message)),\"status\":71}"
  }

  /// The same of a run that the host's kernel ended, by SIGKILL, as it had reached its limit of memory.
  static func ofMemoryLimit(_ message: String) -> String {
    "{\"end\":\"memory-limit\",\"message\":\(jsonString(message)),\"status\":137}"
  }
}
