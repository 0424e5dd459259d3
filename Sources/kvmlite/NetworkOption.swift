import ArgumentParser
import Devices
import Machine
import Network

/// What `--net` takes: where frames go, and settings behind commas.
struct NetworkOption: ExpressibleByArgument {
  private enum Kind {
    case none
    case user
    case tap(String)
  }

  /// More pairs of queues than a guest has VCPUs are of no use.
  private static let mostQueues = 16

  private let kind: Kind
  private var mac: MACAddress?
  private var mtu: UInt16?
  private var queueCount = 1

  init?(argument: String) {
    var parts = argument.split(separator: ",", omittingEmptySubsequences: false)[...]
    guard let first = parts.popFirst() else { return nil }
    switch first {
    case "none": kind = .none
    case "user": kind = .user
    default:
      // Names of interfaces have up to 15 bytes.
      guard first.hasPrefix("tap="), (5...19).contains(first.utf8.count), !first.contains("/")
      else { return nil }
      kind = .tap(String(first.dropFirst(4)))
    }
    for part in parts {
      let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard words.count == 2, set(String(words[0]), String(words[1])) else { return nil }
    }
  }

  private mutating func set(_ name: String, _ value: String) -> Bool {
    switch (name, kind) {
    case (_, .none): return false
    case ("mac", _):
      mac = MACAddress(value)
      return mac != nil
    case ("mtu", _):
      mtu = UInt16(value)
      return mtu.map(VirtioNet.possibleMTUs.contains) ?? false
    case ("queues", .tap):
      guard let count = Int(value), (1...Self.mostQueues).contains(count) else { return false }
      queueCount = count
      return true
    default: return false
    }
  }

  /// The network card, with its back end opened; nil for none. `index` is its number among those of
  /// the command line.
  func network(index: Int) throws(Failure) -> Configuration.Network? {
    do throws(NetworkError) {
      switch kind {
      case .none: return nil
      case .user:
        let mac = mac ?? MACAddress(stableFor: "user \(index)")
        return Configuration.Network(try UserNetwork(), mac: mac, mtu: mtu ?? UserNetwork.mtu)
      case .tap(let name):
        let backEnd = try TapBackEnd(name, queueCount: queueCount)
        let mac = mac ?? MACAddress(stableFor: "tap \(name)")
        return Configuration.Network(backEnd, mac: mac, mtu: mtu)
      }
    } catch { throw Failure(error, option: "--net") }
  }
}

extension Failure {
  /// An error of the network's, as an end of the program.
  init(_ error: NetworkError, option: String) {
    let status: Int32 =
      switch error.kind {
      case .unusable: 66
      case .notPermitted: 77
      case .host: 71
      }
    self.init(status: status, message: "\(option): \(error)")
  }
}
