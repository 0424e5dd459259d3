import Boot
import Devices
import Guests
import Host
import KVM
import Network
import Storage
import Synchronization
import VhostUser

/// What the host has for a machine: image, disks, networks, consoles, by the ids of its spec.
///
/// Opening a spec is the only step that touches the host's names. A caller may put what it has in place
/// of anything, before or after that.
package struct Resources: Sendable {
  /// The image or the firmware.
  package var image: Image?
  /// The initial RAM disks or modules.
  package var initrds: [BootFile]?
  /// The disks' contents, but for those that another process serves.
  package var disks: [String: any BlockStore] = [:]
  /// Those that another process serves.
  package var vhostUsers: [String: VhostUserSocket] = [:]
  /// Where the network cards' frames go.
  package var networks: [String: any NetworkBackEnd] = [:]
  /// The host's sides of vsock devices.
  package var vsocks: [String: any VsockHost] = [:]
  /// The ends of the console, of which there is no more than one.
  package var console: Console?
  /// Further functions on the PCI bus, in order: each is made from what the bus gives it.
  package var pciDevices: [@Sendable (PCIPlatform) throws(Errno) -> PCIFunction] = []
  /// The host's KVM, or why it can't be had; nil to open it when the machine is made.
  package var kvm: KVMOpening?
  /// Which files are in use, and what for.
  package private(set) var roles: [FileIdentity: Role] = [:]
  private var keptOpen: [any Sendable] = []
  /// What was read once, as it was then.
  private var inputs: [Input] = []

  /// What came of opening the host's KVM. (A Result's type costs each start a look through all
  /// conformances of the program.)
  package enum KVMOpening: Sendable {
    case opened(KVMHost)
    case refused(KVMError)
  }

  private struct Input: Sendable {
    let path: String
    let file: SharedDescriptor
    let facts: FileFacts
  }

  /// The path of the image, firmware or initial RAM disk whose file was written to since it was read, if
  /// there is one; a file that has taken its name is another.
  package var changedInput: String? {
    inputs.first { input in
      guard let now = try? input.file.file.facts() else { return true }
      return !now.hasSameContents(as: input.facts)
    }?.path
  }

  /// Nothing, or an image and something that takes what the guest prints.
  package init(image: Image? = nil, console: (any ByteSink)? = nil) {
    self.image = image
    self.console = console.map { Console(output: .sink($0)) }
  }

  /// An image's bytes.
  package struct Image: Sendable {
    /// Its contents.
    package var bytes: [UInt8]
    /// Its path or name, for messages.
    package var name: String
    /// The mode that it is made for, if it is flat and a mode is known.
    package var mode: CPUMode?

    /// An image called `name`.
    package init(_ bytes: [UInt8], name: String = "image", mode: CPUMode? = nil) {
      self.bytes = bytes
      self.name = name
      self.mode = mode
    }
  }

  /// The ends of a console.
  package struct Console: Sendable {
    /// Where the guest's output goes.
    package var output: ConsoleOutput
    /// Where its input comes from.
    package var input: ConsoleInput
    /// The path of the pseudo terminal that this is, for a user to open.
    package internal(set) var terminal: String?
    /// Readable once somebody has opened that, where the guest is to wait for it.
    package internal(set) var opening: SharedDescriptor?

    /// A console with these ends.
    package init(output: ConsoleOutput = .none, input: ConsoleInput = .none) {
      self.output = output
      self.input = input
    }
  }

  /// What a file is in use for.
  package struct Role: Equatable, Sendable {
    /// By which device; `image`, `firmware` or `initrd`.
    package let id: String
    let use: Use

    enum Use {
      /// Read once.
      case image
      /// A disk that is only read.
      case reads
      /// A disk that is written.
      case writes
      /// Emptied, and written.
      case empties
    }

    /// Whether one would spoil the other.
    func conflicts(with other: Role) -> Bool {
      if use == .empties || other.use == .empties { return true }
      if use == .image || other.use == .image { return false }
      return use == .writes || other.use == .writes
    }
  }

  /// Which device the file at `path` is in use for: its id, or `image`, `firmware` or `initrd`.
  package func user(of path: String) -> String? {
    (try? FileFacts(of: path)).flatMap { roles[$0.identity]?.id }
  }

  /// Lets go of what others wait for, after a run.
  package func close() {
    for network in networks.values { network.close() }
    for vsock in vsocks.values { vsock.close() }
  }
}

/// Where the bytes of the guest's consoles go.
package enum ConsoleOutput: Sendable {
  /// Nowhere.
  case none
  /// To an open file of the process, by number, such as 1 for standard output.
  case descriptor(Int32)
  /// To the master's side of a terminal, by number; what nobody reads there is lost.
  case terminal(Int32)
  /// To whatever takes bytes, such as a `ConsoleBuffer`.
  case sink(any ByteSink)
  /// To one, and then to the other.
  indirect case both(ConsoleOutput, ConsoleOutput)
}

