import Host
import Machine
import Network

extension Failure {
  /// Why something that a machine needs can't be had, with what mends it. `isFromFile` says that the
  /// machine is that of a file: then devices go by their ids, else by the options that name them.
  init(_ error: ResourceError, isFromFile: Bool) {
    switch error.cause {
    case .file(let path, let errno):
      self.init(reading: path, errno, limit: 0, hint: "")
      if error.id == "image", errno == .noSuchFile {
        let near = Spelling.nearest(to: path, among: CommandWords.all)
        message += near.map { "; did you mean: kvmlite \($0)" } ?? ""
      }
    case .tooLarge(let path, let limit):
      let hint =
        error.id == "firmware" ? "a firmware ROM" : "the guest's memory; give it more with --memory"
      self.init(reading: path, .fileTooLarge, limit: limit, hint: hint)
    case .noGuest(let name, _): self.init(noGuest: name)
    case .sameFile, .noBackEnd: self.init(status: 64, message: "\(error)")
    case .disk(let disk): self.init(disk)
    case .vhostUser: self.init(status: 66, message: "\(error)")
    case .network(let network):
      let option = error.id.hasPrefix("vsock") ? "--vsock" : "--net"
      self.init(network, by: isFromFile ? error.id : option)
    case .output, .terminal: self.init(status: 71, message: "\(error)")
    }
  }

  /// An error of the network's.
  private init(_ error: NetworkError, by name: String) {
    let status: Int32 =
      switch error.kind {
      case .unusable: 66
      case .notPermitted: 77
      case .host: 71
      }
    self.init(status: status, message: "\(name): \(error)")
  }
}
