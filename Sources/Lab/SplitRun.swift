import Devices
import Host
import KVM
import Memory
import VhostUser

/// The run of the experiment `split`: a guest with a ring in this process, `kvmlite backend block` in
/// another, which stands still while the guest does its steps.
struct SplitRun {
  /// What is to be seen when the guest stops.
  struct Step {
    /// A descriptor as the guest wrote it.
    struct Descriptor: Equatable {
      let address: UInt64
      let length: UInt32
      let flags: UInt16
      let next: UInt16
    }
    let descriptors: [Descriptor]
    let availableIndex: Int
    let availableRing: [Int]
    let usedIndex: Int
    let usedRing: [(id: Int, length: Int)]
    /// The status byte of the request.
    let status: Int
    /// The first eight bytes of the data.
    let data: UInt64
    /// The counters of the two events.
    let kick: Int
    let call: Int
    /// What the back end's process has read and written by system calls; nil where /proc doesn't say.
    let read: Int?
    let written: Int?
  }

  /// What a process has, as /proc shows it.
  struct Domain {
    let process: Int32
    let hasVM: Bool
    let hasImage: Bool
    /// The inodes of shared memory that it maps.
    let sharedMemory: Set<String>
  }

  private enum Place {
    static let descriptors: UInt64 = 0x30_0000
    static let available: UInt64 = 0x30_1000
    static let used: UInt64 = 0x30_2000
    static let status: UInt64 = 0x30_3010
    static let data: UInt64 = 0x30_4000
    static let taskState: UInt64 = 0x40_0000
    static let doorbell: UInt64 = 0x3000_0000
  }
  private enum Port {
    static let end: UInt16 = 0xF0
    static let wait: UInt16 = 0xF1
    static let step: UInt16 = 0xF2
  }
  /// The ring's size.
  static let size = 4
  static let sectors = 16

  private(set) var steps: [Step] = []
  private(set) var doorbellExits = 0
  private(set) var front: Domain
  private(set) var back: Domain
  /// The back end's own account.
  private(set) var words: [String] = []
  /// The first word of sectors 5 and 6 of the image before and after.
  let before: [UInt64]
  private(set) var after: [UInt64] = []

  /// How many sectors a request is about.
  let requestSectors: Int

  init(_ program: String, requestSectors: Int) throws(LabError) {
    self.requestSectors = requestSectors
    let directory = try makeDirectory()
    let image = directory.path + "/disk.raw"
    try Self.makeImage(image)
    before = try Self.look(image)
    let backEnd = try BackEndProcess(program, image: image, ",format=raw", in: directory.path)
    let other = try OtherSide(backEnd)
    front = try Self.domain(nil, image)
    back = try Self.domain(backEnd.child.identifier, image)
    try run(other, image)
    other.device.end()
    words = try backEnd.wait(for: " calls").filter { $0.contains("ring") }
    after = try Self.look(image)
  }

  private static func makeImage(_ path: String) throws(LabError) {
    try host { () throws(Errno) in
      let file = try OutputFile(path)
      for sector in 0..<sectors {
        try file.write([UInt8](repeating: UInt8(0x40 + sector), count: 512))
      }
      try file.commit()
    }
  }

  private static func look(_ path: String) throws(LabError) -> [UInt64] {
    let bytes = try host { () throws(Errno) in
      try FileDescriptor(opening: path, [.readOnly]).read(atMost: sectors * 512)
    }
    return [5, 6].map { sector in
      (0..<8).reduce(0) { $0 | UInt64(bytes[sector * 512 + $1]) << UInt64($1 * 8) }
    }
  }

  // MARK: The run

  /// The back end with the front end's end of everything that they share.
  private final class OtherSide {
    let process: BackEndProcess
    let bench: Bench
    let device: VhostUserBlock
    let kick: Doorbell
    let call: SharedEvent
    let start: UInt64
    private let owner = Owner()

    init(_ process: BackEndProcess) throws(LabError) {
      self.process = process
      let kit = try Probe.Kit("split")
      bench = try Bench(kit.image, what: "the guest of split", isShareable: true)
      try bench.enterUserWithPorts(taskStateAt: Place.taskState)
      start = try kit.address(of: "split")
      do {
        device = try VhostUserBlock(
          VhostUserSocket(path: process.socket), memory: bench.memory, mostQueues: 1)
      } catch { throw .unexpected("the back end can't be reached: \(error)") }
      let (vm, kick) = (bench.vm, try host { () throws(Errno) in try Doorbell(width: 4, value: 0) })
      self.kick = kick
      call = try host { () throws(Errno) in try SharedEvent() }
      try kvm { () throws(KVMError) in
        try vm.connect(
          .memory(GuestAddress(Place.doorbell)), width: 4, value: 0, to: kick.event)
      }
    }

    /// Gives the ring to the back end.
    func begin() {
      device.connect(to: owner)
      device.start(
        queue: 0,
        RemoteQueueSetup(
          size: UInt16(SplitRun.size),
          addresses: .init(
            descriptors: Place.descriptors, available: Place.available, used: Place.used),
          features: .version1, doorbell: kick, interrupt: call))
    }

    /// Lets the back end work until it has called and allows kicks again; then it stands still.
    func takeTurn() throws(LabError) {
      process.child.goOn()
      let poller = try host { () throws(Errno) in
        let poller = try Poller()
        _ = try poller.add(call.event.descriptor, tag: 0)
        return poller
      }
      guard poller.next(milliseconds: 30_000) != nil else { throw .overdue("the back end") }
      // Bit 0 of the used ring's flags forbids kicks.
      try waitUntil { () throws(LabError) in try bench.words(at: Place.used, 1)[0] & 1 == 0 }
      guard process.child.pause() else { throw .unexpected("the back end has ended") }
    }

