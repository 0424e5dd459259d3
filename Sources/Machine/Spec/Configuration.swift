import Boot
import Devices
import Host
import Network
import Storage

/// What the builder is given: what a machine shall be, what the host has for it, and how it runs.
package struct Configuration: Sendable {
  /// What it shall be, completed.
  package let spec: VMConfiguration
  let resources: Resources
  let run: RunOptions

  /// Puts them together.
  package init(_ spec: VMConfiguration, _ resources: Resources, _ run: RunOptions = RunOptions()) {
    self.spec = spec.completed()
    self.resources = resources
    self.run = run
  }

  typealias VirtioBus = VMConfiguration.VirtioBus

  var memorySize: UInt64 { spec.memorySize }
  var vcpuCount: Int { spec.vcpuCount }
  var cpu: CPUModel { spec.cpu }
  var virtioBus: VirtioBus { spec.virtioBus }
  var pciDevices: [@Sendable (PCIPlatform) throws(Errno) -> PCIFunction] { resources.pciDevices }
  var timeLimit: Double? { run.timeLimit }
  var observation: Observation? { run.observation }
  var restartsAtReset: Bool { run.restartsAtReset }
  var endingSignals: [Int32] { run.endingSignals }
  var look: (signal: Int32, body: @Sendable (Machine) -> Void)? { run.look }
  var deviceTrouble: (@Sendable (String) -> Void)? { run.deviceTrouble }
  var unreadInput: [UInt8] { run.unreadInput }

  /// The image, and how it starts.
  struct Image {
    let bytes: [UInt8]
    let name: String
    let isFirmware: Bool
    let options: BootOptions
  }

  var image: Image {
    let image = resources.image ?? Resources.Image([])
    return Image(
      bytes: image.bytes, name: image.name, isFirmware: spec.firmware != nil,
      options: BootOptions(
        mode: spec.mode ?? image.mode, loadAddress: spec.loadAddress,
        initrds: resources.initrds ?? [], commandLine: spec.append))
  }

  private var console: Resources.Console? {
    spec.consoles.first.flatMap { resources.consoles[$0.id] }
  }

  var consoleOutput: ConsoleOutput { console?.output ?? .none }
  var consoleInput: ConsoleInput { console?.input ?? .none }
  var consoleInputDevice: ConsoleInputDevice { spec.consoles.first?.input ?? .serial }

  /// Which of the devices there are that not every machine has, and that have no back end.
  var devices: Set<OptionalDevice> {
    Set(
      spec.devices.compactMap { device in
        switch device.kind {
        case .rng: .entropy
        case .balloon: .balloon
        case .virtioConsole: .console
        case .testDevice: .testDevice
        case .disk, .net, .vsock: nil
        }
      })
  }

  var allDevices: Set<OptionalDevice> { devices }

  var balloonTarget: UInt64 {
    spec.devices.first { $0.kind.name == "balloon" }?.balloon.target ?? 0
  }

  /// A disk of the machine's.
  struct Disk {
    typealias Bus = VMConfiguration.Disk.Bus

    enum Source {
      case store(any BlockStore)
      case vhostUser(socket: String)
    }

    let source: Source
    let bus: Bus
    let serial: String

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

  /// The disks, in the order the guest finds them on each bus.
  var disks: [Disk] {
    spec.devices.compactMap { device in
      guard case .disk(let disk) = device.kind else { return nil }
      let source: Disk.Source? =
        if let socket = disk.socket { .vhostUser(socket: socket) } else {
          resources.disks[device.id].map { .store($0) }
        }
      return source.map { Disk(source: $0, bus: disk.bus, serial: disk.serial) }
    }
  }

  /// A network card of the machine's.
  struct Network {
    let backEnd: any NetworkBackEnd
    let mac: MACAddress
    let mtu: UInt16?
  }

  /// The network cards, in the order the guest finds them.
  var networks: [Network] {
    let nets = spec.devices.filter { if case .net = $0.kind { true } else { false } }
    return nets.enumerated().compactMap { index, device in
      guard let backEnd = resources.networks[device.id] else { return nil }
      let net = device.net
      let name = net.tap.map { "tap \($0)" } ?? "user \(index)"
      return Network(
        backEnd: backEnd, mac: net.mac ?? MACAddress(stableFor: name),
        mtu: net.mtu ?? (net.isUser ? UserNetwork.mtu : nil))
    }
  }

  /// The guest's vsock device, if it has one.
  var vsock: (cid: UInt64, host: any VsockHost)? {
    for device in spec.devices {
      if case .vsock(let vsock) = device.kind, let host = resources.vsocks[device.id] {
        return (vsock.cid, host)
      }
    }
    return nil
  }

  /// Refuses what no machine can be, and devices with nothing behind them.
  func check() throws(MachineError) {
    do throws(SpecError) { try spec.check() } catch { throw .configuration(error.message) }
    guard resources.image != nil else { throw .configuration("there is no image to start") }
    for device in spec.devices {
      let isThere =
        switch device.kind {
        case .disk(let disk): disk.socket != nil || resources.disks[device.id] != nil
        case .net: resources.networks[device.id] != nil
        case .vsock: resources.vsocks[device.id] != nil
        case .rng, .balloon, .virtioConsole, .testDevice: true
        }
      guard isThere else { throw .configuration("\(device.id): nothing is behind it") }
    }
    if let limit = timeLimit, !(limit > 0 && limit <= 1e9) {
      throw .configuration("a time limit of \(limit) s is impossible: give more than 0")
    }
  }
}
