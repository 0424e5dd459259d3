public import Boot

/// A built-in guest: one file of guest-asm/, assembled while kvmlite was built.
///
/// The image is kept as text and decoded when asked for, so that a guest which isn't run costs
/// nothing.
public struct Guest: Sendable, CustomStringConvertible {
  /// What kind of file the image is.
  public enum Format: Sendable {
    /// Bytes without a header, entered at the first.
    case flat
    /// 512 bytes that end in 55 AA.
    case bootSector
    /// A 32-bit ELF executable linked at 1 MiB.
    case elf32
    /// A 64-bit ELF executable linked at 1 MiB.
    case elf64
  }

  /// The file's name without its ending, such as `hello-real`.
  public let name: String
  /// What the guest shows, in a line.
  public let summary: String
  /// The mode it's entered in.
  public let mode: CPUMode
  /// What kind of file its image is.
  public let format: Format
  /// How many VCPUs it's meant for.
  public let cpus: Int
  /// What else kvmlite's command line needs for it to end as expected, such as `--no-reboot`.
  public let options: [String]
  /// How many bytes the IDE disk has that it wants for it, all zeros at first; nil for none.
  public let diskSize: Int?
  /// What it prints.
  public let expectedOutput: OutputPattern
  /// The exit status that kvmlite ends with.
  public let expectedStatus: Int
  /// Of a benchmark, how many operations it measures: exits, or bytes of repeated I/O. 0 is the
  /// benchmark that does nothing, whose time is to be taken off the others'.
  public let operations: Int?
  /// The lab's experiment that it belongs to: it needs the lab around it to mean anything.
  public let experiment: String?

  private let inputText: String
  private let hex: String

  init(
    name: String, summary: String, mode: CPUMode, format: Format, cpus: Int, options: [String],
    diskSize: Int?, inputText: String, expectedOutput: OutputPattern, expectedStatus: Int,
    operations: Int?, experiment: String?, hex: String
  ) {
    self.name = name
    self.summary = summary
    self.mode = mode
    self.format = format
    self.cpus = cpus
    self.options = options
    self.diskSize = diskSize
    self.inputText = inputText
    self.expectedOutput = expectedOutput
    self.expectedStatus = expectedStatus
    self.operations = operations
    self.experiment = experiment
    self.hex = hex
  }

  /// Its name.
  public var description: String { name }

  /// Whether it's one of the loops that scripts/bench measures, rather than something to look at.
  public var isBenchmark: Bool { operations != nil }

  /// What to type for it to end as expected.
  public var input: [UInt8] { Array(inputText.utf8) }

  /// The image, as it would be in a file.
  public var image: [UInt8] { Self.bytes(hex) }

  /// The lab's image for another processor than x86 of that name.
  package static func foreignImage(_ name: String) -> [UInt8]? { foreign[name].map(bytes) }

  private static func bytes(_ hex: String) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(hex.utf8.count / 2)
    var high: UInt8?
    for digit in hex.utf8 {
      // assemble-guests writes 0 to 9 and a to f only.
      let isDecimal = digit <= UInt8(ascii: "9")
      let value = isDecimal ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "a") + 10
      if let first = high {
        bytes.append(first << 4 | value)
        high = nil
      } else {
        high = value
      }
    }
    return bytes
  }

  /// The guest of that name.
  public static func named(_ name: String) -> Guest? {
    all.first { $0.name == name }
  }
}
