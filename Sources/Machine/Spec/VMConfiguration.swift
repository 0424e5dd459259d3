import Boot
import Devices
import Host
import Memory
import Network
import Storage

/// Everything about a machine but what the host has for it: a value, which can be written as JSON
/// (docs/spec.md) and compared.
///
/// `Resources` opens the files, sockets and interfaces that it names, or has others for them by the
/// devices' ids.
public struct VMConfiguration: Sendable, Equatable {
  /// The image: a path, or `guest:` and the name of a built-in guest; nil for the hello guest, or with
  /// a firmware.
  public var image: String?
  /// The path of a PC's firmware, which starts instead of an image.
  public var firmware: String?
  /// The mode that a flat image starts in; nil for a built-in guest's own, else real mode.
  public var mode: CPUMode?
  /// Where a flat image goes; nil for the usual place.
  public var loadAddress: GuestAddress?
  /// The paths of Linux's initial RAM disks, or of another kernel's modules.
  public var initrds: [String] = []
  /// What a kernel is told, after the defaults.
  public var append: String?
  /// RAM in bytes: a multiple of 4096, up to `GuestMemory.largestSize`.
  public var memorySize: UInt64 = 128 << 20
  /// How many VCPUs there are, from 1 to what KVM allows.
  public var vcpuCount = 1
  /// Which features its processors have.
  public var cpu = CPUModel.host
  /// The consoles: one, or none. That it is at standard input and output is for `Resources` to see to.
  public var consoles = [Console(isStandard: true)]
  /// The bus of all virtio devices but the disks that name another.
  public var virtioBus = VirtioBus.pci
  /// What the host gives it at most.
  public var limits = Limits()
  /// The devices that not every machine has, in the order the guest finds them on each bus.
  public var devices: [Device] = []

  /// A machine that runs the hello guest.
  public init() {}

  /// What a guest reaches virtio devices by.
  public enum VirtioBus: String, CaseIterable, Sendable {
    /// PCI, with messages or pins for interrupts (virtio 1.2, 4.1).
    case pci
    /// Registers in memory and a line each, for small guests (virtio 1.2, 4.2).
    case mmio
  }

  /// What the serial port, the debug console and the virtio console print to, and where one of them
  /// has its input from. With neither of the three places it is nowhere, unless the caller has ends
  /// for it.
  public struct Console: Sendable, Equatable {
    /// Its name.
    public var id = "console0"
    /// Whether it is the process's own standard input and output.
    public var isStandard: Bool
    /// Whether it is a new pseudo terminal.
    public var isTerminal = false
    /// Whether kvmlite starts the guest only when somebody has opened that.
    public var waits = false
    /// The file that it prints to.
    public var path: String?
    /// Instead, an open file, by number, from 3 on. A socket's or a terminal's is where it has its input
    /// from, too.
    public var descriptor: Int32?
    /// What its input goes to.
    public var input = ConsoleInputDevice.serial

    /// A console at standard input and output, or nowhere.
    public init(isStandard: Bool = false) { self.isStandard = isStandard }
  }
}

/// Which of the host processor's features a guest sees.
public enum CPUModel: String, Sendable, CaseIterable {
  /// All that KVM can give.
  case host
  /// Those of any 64-bit processor since 2009 (x86-64-v2), so that a guest behaves alike on different
  /// hosts.
  case baseline
}

/// What console input goes to.
public enum ConsoleInputDevice: String, CaseIterable, Sendable {
  /// The serial port.
  case serial
  /// Port 0 of a virtio console, which the machine then has: Linux's hvc0.
  case virtio
}

extension VMConfiguration {
  /// A device of the machine's.
  public struct Device: Sendable, Equatable {
    /// Its name, which no other device has; empty for its type and a number, such as `disk0`.
    public var id: String
    /// Where the guest finds it; nil for the next place that is free.
    public var place: Place?
    /// What it is.
    public var kind: Kind

    /// A device.
    public init(_ kind: Kind, id: String = "", place: Place? = nil) {
      self.id = id
      self.place = place
      self.kind = kind
    }
  }

