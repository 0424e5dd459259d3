import ArgumentParser
import Boot
import Machine
import Memory

/// What the options of the command line take.
enum Arguments {
  /// Gives the options whose value may be left out their default value, so that the next argument is
  /// never taken for one.
  static func normalized(_ arguments: some Sequence<String>) -> [String] {
    var isOption = true
    return arguments.map { argument in
      if argument == "--" { isOption = false }
      switch argument {
      case "--trace" where isOption: return "--trace=all"
      case "--stats" where isOption: return "--stats=text"
      default: return argument
      }
    }
  }
}

/// An amount of memory: a number with K, M, G or T behind it; without one, bytes.
struct MemorySize: ExpressibleByArgument {
  let bytes: UInt64

  init?(argument: String) {
    let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40]
    var digits = argument[...]
    var unit: UInt64 = 1
    if let last = digits.last, let found = units[Character(last.uppercased())] {
      unit = found
      digits.removeLast()
    }
    guard let number = UInt64(digits) else { return nil }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: unit)
    guard !overflow else { return nil }
    self.bytes = bytes
  }

  init(bytes: UInt64) { self.bytes = bytes }

  var defaultValueDescription: String { "\(bytes >> 20)M" }
}

extension CPUMode: ExpressibleByArgument {}
extension CPUModel: ExpressibleByArgument {}
extension OptionalDevice: ExpressibleByArgument {}
extension Configuration.VirtioBus: ExpressibleByArgument {}

/// A guest-physical address: decimal, or hexadecimal after 0x.
extension GuestAddress: ExpressibleByArgument {
  /// The address that `argument` spells; nil for anything else.
  /// Reads it.
  public init?(argument: String) {
    let isHex = argument.hasPrefix("0x") || argument.hasPrefix("0X")
    guard let value = isHex ? UInt64(argument.dropFirst(2), radix: 16) : UInt64(argument) else {
      return nil
    }
    self.init(value)
  }
}

extension TraceKinds: ExpressibleByArgument {
  /// The kinds whose names `argument` has, with commas between them; nil if one is unknown.
  /// Reads names with commas between them.
  public init?(argument: String) {
    var kinds: TraceKinds = []
    for name in argument.split(separator: ",") {
      guard let kind = TraceKinds(name: String(name)) else { return nil }
      kinds.formUnion(kind)
    }
    self = kinds
  }
}

/// How the statistics are printed.
enum StatisticsFormat: String, ExpressibleByArgument, CaseIterable {
  case text, json
}

/// Where the guest's console is, and what it reads there.
struct ConsoleChoice: ExpressibleByArgument {
  enum Place {
    case stdio
    case pty
    case none
    case file(String)
  }

  var place = Place.stdio
  var input = ConsoleInputDevice.serial

  init() {}

  init?(argument: String) {
    var words = argument[...]
    for device in ConsoleInputDevice.allCases where words.hasSuffix(",input=\(device.rawValue)") {
      input = device
      words.removeLast(",input=\(device.rawValue)".count)
      break
    }
    switch words {
    case "stdio": place = .stdio
    case "pty": place = .pty
    case "none": place = .none
    default:
      guard words.hasPrefix("file="), words.count > 5 else { return nil }
      place = .file(String(words.dropFirst(5)))
    }
  }

  var defaultValueDescription: String { "stdio" }
}