/// Where the bytes come from that the guest reads from its console.
package enum ConsoleInput: Sendable {
  /// Nowhere.
  case none
  /// From here.
  case bytes([UInt8])
  /// From an open file of the process, by number, such as 0 for standard input. `filter` sees what
  /// was read and returns what the guest shall get; it may call `RunControl.stop(_:)`.
  case descriptor(
    Int32, filter: (@Sendable ([UInt8], RunControl) -> [UInt8])? = nil, gate: InputGate? = nil)
  /// From whoever writes to this while the machine runs.
  case queue(ConsoleInputQueue)
  /// From either, as it comes.
  indirect case both(ConsoleInput, ConsoleInput)
}

/// Keeps a console's file open.
private final class OpenFile: Sendable {
  let file: FileDescriptor
  init(_ file: consuming FileDescriptor) { self.file = file }
}

/// Keeps a pseudo terminal open.
private final class OpenTerminal: Sendable {
  let terminal: PseudoTerminal
  init() throws(Errno) { terminal = try PseudoTerminal() }
}

// MARK: Opening

extension Resources {
  /// The largest firmware there is, in bytes.
  package static let mostFirmware: UInt64 = 16 << 20

  /// What `spec` names, opened, but for what `given` has already. `report` gets, from any thread, what
  /// the user should know of a disk: now, and later when the host fails it.
  package init(
    opening spec: VMConfiguration, besides given: Resources = Resources(),
    report: @escaping @Sendable (Advice) -> Void = { _ in }
  ) throws(ResourceError) {
    self = given
    let spec = spec.completed()
    if image == nil { image = try openImage(spec) }
    if initrds == nil {
      initrds = try spec.initrds.map { (text) throws(ResourceError) in
        let (path, arguments) = Self.initrd(text)
        let bytes = try read(path, for: "initrd", limit: spec.memorySize)
        return BootFile(bytes, name: path, arguments: arguments)
      }
    }
    for device in spec.devices {
      let id = device.id
      switch device.kind {
      case .disk(let disk):
        if let socket = disk.socket {
          if vhostUsers[id] == nil { vhostUsers[id] = try connect(to: socket, id) }
        } else if disks[id] == nil {
          disks[id] = try open(disk, id, report)
        }
      case .net(let net): if networks[id] == nil { networks[id] = try open(net, id) }
      case .vsock(let vsock): if vsocks[id] == nil { vsocks[id] = try open(vsock, id) }
      default: break
      }
    }
    // Last, as that empties files.
    if console == nil, let first = spec.consoles.first { console = try open(first) }
  }

  /// Notes that the file at `path` has a role, which must not be in another one's way.
  private mutating func note(_ path: String, _ role: Role) throws(ResourceError) {
    // What is neither has no contents of its own, such as a pipe.
    guard let facts = try? FileFacts(of: path),
      facts.kind == .regular || facts.kind == .blockDevice
    else { return }
    if let other = roles[facts.identity], role.conflicts(with: other) {
      throw ResourceError(role.id, .sameFile(path, other: other.id))
    }
    roles[facts.identity] = role
  }

  // MARK: Image

  /// The file that one of a spec's `initrds` names, and what its kernel is told of it behind a space, as
  /// for QEMU. A file that has all of `text` for its name comes first.
  package static func initrd(_ text: String) -> (path: String, arguments: String) {
    let path = text.prefix { $0 != " " }
    guard path.count < text.count, !FileDescriptor.exists(text), FileDescriptor.exists("\(path)")
    else { return (text, "") }
    return (String(path), String(text.dropFirst(path.count + 1)))
  }

  private mutating func openImage(_ spec: VMConfiguration) throws(ResourceError) -> Image {
    if let firmware = spec.firmware {
      return Image(
        try read(firmware, for: "firmware", limit: Self.mostFirmware), name: firmware)
    }
    let name = spec.image ?? ""
    guard name.hasPrefix(VMConfiguration.guestPrefix) else {
      return Image(try read(name, for: "image", limit: spec.memorySize), name: name)
    }
    let guestName = String(name.dropFirst(VMConfiguration.guestPrefix.utf8.count))
    guard let guest = Guest.named(guestName) else {
      let near = Spelling.nearest(to: guestName, among: Guest.all.map(\.name))
      throw ResourceError("image", .noGuest(guestName, near: near))
    }
    return Image(guest.image, name: name, mode: guest.format == .flat ? guest.mode : nil)
  }

