import Host
import Memory
import Synchronization

/// A TAP interface: the host sees what the guest sends as coming from there.
///
/// The kernel computes checksums and cuts large frames, or passes both on to a guest that asks.
package final class TapBackEnd: NetworkBackEnd {
  /// The most queues that Linux gives an interface (MAX_TAP_QUEUES).
  package static let mostQueues = 256

  /// The interface.
  package let name: String
  /// What the kernel can do.
  package let offloads: NetworkOffloads
  /// As many as were asked for.
  package var queueCount: Int { queues.count }

  private final class Queue: Sendable {
    let tap: TapQueue
    init(_ tap: consuming TapQueue) { self.tap = tap }
    init(_ name: String, isOneOfSeveral: Bool) throws(Errno) {
      tap = try TapQueue(
        name, isOneOfSeveral: isOneOfSeveral, headerSize: Int32(NetworkFrame.headerCount))
    }
  }

  private let queues: [Queue]
  private let activeCount: Mutex<Int>

  /// Opens `queueCount` queues of the interface `name`, which is there already.
  package init(_ name: String, queueCount: Int = 1) throws(NetworkError) {
    self.name = name
    do throws(Errno) {
      guard TapQueue.interfaceExists(name) else { throw Errno.noSuchDevice }
      queues = try Self.open(name, queueCount)
      offloads = Self.probe(queues[0])
      // What the driver has not asked for yet is nobody's to read.
      for queue in queues.dropFirst() { try queue.tap.setActive(false) }
      activeCount = Mutex(1)
    } catch { throw TapTrouble.error(error, name, queueCount) }
  }

  /// Takes the open file `descriptor`, a queue of an interface, whose frames have virtio-net headers.
  package init(descriptor: Int32) throws(NetworkError) {
    var name = ""
    do throws(Errno) {
      let tap = try TapQueue(
        InheritedFiles.copy(of: descriptor), name: &name,
        headerSize: Int32(NetworkFrame.headerCount))
      queues = [Queue(tap)]
      offloads = Self.probe(queues[0])
      activeCount = Mutex(1)
      self.name = name
    } catch { throw TapTrouble.error(error, descriptor: descriptor) }
  }

  private static func open(_ name: String, _ count: Int) throws(Errno) -> [Queue] {
    if count == 1 {
      do throws(Errno) { return [try Queue(name, isOneOfSeveral: false)] } catch {
        // An interface made for several queues wants to be told.
        guard error == .invalidArgument else { throw error }
      }
    }
    var queues: [Queue] = []
    for _ in 0..<count { queues.append(try Queue(name, isOneOfSeveral: true)) }
    return queues
  }

  /// Tries from most to least, as the kernel refuses a set as a whole.
  private static func probe(_ queue: Queue) -> NetworkOffloads {
    let choices: [NetworkOffloads] = [
      [.checksum, .tcp4, .tcp6, .congestion, .udp], [.checksum, .tcp4, .tcp6, .congestion],
      [.checksum],
    ]
    defer { try? queue.tap.set([]) }
    return choices.first { (try? queue.tap.set(flags($0))) != nil } ?? []
  }

  private static func flags(_ offloads: NetworkOffloads) -> TapQueue.Offloads {
    var flags: TapQueue.Offloads = []
    if offloads.contains(.checksum) { flags.insert(.checksum) }
    if offloads.contains(.tcp4) { flags.insert(.tcp4) }
    if offloads.contains(.tcp6) { flags.insert(.tcp6) }
    if offloads.contains(.congestion) { flags.insert(.congestion) }
    if offloads.contains(.udp) { flags.insert(.udp) }
    return flags
  }

  /// Tells the kernel. It is the interface's matter, not the queue's.
  package func allow(_ offloads: NetworkOffloads) {
    try? queues[0].tap.set(Self.flags(offloads.intersection(self.offloads)))
  }

  /// Takes the first `count` queues into service, and the others out of it.
  package func setActiveQueues(_ count: Int) {
    activeCount.withLock { active in
      let wanted = min(max(count, 1), queues.count)
      for index in min(active, wanted)..<max(active, wanted) {
        try? queues[index].tap.setActive(index < wanted)
      }
      active = wanted
    }
  }

  /// The queue's own file.
  package func inputDescriptor(queue: Int) -> Int32? { queues[queue].tap.descriptor.number }

  /// Hands the frame to the kernel, which refuses it while the interface is down.
  package func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    let sent = try? queues[queue].tap.descriptor.write(header, frame)
    return sent == NetworkFrame.headerCount + count
  }

  /// Takes the next frame from the kernel.
  package func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    do throws(Errno) {
      return .frame(try queues[queue].tap.descriptor.read(into: buffer))
    } catch {
      switch error {
      // EIO: the interface or this queue is off for now.
      case .tryAgain, .inputOutput, .invalidArgument: return .nothing
      default: throw NetworkError(.host, "\(name) gives no more frames: \(error)")
      }
    }
  }
}

/// What keeps an interface from being used, and what mends it.
enum TapTrouble {
  static func error(_ errno: Errno, descriptor: Int32) -> NetworkError {
    let what =
      switch errno.name {
      case "EBADF": "isn't open: whoever starts kvmlite is to leave it open"
      case "EPROTOTYPE": "is a tap's without virtio-net headers: open it with IFF_VNET_HDR"
      case "ENOTTY", "EINVAL", "EBADFD": "is no open tap interface's"
      default: "can't be used: \(errno)"
      }
    return NetworkError(.unusable, "file descriptor \(descriptor) \(what)")
  }

  static func error(_ errno: Errno, _ name: String, _ queueCount: Int) -> NetworkError {
    let several = queueCount > 1 ? " multi_queue" : ""
    let making = "sudo ip tuntap add \(name) mode tap user $USER\(several)"
    if !FileDescriptor.exists("/dev/net/tun") {
      return NetworkError(
        .unusable,
        "no /dev/net/tun, so no tap interfaces here: load the module with: sudo modprobe tun")
    }
    switch errno {
    case .noSuchDevice:
      return NetworkError(
        .unusable,
        "no interface \(name): make it with: \(making) && sudo ip link set \(name) up")
    case .notPermitted, .accessDenied:
      return NetworkError(
        .notPermitted,
        "\(name) belongs to somebody else: make one of your own with: \(making), or run as root")
    case .busy:
      return NetworkError(
        .unusable, "\(name) is in use: each virtual machine needs an interface of its own")
    case .invalidArgument:
      return NetworkError(
        .unusable,
        "\(name) is not a tap interface with \(queueCount) queue(s): make another one with: "
          + "sudo ip tuntap add NAME mode tap user $USER\(several)")
    default: return NetworkError(.host, "\(name) can't be opened: \(errno)")
    }
  }
}
