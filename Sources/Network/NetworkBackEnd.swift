import Host
import Memory

/// What a network back end can do with frames that a guest sends, and what may be the matter with
/// those that it hands to a guest: work that then is done by the other side, or by nobody.
package struct NetworkOffloads: OptionSet, Sendable {
  /// Bit by bit.
  package let rawValue: UInt32
  /// Takes bits as they are.
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A frame's checksum is not computed yet.
  package static let checksum = NetworkOffloads(rawValue: 1)
  /// TCP over IPv4 in one frame that becomes several.
  package static let tcp4 = NetworkOffloads(rawValue: 2)
  /// TCP over IPv6.
  package static let tcp6 = NetworkOffloads(rawValue: 4)
  /// The same with explicit congestion notification.
  package static let congestion = NetworkOffloads(rawValue: 8)
  /// UDP in one frame that becomes several.
  package static let udp = NetworkOffloads(rawValue: 16)
}

/// Where a guest's network goes: Ethernet frames out and in.
///
/// Frames have no checksum at their end. A frame stands behind a header of `NetworkFrame.headerCount`
/// bytes, struct virtio_net_hdr_mrg_rxbuf of linux/virtio_net.h; a back end without offloads leaves
/// it alone. Each queue is used by one thread for sending and one for receiving.
package protocol NetworkBackEnd: AnyObject, Sendable {
  /// What it is, for messages: `tap0`.
  var name: String { get }
  /// How many queues there are, at least 1.
  var queueCount: Int { get }
  /// What it takes from a guest, and what it can give to one that asks.
  var offloads: NetworkOffloads { get }

  /// Which offloads the guest takes from now on; none until this is called.
  func allow(_ offloads: NetworkOffloads)
  /// How many queues the guest reads from now on, the first ones; the first one until this is called.
  func setActiveQueues(_ count: Int)

  /// The number of a file that becomes readable when something comes to `queue`; nil for none. It is
  /// there for as long as the back end.
  func inputDescriptor(queue: Int) -> Int32?

  /// Sends a frame: `header` and then `frame`, which has `count` bytes, as large as an offload lets it
  /// be. What can't be sent is dropped. Waits for room, if at all, only while `mayWait` says so.
  func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool

  /// Gives back what others may see, such as a program that was started: no machine uses it any more.
  func close()

  /// Puts the next frame of `queue` with its header into `buffer`, which has
  /// `NetworkFrame.bufferCount` bytes. Throws when there will be no more frames.
  func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput
}

extension NetworkBackEnd {
  /// There is nothing to give back.
  package func close() {}
}

/// A back end that is a program of its own: it can have something to say, and it can end.
package protocol NetworkProgram: NetworkBackEnd {
  /// Calls `say` with each line that it says, under its name, and `ended` once it has ended, both on
  /// `worker`'s thread.
  func follow(
    on worker: Worker, say: @escaping @Sendable (String) -> Void,
    ended: @escaping @Sendable (NetworkError) -> Void
  ) throws(Errno)
}

/// What came of an attempt to receive.
package enum NetworkInput: Equatable, Sendable {
  /// A frame: so many bytes, its header included.
  case frame(Int)
  /// Nothing yet: the file becomes readable when there is something.
  case nothing
}

/// Sizes of frames and their headers.
package enum NetworkFrame {
  /// struct virtio_net_hdr_mrg_rxbuf.
  package static let headerCount = 12
  /// Two addresses and a type.
  package static let shortest = 14
  /// The largest IP packet, which an offload may make, behind two addresses, a VLAN tag and a type.
  package static let longest = 65535 + 18
  /// The longest frame with its header.
  package static let bufferCount = headerCount + longest
}
