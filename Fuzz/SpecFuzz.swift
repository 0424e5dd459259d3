import Network

/// Feeds what reads a machine's description with arbitrary text: as JSON, and as an option's settings.
///
/// Whatever it says, nothing may trap or run for long; what is read and printed must read as the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func specFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  if let json = try? JSON(parsing: input) {
    guard let again = try? JSON(parsing: Array(json.text.utf8)) else {
      fatalError("what is printed can't be read")
    }
    precondition(json == again && json.text == again.text, "printed otherwise")
  }
  if let spec = try? VMConfiguration(json: input) {
    var again = try? VMConfiguration(json: Array(spec.json.text.utf8))
    precondition(spec == again, "read otherwise")
    again?.changePaths { "/" + $0 }
  }
  let text = String(decoding: input, as: UTF8.self)
  if let bytes = ByteCount.parse(text) {
    precondition(ByteCount.parse(ByteCount.text(bytes)) == bytes, "another size")
  }
  let settings = text.split(separator: ",").map { part in
    let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    return (name: String(words[0]), value: words.count == 2 ? String(words[1]) : nil)
  }
  for type in VMConfiguration.Device.types {
    _ = try? VMConfiguration.Device(type: type, settings: settings)
  }
  return 0
}
