/// Which frames of the host's memory are behind this process's pages, as /proc/self/pagemap says.
package enum PageMap {
  /// What is behind a page.
  package enum Page: Equatable, Sendable {
    /// This frame: its number times 4096 is the physical address.
    case frame(UInt64)
    /// A frame whose number the kernel keeps from processes without CAP_SYS_ADMIN.
    case hidden
    /// Nothing yet: nobody touched it.
    case absent
    /// It is in swap.
    case swapped
    /// The file can't be read.
    case unknown
  }

  /// What is behind the page that `address` is in.
  package static func page(at address: UInt64) -> Page {
    guard let file = try? FileDescriptor(opening: "/proc/self/pagemap", [.readOnly]) else {
      return .unknown
    }
    var bytes = [UInt8](repeating: 0, count: 8)
    var span = bytes.mutableSpan
    guard let count = try? file.read(into: &span, at: Int(address / 4096 * 8)), count == 8 else {
      return .unknown
    }
    let entry = bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    // Documentation/admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped, 0-54 the frame.
    if entry >> 62 & 1 == 1 { return .swapped }
    guard entry >> 63 == 1 else { return .absent }
    let frame = entry & (1 << 55 - 1)
    return frame == 0 ? .hidden : .frame(frame)
  }

  /// How many bytes of the mapping that `address` is in are in huge pages of anonymous memory; nil if
  /// /proc/self/smaps doesn't say.
  package static func hugeBytes(ofMappingAt address: UInt64) -> UInt64? {
    guard let file = try? FileDescriptor(opening: "/proc/self/smaps", [.readOnly]) else {
      return nil
    }
    var text: [UInt8] = []
    while text.count < 1 << 24, let more = try? file.read(atMost: 1 << 16), !more.isEmpty {
      text += more
    }
    var isInside = false
    for line in text.split(separator: UInt8(ascii: "\n")) {
      let line = String(decoding: line, as: UTF8.self)
      let range = line.prefix { $0 != " " }.split(separator: "-")
      if range.count == 2, let start = UInt64(range[0], radix: 16),
        let end = UInt64(range[1], radix: 16)
      {
        isInside = (start..<end).contains(address)
      } else if isInside, line.hasPrefix("AnonHugePages:") {
        let words = line.split(separator: " ")
        return words.count > 1 ? UInt64(words[1]).map { $0 << 10 } : nil
      }
    }
    return nil
  }
}
