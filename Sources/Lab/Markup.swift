/// Text as other languages have it.
package enum Markup {
  /// `text` inside an element or an attribute of XML and HTML; characters that XML has not become `?`.
  static func xml(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "\t", "\n": result.unicodeScalars.append(scalar)
      case _ where scalar.value < 0x20 || scalar.value == 0xFFFE || scalar.value == 0xFFFF:
        result += "?"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// `text` with nothing that acts on a terminal: controls become `?`, tabs a space, and formatting
  /// that doesn't show nothing.
  package static func printable(_ text: some StringProtocol) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control: result += scalar == "\t" || scalar == "\r" ? " " : "?"
      case .format: break
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// `text` in HTML, with what is between backquotes as code.
  static func html(_ text: String) -> String {
    let parts = text.split(separator: "`", omittingEmptySubsequences: false)
    // An odd number of backquotes encloses nothing.
    guard parts.count % 2 == 1 else { return xml(text) }
    return parts.enumerated().map { index, part in
      index % 2 == 1 ? "<code>\(xml(String(part)))</code>" : xml(String(part))
    }.joined()
  }

  /// `text` as a JSON string.
  static func json(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

/// A number in hexadecimal with `0x`, of at least `digits` digits.
func hex(_ value: UInt64, _ digits: Int = 1) -> String {
  let text = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: max(0, digits - text.count)) + text
}

/// `value` with `places` decimals.
func decimal(_ value: Double, _ places: Int = 1) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "?" }
  let scale = (0..<places).reduce(1) { product, _ in product * 10 }
  let units = Int((abs(value) * Double(scale)).rounded())
  let sign = value < 0 && units > 0 ? "-" : ""
  guard places > 0 else { return sign + "\(units)" }
  let rest = String(units % scale)
  return sign + "\(units / scale)." + String(repeating: "0", count: places - rest.count) + rest
}

/// `value` with thin groups of three digits: 1 234 567.
func grouped(_ value: Int) -> String {
  var text = ""
  for (index, digit) in String(value.magnitude).reversed().enumerated() {
    if index > 0 && index % 3 == 0 { text = " " + text }
    text = String(digit) + text
  }
  return (value < 0 ? "-" : "") + text
}