  /// What a device is.
  public enum Kind: Sendable, Equatable {
    /// A disk.
    case disk(Disk)
    /// A network card.
    case net(Net)
    /// Streams between the guest's programs and the host's.
    case vsock(Vsock)
    /// Random numbers for the guest: virtio entropy.
    case rng
    /// Memory that the guest gives back: a virtio balloon.
    case balloon(Balloon)
    /// A second console, virtio's. It prints where the first one does, and has its input only if
    /// that says so.
    case virtioConsole
    /// The device that kvm-unit-tests look for, QEMU's pc-testdev. It takes the debug console's place
    /// among the ports.
    case testDevice
  }

  /// Where a guest finds a device.
  public enum Place: Hashable, Sendable {
    /// A function on the PCI bus.
    case pci(PCIAddress)
    /// A slot for virtio's registers in memory, from 0 on.
    case mmio(Int)
    /// A drive of the IDE controller, from 0 on, two on each channel.
    case ide(Int)
  }

  /// A disk: an image, or a socket where another process serves it, or what the caller has for it.
  public struct Disk: Sendable, Equatable {
    /// The image's path.
    public var path: String?
    /// Instead of a path, an open file of the process's, by number, from 3 on.
    public var descriptor: Int32?
    /// The path of the socket at which another process serves it by vhost-user; not for IDE.
    public var socket: String?
    /// The image's format; nil to find it out.
    public var format: DiskFormat?
    /// Whether the guest can't write.
    public var isReadOnly = false
    /// Whether what it writes is thrown away in the end.
    public var isSnapshot = false
    /// What the guest reaches it by.
    public var bus = Bus.virtio
    /// Its serial number, of up to 20 ASCII characters.
    public var serial = ""

    /// A disk on this bus.
    public init(path: String? = nil, bus: Bus = .virtio) {
      self.path = path
      self.bus = bus
    }

    /// What the guest reaches a disk by.
    public enum Bus: String, CaseIterable, Sendable {
      /// virtio-blk on `virtioBus`.
      case virtio
      /// virtio-blk on the MMIO transport, for small guests.
      case mmio
      /// ATA on a PIIX IDE controller.
      case ide
    }
  }

  /// A network card, on `virtioBus`: its frames go to passt or to a TAP interface, or to what the
  /// caller has for it.
  public struct Net: Sendable, Equatable {
    /// Whether they go to passt.
    public var isUser = false
    /// The interface's name.
    public var tap: String?
    /// Instead, an open queue of one, by the file's number, from 3 on; its frames have virtio-net
    /// headers (`IFF_VNET_HDR`).
    public var descriptor: Int32?
    /// How many pairs of queues that has.
    public var queueCount = 1
    /// Its address; nil for one that is the same each time.
    public var mac: MACAddress?
    /// The largest packet that the guest is advised to send, in bytes: one of
    /// `VirtioNet.possibleMTUs`.
    public var mtu: UInt16?

    /// A card whose cable the caller has.
    public init() {}
  }

  /// A vsock device, on `virtioBus`.
  public struct Vsock: Sendable, Equatable {
    /// The guest's address, one of `VirtioVsock.possibleCIDs`.
    public var cid: UInt64
    /// Where the host's programs connect; nil if the caller has the host's side.
    public var socket: String?
    /// Instead, a socket that listens, by the file's number, from 3 on. The guest's own connections find
    /// nobody then.
    public var descriptor: Int32?

    /// The guest at `cid`.
    public init(cid: UInt64, socket: String? = nil) {
      self.cid = cid
      self.socket = socket
    }
  }

  /// A balloon, on `virtioBus`.
  public struct Balloon: Sendable, Equatable {
    /// How many bytes of its memory the guest is asked to put into it.
    public var target: UInt64

    /// A balloon that is to grow to so many bytes.
    public init(target: UInt64 = 0) { self.target = target }
  }
}

