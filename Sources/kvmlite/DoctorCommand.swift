import ArgumentParser
import Doctor
import Host
import Machine

/// `kvmlite doctor`.
struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor", abstract: "Say what this host can do, and how to mend what it can't.",
    discussion: """
      Exit status: 0 when virtual machines can run here, 69 when not, 77 when only the permission \
      is missing.
      """)

  @Flag(help: "Print JSON, for machines.")
  var json = false

  func run() throws {
    // Before anything starts a thread.
    let sandbox = SandboxReport.make()
    let report = HostReport.make()
    let isColoured = FileDescriptor(borrowing: 1).isTerminal
    try Message.output(
      json
        ? DoctorJSON(report, sandbox).text
        : DoctorText(report, sandbox, isColoured: isColoured).lines.joined(separator: "\n") + "\n")
    throw ExitCode(report.exitStatus)
  }
}

/// The report as lines with aligned columns.
private struct DoctorText {
  private(set) var lines: [String] = []
  private let isColoured: Bool

  init(_ report: HostReport, _ sandbox: SandboxReport, isColoured: Bool) {
    self.isColoured = isColoured
    addVerdict(report)
    if let trouble = report.trouble {
      addHeading("What mends it")
      for remedy in trouble.remedies { lines.append("  " + remedy) }
    }
    addBackEnd(report)
    addFacilities(report.facilities)
    addSandbox(sandbox)
    addHeading("This kvmlite")
    let use = "disk images in qcow2 with compressed clusters"
    let lack = Decompression.lack.map { ": " + $0 } ?? ""
    add(lack.isEmpty ? "yes" : "no", lack.isEmpty, "zlib and Zstandard", use + lack)
  }

  private mutating func addVerdict(_ report: HostReport) {
    if let trouble = report.trouble {
      lines.append(colour("no ", 31) + "  " + trouble.summary)
    } else {
      lines.append(colour("yes", 32) + "  virtual machines run here: a small one was made to see")
    }
  }

  private mutating func addBackEnd(_ report: HostReport) {
    addHeading("Host")
    lines.append("  " + column("/dev/kvm", 22) + (report.device?.description ?? "not there"))
    guard let backEnd = report.backEnd else {
      lines.append("  " + column("back end", 22) + "no module of KVM's to be seen in /sys/module")
      return
    }
    lines.append("  " + column("back end", 22) + "\(backEnd.name): \(backEnd.summary)")
    for note in backEnd.notes { lines.append("  " + column("", 22) + note) }
    for item in backEnd.switches {
      add(item.isOn.map { $0 ? "on" : "off" } ?? "?", item.isOn == true, item.title, item.meaning)
    }
  }

  private mutating func addFacilities(_ facilities: [HostReport.Facility]) {
    guard !facilities.isEmpty else { return }
    addHeading("What its KVM can do")
    for facility in facilities {
      let answer = facility.isCount ? "\(facility.value)" : facility.isThere ? "yes" : "no"
      let remedy = facility.isThere ? "" : " (needs \(facility.remedy))"
      add(answer, facility.isThere, facility.title, facility.use + remedy)
    }
  }

  private mutating func addSandbox(_ report: SandboxReport) {
    addHeading("What its sandbox has: tried by a process that went into it")
    if let trouble = report.trouble {
      add("no", false, "all", "a run ends with 71 but for --sandbox off: \(trouble)")
    }
    for (layer, isThere) in report.layers {
      let kind = layer.kind
      let name = kind == .landlock ? layer.name : kind.rawValue
      switch isThere {
      case true?: add("yes", true, name, kind.use)
      case false?:
        add(
          "no", false, name, "\(layer.lack ?? ""): \(kind.without)the rest still stands")
      case nil: add("-", true, name, kind.needless)
      }
    }
  }

  private mutating func add(_ answer: String, _ isGood: Bool, _ title: String, _ use: String) {
    let mark = rightColumn(answer, 6)
    lines.append(
      "  " + column(title, 28) + (isGood ? mark : colour(mark, 33)) + "  " + use)
  }

  private mutating func addHeading(_ text: String) { lines += ["", colour(text, 1)] }

  private func colour(_ text: String, _ code: Int) -> String {
    isColoured ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
  }
}

extension HostReport {
  /// 0 if virtual machines can run here, 77 (EX_NOPERM) for a lack of permission, else 69
  /// (EX_UNAVAILABLE).
  fileprivate var exitStatus: Int32 {
    guard let trouble else { return 0 }
    return trouble.exitStatus == 77 ? 77 : 69
  }
}

/// The report as one JSON object.
private struct DoctorJSON {
  let text: String

  init(_ report: HostReport, _ sandbox: SandboxReport) {
    var fields = ["\"usable\":\(report.trouble == nil)", "\"status\":\(report.exitStatus)"]
    if let trouble = report.trouble {
      fields.append(
        "\"trouble\":{\"kind\":\(jsonString(trouble.kind)),"
          + "\"summary\":\(jsonString(trouble.summary)),\"remedies\":["
          + trouble.remedies.map(jsonString).joined(separator: ",") + "]}")
    }
    if let device = report.device {
      let mode = String(device.ownership.permissions, radix: 8)
      fields.append(
        "\"device\":{\"owner\":\(jsonString(device.owner)),\"group\":\(jsonString(device.group)),"
          + "\"mode\":\"\(mode)\"}")
    }
    if let backEnd = report.backEnd {
      let switches = backEnd.switches.map {
        "\(jsonString($0.name)):\($0.isOn.map(String.init) ?? "null")"
      }
      fields.append(
        "\"back_end\":{\"name\":\(jsonString(backEnd.name)),"
          + "\"switches\":{\(switches.joined(separator: ","))},"
          + "\"notes\":[\(backEnd.notes.map(jsonString).joined(separator: ","))]}")
    }
    let facilities = report.facilities.map { "\(jsonString($0.name)):\($0.value)" }
    fields.append("\"capabilities\":{\(facilities.joined(separator: ","))}")
    let layers = sandbox.layers.map { layer, isThere in
      let name = String(layer.kind.rawValue.map { $0 == " " ? "_" : $0 }).lowercased()
      let version = layer.kind == .landlock ? layer.number : nil
      return "\(jsonString(name)):{\"there\":\(isThere.map(String.init) ?? "null")"
        + (version.map { ",\"version\":\($0)" } ?? "")
        + (layer.lack.map { ",\"why\":\(jsonString($0))" } ?? "") + "}"
    }
    fields.append("\"sandbox\":{\(layers.joined(separator: ","))}")
    if let trouble = sandbox.trouble {
      fields.append("\"sandbox_trouble\":\(jsonString(trouble))")
    }
    fields.append("\"compressed_disks\":\(Decompression.lack == nil)")
    text = "{" + fields.joined(separator: ",") + "}\n"
  }
}
