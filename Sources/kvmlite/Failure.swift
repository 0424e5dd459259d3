import Doctor
import Guests
import Machine

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
      self.init(status: boot.cause == .options ? 64 : 65, message: error.description)
    case .configuration: self.init(status: 64, message: error.description)
    case .disk: self.init(status: 66, message: error.description)
    case .host: self.init(status: 71, message: error.description)
    }
  }

  private init(_ trouble: KVMTrouble) {
    self.init(status: trouble.exitStatus, message: trouble.description)
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
