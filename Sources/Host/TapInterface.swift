import CLinux
import Glibc

/// A queue of a TAP interface: the host's end of a network cable. Corresponds to
/// Documentation/networking/tuntap.rst.
package struct TapQueue: ~Copyable, Sendable {
  /// What a queue's reader can do with frames (`TUN_F_*`).
  package struct Offloads: OptionSet, Sendable {
    /// As the ioctl takes them.
    package let rawValue: UInt32
    /// Takes flags as they are.
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Frames whose checksum has not been computed.
    package static let checksum = Offloads(rawValue: UInt32(TUN_F_CSUM))
    /// TCP over IPv4 in pieces larger than the MTU.
    package static let tcp4 = Offloads(rawValue: UInt32(TUN_F_TSO4))
    /// TCP over IPv6.
    package static let tcp6 = Offloads(rawValue: UInt32(TUN_F_TSO6))
    /// The same with explicit congestion notification.
    package static let congestion = Offloads(rawValue: UInt32(TUN_F_TSO_ECN))
    /// UDP.
    package static let udp = Offloads(rawValue: UInt32(TUN_F_UFO))
  }

  /// Frames are read and written here, one with each call, behind a virtio-net header.
  package let descriptor: FileDescriptor

  /// Whether this host has an interface called `name`. Corresponds to `if_nametoindex(3)`.
  package static func interfaceExists(_ name: String) -> Bool {
    unsafe if_nametoindex(name) != 0
  }

  /// Opens a queue of the interface `name`, with headers of `headerSize` bytes; `isOneOfSeveral`
  /// where it has more of them. Corresponds to `TUNSETIFF` and `TUNSETVNETHDRSZ`.
  package init(_ name: String, isOneOfSeveral: Bool, headerSize: Int32) throws(Errno) {
    let file = try FileDescriptor(opening: "/dev/net/tun", [.readWrite, .nonBlocking])
    var flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    if isOneOfSeveral { flags |= IFF_MULTI_QUEUE }
    guard unsafe clinux_tun_attach(file.number, name, Int16(flags)) == 0,
      clinux_tun_set_header_size(file.number, headerSize) == 0
    else { throw Errno.current }
    descriptor = file
  }

  /// Takes over a queue that somebody opened, with headers of `headerSize` bytes; `name` becomes the
  /// interface's. Throws `EPROTOTYPE` for a queue whose frames have no headers. Corresponds to
  /// `TUNGETIFF` and `TUNSETVNETHDRSZ`.
  package init(
    _ file: consuming FileDescriptor, name: inout String, headerSize: Int32
  ) throws(Errno) {
    var bytes = [CChar](repeating: 0, count: 16)
    // The kernel's name has 15 bytes at most.
    let look = unsafe bytes.withUnsafeMutableBufferPointer {
      unsafe clinux_tun_look(file.number, $0.baseAddress)
    }
    guard look >= 0 else { throw Errno.current }
    guard look == 1 else { throw Errno(EPROTOTYPE) }
    guard clinux_tun_set_header_size(file.number, headerSize) == 0 else { throw Errno.current }
    file.neverWait()
    name = String(decoding: bytes.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    descriptor = file
  }

  /// Says what frames may be like that are read here. Corresponds to `TUNSETOFFLOAD`.
  package borrowing func set(_ offloads: Offloads) throws(Errno) {
    guard clinux_tun_set_offload(descriptor.number, offloads.rawValue) == 0 else {
      throw Errno.current
    }
  }

  /// Takes part in the interface's traffic, or no longer. Corresponds to `TUNSETQUEUE`.
  package borrowing func setActive(_ isActive: Bool) throws(Errno) {
    let flag = isActive ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE
    guard clinux_tun_set_queue(descriptor.number, Int16(flag)) == 0 else { throw Errno.current }
  }
}
