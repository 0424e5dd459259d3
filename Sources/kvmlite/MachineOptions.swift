import ArgumentParser
import Boot
import Host
import Machine
import Memory

/// The options that describe a machine: a spec, or changes to one.
struct MachineOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp(
      "The guest image, or guest:NAME for a built-in guest (see: kvmlite guests).",
      valueName: "image"))
  var image: String?

  @Option(
    help: ArgumentHelp(
      """
      The machine, as kvmlite config prints it (docs/spec.md); - for standard input. Other options \
      change what it says.
      """, valueName: "file"))
  var config: String?

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp(
      "The guest's memory: a number with K, M, G or T. (default: 128M)", valueName: "memory"),
    transform: { try MachineSetting("memory", $0) })
  var memory: MachineSetting?

  @Option(name: .shortAndLong, help: "How many VCPUs it has. (default: 1)")
  var cpus: Int?

  @Option(help: "The mode a flat image starts in: real, protected or long. (default: real)")
  var mode: CPUMode?

  @Option(
    help: ArgumentHelp("Where a flat image is loaded. (default: 0x10000)", valueName: "address"))
  var loadAddress: GuestAddress?

  @Option(
    help: ArgumentHelp(
      """
      Linux's initial RAM disk, or a PVH or Multiboot kernel's module, for Multiboot also \
      "FILE ARGUMENTS". Repeatable.
      """, valueName: "file"))
  var initrd: [String] = []

  @Option(
    help: ArgumentHelp(
      "What the kernel is told, after the defaults (see --verbose).", valueName: "text"))
  var append: String?

  @Option(
    help: ArgumentHelp(
      "Start a PC's firmware, such as SeaBIOS's bios.bin, instead of an image.", valueName: "file"))
  var firmware: String?

  @Option(
    help: ArgumentHelp(
      "Add a device: rng, balloon, virtio-console, or testdev, that of kvm-unit-tests. May be "
        + "repeated.", valueName: "name"), transform: DeviceOptions.other)
  var device: [VMConfiguration.Device] = []

  @Option(
    help: ArgumentHelp(
      "Ask the guest for so much of its memory back; adds the balloon that this takes.",
      valueName: "size"))
  var balloon: MemorySize?

  @Option(
    help: ArgumentHelp(
      """
      Add a disk: PATH[,format=raw|qcow2][,readonly][,snapshot][,bus=virtio|mmio|ide][,serial=TEXT], \
      or vhost-user=SOCKET[,bus=virtio|mmio] for one that another process serves. \
      May be repeated; a comma in the path is doubled. With ,id=NAME it takes the place of the disk \
      of that name.
      """, valueName: "path,..."), transform: DeviceOptions.disk)
  var disk: [VMConfiguration.Device] = []

  @Option(
    help: ArgumentHelp(
      """
      The bus of all virtio devices: pci, or mmio for small guests without PCI, which has room for \
      five. A disk's bus=mmio is for it alone. (default: pci)
      """, valueName: "bus"))
  var virtioBus: VMConfiguration.VirtioBus?

  @Option(
    help: ArgumentHelp(
      """
      Add a network card: none, user (by passt, needs no rights), tap=NAME[,queues=N] or fd=N (a tap \
      that is open), each but none with an optional ,mac=ADDRESS, ,mtu=BYTES and ,id=NAME. May be repeated.
      """, valueName: "where"), transform: DeviceOptions.net)
  var net: [VMConfiguration.Device?] = []

  @Option(
    help: ArgumentHelp(
      """
      Add a vsock device: cid=N,socket=PATH. Programs connect to PATH and say CONNECT PORT; the \
      guest's connections to port P go to PATH_P.
      """, valueName: "cid=N,socket=PATH"), transform: DeviceOptions.vsock)
  var vsock: VMConfiguration.Device?

  @Option(
    help:
      "The processors' features: host for all there are, baseline for x86-64-v2. (default: host)")
  var cpu: CPUModel?

  @Option(
    help: ArgumentHelp(
      """
      The guest's console: stdio, pty (with ,wait behind it the guest starts when somebody has opened \
      that), none or file=PATH. Input goes to the serial port, or with \
      ,input=virtio behind it to a virtio console (Linux's hvc0), which that adds; both print here. \
      (default: stdio)
      """, valueName: "where"), transform: DeviceOptions.console)
  var console: VMConfiguration.Console?

  @Option(
    help: ArgumentHelp(
      """
      Let the host give it no more than this: memory=SIZE, cpus=NUMBER of processors' time, \
      threads=NUMBER, and read=SIZE, write=SIZE a second from and to each disk of the host's, with \
      commas between them.
      """, valueName: "name=value,..."), transform: DeviceOptions.limits)
  var limit: [VMConfiguration.Limits] = []

  /// The machine that they describe; what is wrong with it ends the command.
  func read() throws -> VMConfiguration {
    do throws(Failure) { return try configuration() } catch {
      Message.error(error.message)
      throw ExitCode(error.status)
    }
  }

  private func configuration() throws(Failure) -> VMConfiguration {
    var spec = try config.map(SpecFile.read) ?? VMConfiguration()
    if image != nil || firmware != nil { (spec.image, spec.firmware) = (image, firmware) }
    spec.mode = mode ?? spec.mode
    spec.loadAddress = loadAddress ?? spec.loadAddress
    if !initrd.isEmpty { spec.initrds = initrd }
    spec.append = append ?? spec.append
    spec.memorySize = memory?.spec.memorySize ?? spec.memorySize
    spec.vcpuCount = cpus ?? spec.vcpuCount
    spec.cpu = cpu ?? spec.cpu
    if let virtioBus { spec.move(to: virtioBus) }
    if let console { spec.consoles = [console] }
    for one in limit { spec.limits.take(one) }
    for device in disk + net.compactMap(\.self) + [vsock].compactMap(\.self) { spec.put(device) }
    // Without one of them the table of types isn't made: that takes a twentieth of a short run.
    for name in device.isEmpty && balloon == nil ? [] : VMConfiguration.Device.types {
      for one in device where one.kind.name == name { spec.put(one, keeps: true) }
      if name == "balloon", let balloon { spec.putBalloon(target: balloon.bytes) }
    }
    spec = spec.completed()
    do throws(SpecError) {
      try spec.check()
      return try spec.placed()
    } catch { throw Failure(status: 64, message: error.message) }
  }
}

