/// `text` with spaces behind it up to `width` characters.
package func pad(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(1, width - text.count))
}

/// `text` with spaces before it up to `width` characters.
package func padLeft(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}

/// `value` in hexadecimal, as in `0x3f8`.
package func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
