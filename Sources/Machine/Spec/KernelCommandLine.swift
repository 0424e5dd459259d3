import Boot

/// What a kernel is told when the user doesn't say.
enum KernelCommandLine {
  /// The serial port is the only console there is, and a panic that waits for a key waits for ever.
  private static let defaults = ["console=ttyS0", "panic=-1"]

  /// `text` with the defaults before it, but for those that it sets itself; formats that don't boot
  /// Linux get `text` alone.
  static func complete(_ text: String?, for format: ImageFormat) -> String? {
    guard format == .bzImage || format == .vmlinux || format == .pvh else { return text }
    let given = (text ?? "").split(separator: " ").map { key(of: $0) }
    let missing = defaults.filter { !given.contains(key(of: $0[...])) }
    return (missing + [text].compactMap(\.self)).joined(separator: " ")
  }

  private static func key(of parameter: Substring) -> Substring {
    parameter.prefix { $0 != "=" }
  }
}

extension ImageFormat {
  /// Whether this is an operating system's kernel or a PC's firmware, which uses interrupts from the start.
  package var isKernel: Bool {
    switch self {
    case .bzImage, .vmlinux, .pvh, .multiboot, .firmware: true
    case .flat, .bootSector, .elf32, .elf64: false
    }
  }
}
