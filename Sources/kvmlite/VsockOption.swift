import ArgumentParser
import Devices
import Machine
import Network

/// What `--vsock` takes: the guest's address and the path of the host's socket.
struct VsockOption: ExpressibleByArgument {
  private let cid: UInt64
  private let path: String

  init?(argument: String) {
    // The path comes last and may have commas.
    let parts = argument.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].hasPrefix("cid="), parts[1].hasPrefix("socket="),
      let cid = UInt64(parts[0].dropFirst(4)), VirtioVsock.possibleCIDs.contains(cid),
      parts[1].count > 7
    else { return nil }
    self.cid = cid
    path = String(parts[1].dropFirst(7))
  }

  /// The device's settings, with the socket made.
  func vsock() throws(Failure) -> Configuration.Vsock {
    do throws(NetworkError) {
      return Configuration.Vsock(cid: cid, host: try VsockSockets(path: path))
    } catch { throw Failure(error, option: "--vsock") }
  }
}
