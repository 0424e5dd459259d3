import KVM
import Machine

/// One exit as columns of text: for traces and for the account of a crash.
enum ExitLine {
  /// The heading of the columns that `text` fills.
  static let heading = pad("exit", 10) + pad("address", 12) + pad("size", 8) + "dir  data"

  /// Kind, address, size, direction and data, aligned.
  static func text(_ exit: Exit, data: UInt64?) -> String {
    switch exit {
    case .portIO(let io):
      columns("io", UInt64(io.port), io.width, io.count, io.isWrite, data)
    case .mmio(let access):
      columns("mmio", access.address, access.width, 1, access.isWrite, data)
    default:
      pad(exit.shortName, 10) + exit.reason.meaning
    }
  }

  private static func columns(
    _ kind: String, _ address: UInt64, _ width: Int, _ count: Int, _ isWrite: Bool, _ data: UInt64?
  ) -> String {
    let size = count == 1 ? "\(width)" : "\(width)x\(count)"
    let value = data.map { text($0, width) } ?? "-"
    return pad(kind, 10) + pad(hex(address), 12) + pad(size, 8) + (isWrite ? "out  " : "in   ")
      + value
  }

  private static func text(_ data: UInt64, _ width: Int) -> String {
    let digits = String(data, radix: 16)
    let value = "0x" + String(repeating: "0", count: max(0, width * 2 - digits.count)) + digits
    guard width == 1 && data >= 0x20 && data < 0x7F else { return value }
    return value + " '" + String(Character(Unicode.Scalar(UInt8(data)))) + "'"
  }

  /// The exits that `history` still has, oldest first, with a heading.
  static func lines(of history: ExitHistory) -> [String] {
    let last = history.last
    guard !last.isEmpty else { return [] }
    return ["  " + pad("rip", 20) + heading]
      + last.map { record in
        "  " + pad(hex(record.instructionPointer), 20) + text(record.exit, data: record.data)
      }
  }
}

extension Exit {
  /// One word for the kind of exit.
  var shortName: String {
    switch self {
    case .portIO: "io"
    case .mmio: "mmio"
    default: reason.name.replacingPrefix("KVM_EXIT_").lowercased()
    }
  }
}

extension String {
  fileprivate func replacingPrefix(_ prefix: String) -> String {
    hasPrefix(prefix) ? String(dropFirst(prefix.count)) : self
  }
}
