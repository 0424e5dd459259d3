import Machine
import TestSupport
import Testing

@Suite("JSON", .limited)
struct JSONTests {
  private func parse(_ text: String) throws(JSON.Malformed) -> JSON {
    try JSON(parsing: Array(text.utf8))
  }

  @Test("values of each kind are read, with their places")
  func values() throws {
    let json = try parse(
      """
      { "a": [1, -2, 2.5e1, true, false, null],
        "ä€😀": "\\u0041\\ud83d\\ude00\\n\\"\\/", "z": {} }
      """)
    #expect(
      json["a"]?.value
        == .array(
          [.unsigned(1), .negative(-2), .real(25), .bool(true), .bool(false), .null].map {
            JSON($0)
          }))
    #expect(json["ä€😀"]?.value == .string("A😀\n\"/"))
    #expect(json["z"]?.value == .object([]))
    #expect(json["a"]?.position == .init(line: 1, column: 8))
    // Columns are characters, not bytes.
    #expect(json["ä€😀"]?.position == .init(line: 2, column: 10))
    #expect(json["z"]?.position == .init(line: 2, column: 43))
  }

  @Test(
    "whole numbers are exact to the last one",
    arguments: [
      ("18446744073709551615", JSON.Value.unsigned(.max)),
      ("-9223372036854775808", .negative(.min)),
      ("0", .unsigned(0)), ("-0", .unsigned(0)),
      ("9007199254740993", .unsigned(9_007_199_254_740_993)),
      ("1e3", .real(1000)), ("-0.5", .real(-0.5)),
    ])
  func numbers(text: String, value: JSON.Value) throws { #expect(try parse(text).value == value) }

  @Test(
    "what is no JSON is refused, with the place",
    arguments: [
      ("", 1, 1), (" ", 1, 2), ("{", 1, 2), ("[1,", 1, 4), ("[1,]", 1, 4), ("{\"a\":1,}", 1, 8),
      ("{\"a\" 1}", 1, 6), ("{a:1}", 1, 2), ("[1 2]", 1, 4), ("01", 1, 1), ("-", 1, 2),
      ("1.", 1, 3),
      ("1e", 1, 3), (".5", 1, 1), ("+1", 1, 1), ("0x1", 1, 2), ("18446744073709551616", 1, 1),
      ("-9223372036854775809", 1, 1), ("1e999", 1, 1), ("\"a", 1, 1), ("\"\\q\"", 1, 3),
      ("\"\\u12g4\"", 1, 6), ("\"\\ud800\"", 1, 8), ("\"\\udc00\"", 1, 8),
      ("\"\\ud800\\u0041\"", 1, 14),
      ("\"\n\"", 1, 2), ("\"\t\"", 1, 2), ("nul", 1, 1), ("True", 1, 1), ("'a'", 1, 1),
      ("1 1", 1, 3),
      ("\u{FEFF}1", 1, 1), ("[\n  1,\n  x]", 3, 3), ("{\"a\":1,\n \"a\":2}", 2, 2),
      ("// x\n1", 1, 1),
    ])
  func malformed(text: String, line: Int, column: Int) throws {
    let error = #expect(throws: JSON.Malformed.self) { try parse(text) }
    #expect(
      error?.position == .init(line: line, column: column), "\(text): \(String(describing: error))")
  }

  @Test("a name that comes twice is refused with both places")
  func duplicate() {
    let error = #expect(throws: JSON.Malformed.self) { try parse("{\"a\": 1,\n \"a\": 2}") }
    #expect(error?.message == "'a' is here twice; the first is at 1:2")
  }

  @Test("bytes that are no UTF-8 are refused")
  func encoding() {
    for bytes: [UInt8] in [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
    ] {
      #expect(throws: JSON.Malformed.self) { try JSON(parsing: bytes) }
    }
  }

  @Test("a text without measure is refused, however it is so")
  func limits() {
    let limits = JSON.Limits()
    let texts = [
      String(repeating: "[", count: 1_000_000), String(repeating: "{\"a\":", count: 100_000),
      "[" + String(repeating: "0,", count: limits.values) + "0]",
      "\"" + String(repeating: "a", count: limits.string + 1) + "\"",
      String(repeating: " ", count: limits.bytes + 1), "1" + String(repeating: "0", count: 500),
    ]
    for text in texts { #expect(throws: JSON.Malformed.self) { try parse(text) } }
    let deep =
      String(repeating: "[", count: limits.depth) + String(repeating: "]", count: limits.depth)
    #expect(throws: Never.self) { try parse(deep) }
  }

  @Test("what is printed reads as the same, and looks the same each time")
  func printing() throws {
    let json = JSON(
      .object([
        .init("b", JSON(.array([JSON(.unsigned(.max)), JSON(.negative(.min)), JSON(.real(0.1))]))),
        .init("a", JSON(.string("\u{0}\u{7F}\"\\\r\n\tä😀"))), .init("e", JSON(.array([]))),
        .init("o", JSON(.object([.init("n", JSON(.null))]))),
      ]))
    #expect(try parse(json.text) == json)
    #expect(
      json["o"].map(\.text) == """
        {
          "n": null
        }

        """)
  }
}
