import Host
import Synchronization

/// The host's side of a vsock device: Unix sockets.
///
/// Programs connect to the socket at `path` and say `CONNECT PORT`; a guest's connection to port P
/// goes to the socket at `path`_P, as with Firecracker and Cloud Hypervisor.
package protocol VsockHost: AnyObject, Sendable {
  /// The number of a file that becomes readable when somebody connects.
  var listenerDescriptor: Int32 { get }
  /// The next program that has connected; nil if there is none.
  func accept() -> FileDescriptor?
  /// Connects to the program that listens for `port`; nil if there is none, or it takes nobody now.
  func connect(port: UInt32) throws(Errno) -> FileDescriptor?
  /// Lets nobody connect any more.
  func close()
}

/// The same, with sockets in the file system.
package final class VsockSockets: VsockHost {
  private let listener: UnixListener
  private let connecting: Errand?
  private let isOpen = Atomic(true)

  /// Where programs connect; empty if that is somebody else's matter.
  package var path: String { listener.path }
  /// The number of the listening socket.
  package var listenerDescriptor: Int32 { listener.descriptor.number }

  /// Listens at `path`, where nobody may listen yet. The socket of a program that is gone is removed.
  package init(path: String) throws(NetworkError) {
    connecting = Errand(.connectNumbered(path))
    do throws(Errno) {
      listener = try UnixListener(at: path, waits: false)
    } catch {
      switch error.name {
      case "EADDRINUSE":
        throw NetworkError(
          .unusable, "\(path): in use, or no socket; give another path after socket=")
      case "ENAMETOOLONG":
        throw NetworkError(
          .unusable, "\(path): too long for a socket: at most \(StreamSocket.longestPath) bytes")
      case "EACCES", "EPERM":
        throw NetworkError(.notPermitted, "\(path): no socket may be made there: \(error)")
      default: throw NetworkError(.host, "\(path): no socket can be made there: \(error)")
      }
    }
  }

  /// Takes the open file `listener`, a Unix socket that listens. The guest's connections find nobody.
  package init(listener: Int32) throws(NetworkError) {
    connecting = nil
    do throws(Errno) {
      self.listener = UnixListener(listening: try InheritedFiles.copy(of: listener))
    } catch {
      throw NetworkError(
        .unusable,
        "file descriptor \(listener) isn't open: whoever starts kvmlite is to leave it open")
    }
  }

  /// Removes the socket, once: there may be another program's after that.
  package func close() {
    if isOpen.exchange(false, ordering: .acquiringAndReleasing) { listener.removeName() }
  }

  /// The next program that has connected.
  package func accept() -> FileDescriptor? {
    // Nobody tells again of who waits: an error for now isn't the last word.
    for _ in 0..<3 {
      do throws(Errno) { return try listener.descriptor.accept() } catch { continue }
    }
    return nil
  }

  /// Connects to the socket `path`_PORT.
  package func connect(port: UInt32) throws(Errno) -> FileDescriptor? {
    do throws(Errno) { return try connecting?.perform(UInt64(port))?.file.duplicate() } catch {
      guard [.noSuchFile, .connectionRefused, .tryAgain].contains(error) else { throw error }
      return nil
    }
  }
}