/// What an option says of the machine itself, by the spec's own words.
struct MachineSetting: Sendable {
  private(set) var spec = VMConfiguration()

  init(_ key: String, _ text: String) throws { try DeviceOptions.set(key, text, in: &spec) }
}

extension VMConfiguration {
  /// Puts `device` in the place of the one with its id, or of the one that there may be of its kind;
  /// `keeps` leaves the latter. Another is added.
  fileprivate mutating func put(_ device: Device, keeps: Bool = false) {
    let index = devices.firstIndex { old in
      old.kind.name == device.kind.name
        && (device.id.isEmpty ? device.kind.isSingle : old.id == device.id)
    }
    guard let index else { return devices.append(device) }
    if keeps && device.id.isEmpty { return }
    let old = devices[index]
    devices[index] = device
    devices[index].id = old.id
    devices[index].place = device.place
    // A place stays what it was, as long as the device is on that bus.
    if device.place == nil { devices[index].place = old.place.flatMap { fits($0, device) } }
  }

  /// Puts the virtio devices on `bus`, where they get other places.
  fileprivate mutating func move(to bus: VirtioBus) {
    virtioBus = bus
    for index in devices.indices {
      devices[index].place = devices[index].place.flatMap { fits($0, devices[index]) }
    }
  }

  private func fits(_ place: Place, _ device: Device) -> Place? {
    places(for: device).contains(place) ? place : nil
  }

  fileprivate mutating func putBalloon(target: UInt64) {
    put(Device(.balloon(Balloon())), keeps: true)
    for index in devices.indices where devices[index].kind.name == "balloon" {
      devices[index].balloon.target = target
    }
  }
}

/// Specs in files.
enum SpecFile {
  /// The machine that the file at `path` describes, or standard input for `-`. Its paths are relative
  /// to the file, those of standard input to the working directory.
  static func read(_ path: String) throws(Failure) -> VMConfiguration {
    let isInput = path == "-"
    let name = isInput ? "standard input" : path
    let limit = UInt64(JSON.Limits().bytes)
    let text: [UInt8]
    do throws(Errno) {
      text =
        isInput
        ? try WholeFile.contents(of: FileDescriptor(borrowing: 0), limit: limit)
        : try WholeFile.contents(of: path, limit: limit)
    } catch {
      throw Failure(reading: name, error, limit: limit, hint: "what a machine's description has")
    }
    do throws(SpecError) {
      var spec = try VMConfiguration(json: text)
      let directory = isInput ? "" : path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
      spec.changePaths { $0.hasPrefix("/") ? $0 : directory + $0 }
      return spec
    } catch {
      throw Failure(
        status: 64, message: "\(name):\(error.position.map { "\($0):" } ?? "") \(error.message)")
    }
  }
}
