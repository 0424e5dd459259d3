import Host
import Synchronization

/// The way to a process that serves a device by vhost-user: a connection, and how to get another one.
package final class VhostUserSocket: Sendable {
  /// Where that process listens.
  package let path: String
  private let connecting: Errand
  private let first: Mutex<FrontEndLink?>
  private let shouldStop: Stop

  private final class Stop: Sendable {
    let asked = Mutex<@Sendable () -> Bool>({ false })
    var now: Bool { asked.withLock { $0 }() }
  }

  /// Connects to the process that listens at `path`, and waits until it has told what it is.
  package init(path: String) throws(VhostUserError) {
    self.path = path
    connecting = Errand(.connect(path))
    let stop = Stop()
    shouldStop = stop
    let socket: UnixSocket
    do throws(Errno) { socket = try UnixSocket(connectingTo: path) } catch { throw .host(error) }
    first = Mutex(try FrontEndLink(socket) { stop.now })
  }

  /// The connection that is there already, or a new one. It waits for the other side until `shouldStop`,
  /// in every call.
  func link(unless shouldStop: @escaping @Sendable () -> Bool) throws(VhostUserError)
    -> FrontEndLink
  {
    self.shouldStop.asked.withLock { $0 = shouldStop }
    if let link = first.withLock({ $0.take() }) { return link }
    let socket: SharedDescriptor?
    do throws(Errno) { socket = try connecting.perform() } catch { throw .host(error) }
    guard let socket else { throw .closed }
    let copy: FileDescriptor
    do throws(Errno) { copy = try socket.file.duplicate() } catch { throw .host(error) }
    return try FrontEndLink(UnixSocket(copy), unless: shouldStop)
  }
}
