import Boot
import Host
import KVM
import Memory

/// Why a machine could not be made.
package enum MachineError: Error, Sendable {
  /// KVM refused something.
  case kvm(KVMError)
  /// This host's KVM has not what every machine needs.
  case lacking(String)
  /// The image can't be booted.
  case boot(BootError)
  /// The configuration asks for what no machine can be.
  case configuration(String)
  /// A disk can't be reached.
  case disk(String)
  /// The host refused something.
  case host(String)
}

extension MachineError: CustomStringConvertible {
  /// What happened to what, and what to do next.
  package var description: String {
    switch self {
    case .kvm(let error): "KVM refused: \(error)"
    case .lacking(let name): "this host's KVM is too old: it lacks \(name)"
    case .boot(let error): error.description
    case .configuration(let message), .disk(let message), .host(let message): message
    }
  }
}