  private mutating func read(
    _ path: String, for id: String, limit: UInt64
  ) throws(ResourceError) -> [UInt8] {
    try note(path, Role(id: id, use: .image))
    do throws(Errno) {
      let file = SharedDescriptor(try FileDescriptor(opening: path, [.readOnly]))
      inputs.append(Input(path: path, file: file, facts: try file.file.facts()))
      return try WholeFile.contents(of: file.file, limit: limit)
    } catch {
      throw ResourceError(
        id, error == .fileTooLarge ? .tooLarge(path, limit: limit) : .file(path, error))
    }
  }

  // MARK: Devices

  private mutating func open(
    _ disk: VMConfiguration.Disk, _ id: String, _ report: @escaping @Sendable (Advice) -> Void
  ) throws(ResourceError) -> any BlockStore {
    guard let path = disk.path ?? disk.descriptor.map(InheritedFiles.name(of:)) else {
      throw ResourceError(id, .noBackEnd)
    }
    let isReadOnly = disk.isReadOnly || disk.isSnapshot
    try note(path, Role(id: id, use: isReadOnly ? .reads : .writes))
    var options = DiskImage.Options()
    options.format = disk.format
    options.descriptor = disk.descriptor
    options.isReadOnly = disk.isReadOnly
    options.isSnapshot = disk.isSnapshot
    do throws(DiskError) {
      let opened = try DiskImage.open(path, options)
      for warning in opened.warnings { report(warning) }
      return ReportingDisk(opened, name: path, report: report)
    } catch { throw ResourceError(id, .disk(error)) }
  }

  private func connect(to path: String, _ id: String) throws(ResourceError) -> VhostUserSocket {
    do throws(VhostUserError) { return try VhostUserSocket(path: path) } catch {
      throw ResourceError(id, .vhostUser(path, error))
    }
  }

  private func open(
    _ net: VMConfiguration.Net, _ id: String
  ) throws(ResourceError) -> any NetworkBackEnd {
    do throws(NetworkError) {
      if net.isUser { return try UserNetwork() }
      if let tap = net.tap { return try TapBackEnd(tap, queueCount: net.queueCount) }
      if let queue = net.descriptor { return try TapBackEnd(descriptor: queue) }
    } catch { throw ResourceError(id, .network(error)) }
    throw ResourceError(id, .noBackEnd)
  }

  private func open(
    _ vsock: VMConfiguration.Vsock, _ id: String
  ) throws(ResourceError) -> any VsockHost {
    do throws(NetworkError) {
      if let socket = vsock.socket { return try VsockSockets(path: socket) }
      if let listener = vsock.descriptor { return try VsockSockets(listener: listener) }
    } catch { throw ResourceError(id, .network(error)) }
    throw ResourceError(id, .noBackEnd)
  }

  private mutating func open(_ console: VMConfiguration.Console) throws(ResourceError) -> Console {
    if console.isStandard { return Console(output: .descriptor(1), input: .descriptor(0)) }
    if let path = console.path {
      try note(path, Role(id: console.id, use: .empties))
      do throws(Errno) {
        let file = OpenFile(
          try FileDescriptor(opening: path, [.writeOnly, .create, .truncate]))
        keptOpen.append(file)
        return Console(output: .descriptor(file.file.number))
      } catch { throw ResourceError(console.id, .output(path, error)) }
    }
    if let number = console.descriptor {
      do throws(Errno) {
        let file = OpenFile(try InheritedFiles.copy(of: number))
        keptOpen.append(file)
        let takesInput = file.file.openedFor().reads && (try? file.file.facts().kind) == .other
        return Console(
          output: .descriptor(file.file.number),
          input: takesInput ? .descriptor(file.file.number) : .none)
      } catch { throw ResourceError(console.id, .output("file descriptor \(number)", error)) }
    }
    guard console.isTerminal else { return Console() }
    do throws(Errno) {
      let open = try OpenTerminal()
      keptOpen.append(open)
      let number = open.terminal.master.number
      var ends = Console(output: .terminal(number), input: .descriptor(number))
      ends.terminal = open.terminal.path
      if console.waits { ends.opening = SharedDescriptor(try open.terminal.watchOpening()) }
      return ends
    } catch { throw ResourceError(console.id, .terminal(error)) }
  }
}

/// Whether an input may be read now, such as that of a terminal, which is others' at times.
package final class InputGate: Sendable {
  private let value: Atomic<Bool>

  /// An open gate, or a closed one.
  package init(isOpen: Bool) { value = Atomic(isOpen) }

  /// Whether it is open.
  package var isOpen: Bool { value.load(ordering: .relaxed) }
  /// Lets input through.
  package func open() { value.store(true, ordering: .relaxed) }
  /// Lets no input through.
  package func close() { value.store(false, ordering: .relaxed) }
}