    /// Waits until both sides are at rest after the first request, and forgets its events.
    func settle() throws(LabError) {
      // Each side raises the kick when a ring begins, for requests that may be there, and the guest
      // did so once.
      let kicks = 3
      try waitUntil { SplitRun.value(kick.event.descriptor.number) >= kicks }
      kick.event.consume()
      call.event.consume()
    }

    private func waitUntil(_ condition: () throws(LabError) -> Bool) throws(LabError) {
      let deadline = Clock.monotonicNanoseconds &+ 30_000_000_000
      while try !condition() {
        guard Clock.monotonicNanoseconds < deadline else { throw .overdue("the back end") }
        HostThread.yield()
      }
    }
  }

  /// Has nothing to do: the back end's calls go to an event, and its failures show as silence.
  private final class Owner: VirtioRemoteOwner {
    func remoteDidStop(queue index: Int) {}
    func remoteDidComplete(queue index: Int) {}
    func remoteDidFail(_ reason: String) {}
  }

  private mutating func run(_ other: OtherSide, _ image: String) throws(LabError) {
    let bench = other.bench
    defer { other.process.child.goOn() }
    other.begin()
    let byteCount = UInt64(requestSectors * 512)
    try bench.startUser(at: other.start) { $0.r12 = byteCount }
    while true {
      switch try bench.run() {
      case .portIO(let io) where io.port == Port.wait: try other.takeTurn()
      case .portIO(let io) where io.port == Port.step:
        if steps.isEmpty {
          // Now both have all that they will have.
          front = try Self.domain(nil, image)
          back = try Self.domain(other.process.child.identifier, image)
          try other.settle()
        }
        try steps.append(see(other))
        // The guest has seen it.
        other.call.event.consume()
      case .portIO(let io) where io.port == Port.end: return
      case .mmio: doorbellExits += 1
      case .halt:
        let exception = try bench.exception()
        throw .unexpected(
          "the guest of split raised \(exception?.name ?? "HLT") at "
            + hex(exception?.instructionPointer ?? 0))
      case let exit: throw .unexpected("the guest of split ended by \(exit.reason.name)")
      }
    }
  }

  private func see(_ other: OtherSide) throws(LabError) -> Step {
    let bench = other.bench
    let table = try bench.words(at: Place.descriptors, 2 * Self.size)
    let available = try bench.words(at: Place.available, 2)
    let used = try bench.words(at: Place.used, Self.size + 1)
    // Elements of the used ring begin 4 bytes into it, and have 8.
    let elements = (0..<Self.size).map { index in
      let (low, high) = (used[index] >> 32, used[index + 1] & 0xFFFF_FFFF)
      return (id: Int(low), length: Int(high))
    }
    let io = Self.counts(other.process.child.identifier)
    return Step(
      descriptors: (0..<Self.size).map { index in
        let word = table[2 * index + 1]
        return Step.Descriptor(
          address: table[2 * index], length: UInt32(truncatingIfNeeded: word),
          flags: UInt16(truncatingIfNeeded: word >> 32),
          next: UInt16(truncatingIfNeeded: word >> 48))
      },
      availableIndex: Int(available[0] >> 16 & 0xFFFF),
      availableRing: (0..<Self.size).map { index in
        let offset = 4 + 2 * index
        return Int(available[offset / 8] >> UInt64(offset % 8 * 8) & 0xFFFF)
      },
      usedIndex: Int(used[0] >> 16 & 0xFFFF), usedRing: elements,
      status: Int(try bench.words(at: Place.status, 1)[0] & 0xFF),
      data: try bench.words(at: Place.data, 1)[0],
      kick: Self.value(other.kick.event.descriptor.number),
      call: Self.value(other.call.event.descriptor.number), read: io?.read, written: io?.written)
  }

  // MARK: What /proc says

  static func text(_ path: String) -> String? {
    guard let file = try? FileDescriptor(opening: path, [.readOnly]) else { return nil }
    var bytes: [UInt8] = []
    while let more = try? file.read(atMost: 1 << 16), !more.isEmpty { bytes += more }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The number after `name:` in a file of lines.
  private static func number(_ name: String, in text: String?, radix: Int = 10) -> Int? {
    for line in text?.split(separator: "\n") ?? [] where line.hasPrefix(name + ":") {
      return Int(line.dropFirst(name.count + 1).filter { !$0.isWhitespace }, radix: radix)
    }
    return nil
  }

  /// The counter of an eventfd of this process's; -1 if the kernel doesn't tell.
  private static func value(_ descriptor: Int32) -> Int {
    number("eventfd-count", in: text("/proc/self/fdinfo/\(descriptor)"), radix: 16) ?? -1
  }

  private static func counts(_ process: Int32) -> (read: Int, written: Int)? {
    let text = text("/proc/\(process)/io")
    guard let read = number("rchar", in: text), let written = number("wchar", in: text) else {
      return nil
    }
    return (read, written)
  }

  private static func domain(_ process: Int32?, _ image: String) throws(LabError) -> Domain {
    let place = "/proc/" + (process.map(String.init) ?? "self")
    let files = Directory.names(in: place + "/fd").compactMap {
      FileName.target(of: "\(place)/fd/\($0)")
    }
    var inodes: Set<String> = []
    for line in text(place + "/maps")?.split(separator: "\n") ?? []
    where line.contains("/memfd:") {
      // address, permissions, offset, device, inode, name
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      if fields.count > 4 { inodes.insert(String(fields[4])) }
    }
    let own = FileName.target(of: "/proc/self").flatMap { Int32($0) } ?? 0
    return Domain(
      process: process ?? own, hasVM: files.contains { $0.hasPrefix("anon_inode:kvm-vm") },
      hasImage: files.contains(image), sharedMemory: inodes)
  }
}
