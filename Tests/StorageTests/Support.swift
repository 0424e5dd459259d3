import Glibc
import Host
import Memory
import Storage
import TestSupport

/// A directory for one test, which is removed after it.
final class Scratch {
  let path: String

  init() throws {
    var template = Array("/tmp/kvmlite-storage-XXXXXX".utf8CString)
    guard unsafe mkdtemp(&template) != nil else { throw Errno.current }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    for name in Directory.names(in: path) { unsafe unlink("\(path)/\(name)") }
    unsafe rmdir(path)
  }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  /// Makes a file that holds `bytes`.
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let file = try FileDescriptor(
      opening: self.file(name), [.writeOnly, .create, .truncate])
    try file.writeAll(bytes.span)
    return self.file(name)
  }
}

/// What is in the file called `path`.
func contents(of path: String) throws -> [UInt8] {
  let file = try FileDescriptor(opening: path, [.readOnly])
  var bytes: [UInt8] = []
  while true {
    let more = try file.read(atMost: 1 << 20)
    if more.isEmpty { return bytes }
    bytes += more
  }
}

/// Memory that holds `bytes`.
func segment(_ bytes: [UInt8]) throws -> MemoryView {
  let view = try MemoryView(scratch: max(1, bytes.count)).slice(0, count: bytes.count)
  view.copy(from: bytes.span, at: 0)
  return view
}

extension MemoryView {
  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    copy(to: &span, from: 0)
    return bytes
  }
}

extension BlockStore {
  func read(_ count: Int, at offset: UInt64) throws -> [UInt8] {
    let view = try MemoryView(scratch: count)
    view.copy(from: [UInt8](repeating: 0xA5, count: count).span, at: 0)
    try read(into: [view], at: offset)
    return view.bytes
  }

  func write(_ bytes: [UInt8], at offset: UInt64) throws {
    try write(from: [segment(bytes)], at: offset)
  }
}

extension SplitMix {
  mutating func bytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
      let word = next()
      for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
    }
    bytes.removeLast(bytes.count - count)
    return bytes
  }
}
