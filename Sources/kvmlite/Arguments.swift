import ArgumentParser
import Boot
import Machine
import Memory

/// What the options of the command line take.
enum Arguments {
  /// The options whose value may be left out, with what stands for it then.
  static let usual = ["--trace": "all", "--stats": "text"]

  /// Gives the options whose value may be left out their default value, so that the next argument is
  /// never taken for one.
  static func normalized(_ arguments: some Sequence<String>) -> [String] {
    var isOption = true
    return arguments.map { argument in
      if argument == "--" { isOption = false }
      guard isOption, let value = usual[argument] else { return argument }
      return argument + "=" + value
    }
  }
}

/// An amount of memory: a number with K, M, G or T behind it; without one, bytes.
struct MemorySize: ExpressibleByArgument {
  let bytes: UInt64

  init?(argument: String) {
    guard let bytes = ByteCount.parse(argument) else { return nil }
    self.bytes = bytes
  }
}

extension CPUMode: ExpressibleByArgument {}
extension CPUModel: ExpressibleByArgument {}
extension VMConfiguration.VirtioBus: ExpressibleByArgument {}

/// A guest-physical address: decimal, or hexadecimal after 0x.
extension GuestAddress: ExpressibleByArgument {
  /// Reads it; nil for anything else.
  public init?(argument: String) {
    self.init(spelled: argument)
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
