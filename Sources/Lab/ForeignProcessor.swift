import Guests

/// A processor that isn't x86, made in software by QEMU, with an image that tries instructions in its user
/// and its supervisor mode (guest-asm/lab/risc-v.S and risc-arm.S).
struct ForeignProcessor {
  /// What became of an instruction.
  enum Fate: Equatable {
    /// It came to its end; what it left in the first register.
    case ran(UInt64)
    /// The processor refused it.
    case trapped
    /// Another trap than that, by its number.
    case other(UInt64)

    var text: String {
      switch self {
      case .ran: "runs"
      case .trapped: "traps"
      case .other(let number): "trap \(number)"
      }
    }

    var didRun: Bool { if case .ran = self { true } else { false } }
  }

  /// An instruction that was tried.
  struct Row {
    let name: String
    let isSensitive: Bool
    let user: Fate
    let supervisor: Fate
  }

  /// The architecture.
  let name: String
  /// What runs it.
  let program: String
  private let image: String
  private let arguments: String
  /// The number of the trap of an instruction that isn't allowed.
  private let illegal: UInt64

  static let riscV = ForeignProcessor(
    name: "RISC-V", program: "qemu-system-riscv64", image: "risc-v",
    arguments: "-bios none -device loader,file=image,addr=0x80000000,force-raw=on", illegal: 2)
  static let arm = ForeignProcessor(
    name: "ARMv7", program: "qemu-system-arm", image: "risc-arm",
    arguments:
      "-cpu cortex-a15 -device loader,file=image,addr=0x40200000,force-raw=on,cpu-num=0",
    illegal: 1)

  /// Seconds of a run, which are many where QEMU itself is run by a processor of software.
  private static let seconds = 120
  /// What the shell ends with without QEMU.
  private static let notThere = 99

  /// Runs the image; nil if there is no such QEMU in PATH.
  func run() throws(LabError) -> [Row]? {
    guard let bytes = Guest.foreignImage(image) else {
      throw .unexpected("kvmlite was built without the lab's image '\(image)'")
    }
    let workshop = try Workshop()
    try workshop.write("image", bytes)
    let end = try workshop.run(
      "command -v \(program) || exit \(Self.notThere); exec \(program) -M virt -nodefaults "
        + "-no-user-config -display none -serial stdio \(arguments) </dev/null >output 2>words",
      seconds: Self.seconds, bytes: 1 << 30)
    guard end != .exited(Self.notThere) else { return nil }
    let lines = String(decoding: workshop.read("output", limit: 1 << 16), as: UTF8.self)
      .split(separator: "\n")
    guard lines.last == "end" else {
      let words = workshop.line("words")
      throw .unexpected(
        "\(program) did not run the image '\(image)' to its end"
          + (words.isEmpty ? "" : "; it said: \(words)"))
    }
    return try rows(lines.dropLast().map(String.init))
  }

  /// Each instruction has a line for user and one for supervisor mode.
  private func rows(_ lines: [String]) throws(LabError) -> [Row] {
    var rows: [Row] = []
    for index in stride(from: 0, to: lines.count, by: 2) {
      let user = lines[index].split(separator: "\t")
      let supervisor = index + 1 < lines.count ? lines[index + 1].split(separator: "\t") : []
      guard user.count == 5, supervisor.count == 5, user[1] == supervisor[1], user[2] == "user",
        let userFate = fate(user), let supervisorFate = fate(supervisor)
      else {
        throw .unexpected("the image '\(image)' printed a line that is none: \(lines[index])")
      }
      rows.append(
        Row(
          name: String(user[1]), isSensitive: user[0] == "sensitive", user: userFate,
          supervisor: supervisorFate))
    }
    return rows
  }

  private func fate(_ fields: [Substring]) -> Fate? {
    guard let number = UInt64(fields[4], radix: 16) else { return nil }
    switch fields[3] {
    case "runs": return .ran(number)
    case "traps": return number == illegal ? .trapped : .other(number)
    default: return nil
    }
  }
}