extension VMConfiguration.Kind {
  /// The type's name in a spec.
  package var name: String {
    switch self {
    case .disk: "disk"
    case .net: "net"
    case .vsock: "vsock"
    case .rng: "rng"
    case .balloon: "balloon"
    case .virtioConsole: "virtio-console"
    case .testDevice: "testdev"
    }
  }

  /// Whether a machine has no more than one of them.
  package var isSingle: Bool {
    switch self {
    case .disk, .net: false
    default: true
    }
  }
}

extension VMConfiguration.Device {
  /// The disk's settings; for another device those of a disk with nothing said.
  package var disk: VMConfiguration.Disk {
    get { if case .disk(let disk) = kind { disk } else { .init() } }
    set { kind = .disk(newValue) }
  }

  /// The same of a network card.
  package var net: VMConfiguration.Net {
    get { if case .net(let net) = kind { net } else { .init() } }
    set { kind = .net(newValue) }
  }

  /// The same of a vsock device.
  package var vsock: VMConfiguration.Vsock {
    get { if case .vsock(let vsock) = kind { vsock } else { .init(cid: 0) } }
    set { kind = .vsock(newValue) }
  }

  /// The same of a balloon.
  package var balloon: VMConfiguration.Balloon {
    get { if case .balloon(let balloon) = kind { balloon } else { .init() } }
    set { kind = .balloon(newValue) }
  }
}

// MARK: What isn't said

extension VMConfiguration {
  /// What stands before the name of a built-in guest.
  package static let guestPrefix = "guest:"

  /// The same machine with what was left to kvmlite: the image, the console that input goes to, and
  /// ids.
  package func completed() -> VMConfiguration {
    var whole = self
    if image == nil && firmware == nil { whole.image = Self.guestPrefix + "hello-real" }
    let wantsConsole = consoles.contains { $0.input == .virtio }
    if wantsConsole && !devices.contains(where: { $0.kind == .virtioConsole }) {
      whole.devices.append(Device(.virtioConsole))
    }
    whole.giveIDs()
    return whole
  }

  private mutating func giveIDs() {
    var taken = Set(devices.map(\.id))
    for index in devices.indices where devices[index].id.isEmpty {
      let name = devices[index].kind.name
      let id = (0...taken.count).lazy.map { "\(name)\($0)" }.first { !taken.contains($0) }
      devices[index].id = id ?? name
      taken.insert(devices[index].id)
    }
  }

  /// The numbers of all open files that it names.
  package var descriptors: [Int32] {
    consoles.compactMap(\.descriptor)
      + devices.compactMap { $0.disk.descriptor ?? $0.net.descriptor ?? $0.vsock.descriptor }
  }

  /// Changes the numbers of all open files that it names.
  package mutating func changeDescriptors(
    _ change: (Int32) throws(Errno) -> Int32
  ) throws(Errno) {
    func changed(_ number: Int32?) throws(Errno) -> Int32? {
      if let number { try change(number) } else { nil }
    }
    for index in consoles.indices {
      consoles[index].descriptor = try changed(consoles[index].descriptor)
    }
    for device in devices.indices {
      switch devices[device].kind {
      case .disk(let disk): devices[device].disk.descriptor = try changed(disk.descriptor)
      case .net(let net): devices[device].net.descriptor = try changed(net.descriptor)
      case .vsock(let vsock): devices[device].vsock.descriptor = try changed(vsock.descriptor)
      default: break
      }
    }
  }

  /// Changes all paths of the host's that it names.
  package mutating func changePaths(_ change: (String) -> String) {
    if let image, !image.hasPrefix(Self.guestPrefix) { self.image = change(image) }
    firmware = firmware.map(change)
    initrds = initrds.map(change)
    for index in consoles.indices { consoles[index].path = consoles[index].path.map(change) }
    for index in devices.indices {
      switch devices[index].kind {
      case .disk(var disk):
        disk.path = disk.path.map(change)
        disk.socket = disk.socket.map(change)
        devices[index].disk = disk
      case .vsock(var vsock):
        vsock.socket = vsock.socket.map(change)
        devices[index].vsock = vsock
      default: break
      }
    }
  }
}
