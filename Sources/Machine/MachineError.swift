import Boot
import Host
import KVM
import Memory

/// Why a machine could not be made.
public enum MachineError: Error, Sendable {
  /// KVM can't be used here: what is wrong and what mends it.
  case kvm(KVMTrouble)
  /// The image can't be booted.
  case boot(BootError)
  /// The configuration asks for what no machine can be.
  case configuration(String)
  /// A disk can't be reached.
  case disk(String)
  /// The host refused something.
  case host(String)

  /// The exit status that the command line promises for this.
  public var exitStatus: Int32 {
    switch self {
    case .kvm(let trouble): trouble.exitStatus
    case .boot(let error): error.cause == .options ? 64 : 65
    case .configuration: 64
    case .disk: 66
    case .host: 71
    }
  }
}

extension MachineError: CustomStringConvertible {
  /// What happened to what, and what to do next.
  public var description: String {
    switch self {
    case .kvm(let trouble): trouble.description
    case .boot(let error): error.description
    case .configuration(let message), .disk(let message), .host(let message): message
    }
  }
}
