import Doctor
import Guests
import Host
import Machine
import Storage

/// An error that ends the program with a message and a status.
struct Failure: Error {
  let status: Int32
  var message: String
}

extension Failure {
  /// Why a machine could not be made, with what mends it.
  init(_ error: MachineError) {
    switch error {
    case .kvm(let error): self.init(KVMTrouble(error))
    case .lacking(let name): self.init(.tooOld(name))
    case .boot(let boot):
      self.init(status: boot.cause == .options ? 64 : 65, message: boot.message.inOptions)
    case .configuration: self.init(status: 64, message: error.description)
    case .disk: self.init(status: 66, message: error.description)
    case .host: self.init(status: 71, message: error.description)
    }
  }

  private init(_ trouble: KVMTrouble) {
    self.init(status: trouble.exitStatus, message: trouble.description)
  }

  /// Why a disk image can't be used, with what mends it.
  init(_ error: DiskError) {
    let status: Int32 =
      switch error.kind {
      case .usage: 64
      case .malformed: 65
      case .unusable: 66
      case .host: 71
      }
    self.init(status: status, message: error.advice.inOptions)
  }

  /// There is no built-in guest called `name`.
  init(noGuest name: String) {
    let hint = Spelling.hint(name, among: Guest.all.map(\.name))
    self.init(
      status: 66,
      message: "there is no built-in guest '\(name)'"
        + (hint.isEmpty ? "; see: kvmlite guests" : hint + " See: kvmlite guests"))
  }
}

extension KVMTrouble {
  /// The status that the command ends with: 77 (EX_NOPERM) for a lack of permission, 71 (EX_OSERR)
  /// for a failed request, else 69 (EX_UNAVAILABLE).
  var exitStatus: Int32 {
    switch self {
    case .forbidden: 77
    case .other: 71
    default: 69
    }
  }
}

extension Advice {
  /// In the words of who typed a command.
  var inOptions: String {
    text { term, value in value.map { "\(term.option) \($0)" } ?? term.option }
  }
}

extension Advice.Term {
  fileprivate var option: String {
    switch self {
    case .memory: "--memory"
    case .mode: "--mode"
    case .loadAddress: "--load-address"
    case .initrds: "--initrd"
    case .append: "--append"
    case .firmware: "--firmware"
    case .disk: "--disk"
    case .readOnly: ",readonly"
    case .size: "--size"
    case .format: "--format"
    case .replacing: "--force"
    case .backing: "--backing"
    case .backingFormat: "--backing-format"
    case .repair: "kvmlite disk check --repair"
    case .overlay: "kvmlite disk create --backing"
    case .rebase: "kvmlite disk rebase --unsafe"
    }
  }
}
