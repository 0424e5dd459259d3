import Boot
import Devices
import Host
import Memory
import Network
import Storage

/// What a machine is made of and what it runs.
public struct Configuration: Sendable {
  /// The image: its bytes, and its name for messages.
  public var image: Image
  /// RAM in bytes: a multiple of 4096, up to `GuestMemory.largestSize`.
  public var memorySize: UInt64 = 128 << 20
  /// How many VCPUs there are, from 1 to what KVM allows.
  public var vcpuCount = 1
  /// Which features its processors have.
  public var cpu = CPUModel.host
  /// Where the guest's console output goes.
  public var consoleOutput: ConsoleOutput = .none
  /// Where its console input comes from.
  public var consoleInput: ConsoleInput = .none
  /// What the guest reads it from.
  public var consoleInputDevice = ConsoleInputDevice.serial
  /// Input that comes before that, such as what a machine left unread that was reset.
  public var unreadInput: [UInt8] = []
  /// Which of the devices there are that not every machine has.
  public var devices: Set<OptionalDevice> = []
  /// The bus of all virtio devices but the disks that name another.
  public var virtioBus = VirtioBus.pci
  /// The disks, in the order the guest finds them on each bus.
  public var disks: [Disk] = []
  /// The network cards, in the order the guest finds them.
  public var networks: [Network] = []
  /// The guest's vsock device, if it has one.
  public var vsock: Vsock?
  /// Further functions on the PCI bus, in order: each is made from what the bus gives it.
  public var pciDevices: [@Sendable (PCIPlatform) throws(Errno) -> PCIFunction] = []
  /// How many bytes of its memory the guest is asked to put into the balloon, if there is one.
  public var balloonTarget: UInt64 = 0
  /// Gets a sentence, from any thread, when a device can't go on because of its driver.
  public var deviceTrouble: (@Sendable (String) -> Void)?
  /// How long the run may take, in seconds; nil for as long as it likes.
  public var timeLimit: Double?
  /// What is recorded of each exit; nil, the default, costs nothing.
  public var observation: Observation?

  /// Whether a reset that the guest asks for starts the machine anew; else it ends the run.
  public var restartsAtReset = false

  /// Signals that end the run in order, by number. They are blocked in the calling thread while it
  /// runs; a library leaves them to its program.
  public var endingSignals: [Int32] = []

  /// What is done while the machine stands still, when `RunControl.requestLook()` asks for it or the
  /// signal of that number comes, which is blocked like the ending ones. Then the guest goes on.
  public var look: (signal: Int32, body: @Sendable (Machine) -> Void)?

  /// `devices`, and what else the machine needs of them.
  var allDevices: Set<OptionalDevice> {
    consoleInputDevice == .virtio ? devices.union([.console]) : devices
  }

  /// A machine for `image`, with everything else at its default.
  public init(image: Image) { self.image = image }

  /// What a guest reaches virtio devices by.
  public enum VirtioBus: String, CaseIterable, Sendable {
    /// PCI, with messages or pins for interrupts (virtio 1.2, 4.1).
    case pci
    /// Registers in memory and a line each, for small guests (virtio 1.2, 4.2).
    case mmio
  }

  /// A disk of the machine's.
  public struct Disk: Sendable {
    /// What the guest reaches it by.
    public enum Bus: String, CaseIterable, Sendable {
      /// virtio-blk on `virtioBus`.
      case virtio
      /// virtio-blk on the MMIO transport, for small guests.
      case mmio
      /// ATA on a PIIX IDE controller.
      case ide
    }

    /// Where its contents are.
    public enum Source: Sendable {
      /// Here.
      case store(any BlockStore)
      /// In another process, which listens at this path; not for IDE. Its guest's memory is shareable.
      case vhostUser(socket: String)
    }

    /// Where its contents are.
    public var source: Source
    /// What the guest reaches it by.
    public var bus: Bus
    /// Its serial number, of up to 20 ASCII characters.
    public var serial: String

    /// A disk with these contents.
    public init(_ store: any BlockStore, bus: Bus = .virtio, serial: String = "") {
      source = .store(store)
      self.bus = bus
      self.serial = serial
    }

    /// A disk that another process serves by vhost-user.
    public init(vhostUser socket: String, bus: Bus = .virtio) {
      source = .vhostUser(socket: socket)
      self.bus = bus
      serial = ""
    }

    /// The bus of its virtio device on a machine whose others are on `bus`; nil if it has none.
    func virtioBus(_ bus: VirtioBus) -> VirtioBus? {
      switch self.bus {
      case .virtio: bus
      case .mmio: .mmio
      case .ide: nil
      }
    }

    var isVhostUser: Bool {
      if case .vhostUser = source { true } else { false }
    }
  }

  /// A network card of the machine's, on `virtioBus`.
  public struct Network: Sendable {
    /// Where its frames go.
    public var backEnd: any NetworkBackEnd
    /// Its address.
    public var mac: MACAddress
    /// The largest packet that the guest is advised to send, in bytes: one of
    /// `VirtioNet.possibleMTUs`.
    public var mtu: UInt16?

    /// A card with the address `mac`.
    public init(_ backEnd: any NetworkBackEnd, mac: MACAddress, mtu: UInt16? = nil) {
      self.backEnd = backEnd
      self.mac = mac
      self.mtu = mtu
    }
  }

  /// Streams between the guest's programs and the host's, on `virtioBus`.
  public struct Vsock: Sendable {
    /// The guest's address, one of `VirtioVsock.possibleCIDs`.
    public var cid: UInt64
    /// The host's side.
    public var host: any VsockHost

    /// The guest at `cid` with `host` on the other side.
    public init(cid: UInt64, host: any VsockHost) {
      self.cid = cid
      self.host = host
    }
  }

  /// A guest image.
  public struct Image: Sendable {
    /// Its contents.
    public var bytes: [UInt8]
    /// Its path or name, for messages.
    public var name: String
    /// Whether it is a PC's firmware, which the bytes don't tell.
    public var isFirmware = false
    /// How it is to be started.
    public var options: BootOptions

    /// An image called `name` that holds `bytes`; `mode` is for flat images, which are the only ones
    /// that don't say themselves.
    public init(_ bytes: [UInt8], name: String = "image", mode: CPUMode? = nil) {
      self.bytes = bytes
      self.name = name
      self.options = BootOptions(mode: mode)
    }
  }
}

/// Where the bytes of the guest's consoles go.
public enum ConsoleOutput: Sendable {
  /// Nowhere.
  case none
  /// To an open file of the process, by number, such as 1 for standard output.
  case descriptor(Int32)
  /// To the master's side of a terminal, by number; what nobody reads there is lost.
  case terminal(Int32)
  /// To whatever takes bytes, such as a `ConsoleBuffer`.
  case sink(any ByteSink)
}

/// What console input goes to.
public enum ConsoleInputDevice: String, CaseIterable, Sendable {
  /// The serial port.
  case serial
  /// Port 0 of a virtio console, which the machine then has: Linux's hvc0.
  case virtio
}

/// Where the bytes come from that the guest reads from its console.
public enum ConsoleInput: Sendable {
  /// Nowhere.
  case none
  /// From here.
  case bytes([UInt8])
  /// From an open file of the process, by number, such as 0 for standard input. `filter` sees what
  /// was read and returns what the guest shall get; it may call `RunControl.stop(_:)`.
  case descriptor(Int32, filter: (@Sendable ([UInt8], RunControl) -> [UInt8])? = nil)
}
