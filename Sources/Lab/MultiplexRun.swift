import Devices
import Host
import KVM
import Memory
import VhostUser

/// The run of the experiment `multiplex`: some machines in this process, `kvmlite backend block` in
/// another, which stands still while they put requests into their rings.
struct MultiplexRun {
  /// What became of a machine.
  enum Fate: String {
    case wentOn = "went on"
    case lied
    case died
  }

  /// A machine, as it was at the end.
  struct Result {
    let number: Int
    let fate: Fate
    /// How many requests it offered at once.
    let depth: Int
    /// Its requests of the second batch that were answered.
    let answered: Int
    /// Sectors that it read and that were not what it had written.
    let wrong: Int
  }

  /// How many requests a machine other than the first offers at once.
  static let usualDepth = 4
  /// The request of the lying machine's second batch that lies.
  static let lie = 1

  private(set) var results: [Result] = []
  /// The machines in the order in which the back end served the requests of the first batch.
  private(set) var order: [Int] = []
  /// What the back end said of the machine that lied.
  private(set) var wordsOfLie = ""
  /// Whether the image is what it was.
  private(set) var isBaseSame = false
  let liar: Int
  /// Nobody dies of two.
  let dying: Int?

  private enum Place {
    static let descriptors: UInt64 = 0x30_0000
    static let available: UInt64 = 0x30_1000
    static let used: UInt64 = 0x30_2000
    static let headers: UInt64 = 0x30_3000
    static let data: UInt64 = 0x31_0000
    static let taskState: UInt64 = 0x40_0000
    static let doorbell: UInt64 = 0x3000_0000
    static let endPort: UInt16 = 0xF0
  }
  private static let ringSize = 64
  private static let sectors = 64

  init(_ program: String, machines count: Int, greed: Int) throws(LabError) {
    liar = count
    dying = count > 2 ? count - 1 : nil
    let directory = try makeDirectory()
    let image = directory.path + "/disk.raw"
    try Self.makeImage(image)
    let before = try Self.bytes(image)
    let backEnd = try BackEndProcess(
      program, image: image, ",format=raw,snapshot", in: directory.path,
      more: ["--machines", "\(count)"])
    defer { backEnd.child.goOn() }
    var machines: [Machine] = []
    for number in 1...count {
      let machine = try Machine(
        number, backEnd.socket, depth: number == 1 ? greed : Self.usualDepth)
      machines.append(machine)
      // Whoever has come is there when this is answered.
      try machine.offer(1, .read)
      try machine.wait(for: 1, "its first request")
    }
    try compete(machines, backEnd)
    try misbehave(machines, backEnd)
    try finish(machines, backEnd, image, before)
  }

  private static func makeImage(_ path: String) throws(LabError) {
    try host { () throws(Errno) in
      let file = try OutputFile(path)
      for sector in 0..<sectors {
        try file.write([UInt8](repeating: UInt8(0x80 + sector), count: 512))
      }
      try file.commit()
    }
  }

  private static func bytes(_ path: String) throws(LabError) -> [UInt8] {
    try host { () throws(Errno) in
      try FileDescriptor(opening: path, [.readOnly]).read(atMost: sectors * 512)
    }
  }

  // MARK: The three batches

  /// All write to the same sectors of their disks, and offer everything before anything is served.
  private func compete(_ machines: [Machine], _ backEnd: BackEndProcess) throws(LabError) {
    try pause(backEnd)
    for machine in machines { try machine.offer(machine.depth, .write) }
    backEnd.child.goOn()
    for machine in machines { try machine.wait(for: machine.depth, "its writes") }
  }

  /// All read what they wrote; one lies, another dies with its requests in the ring.
  private mutating func misbehave(
    _ machines: [Machine], _ backEnd: BackEndProcess
  ) throws(LabError) {
    try pause(backEnd)
    for machine in machines {
      let lies = machine.number == liar
      try machine.offer(Self.usualDepth, .read, lie: lies ? Self.lie : nil)
      if machine.number == dying { machine.device.end() }
    }
    backEnd.child.goOn()
    for machine in machines where machine.number != dying {
      let isLiar = machine.number == liar
      try machine.wait(for: isLiar ? Self.lie : Self.usualDepth, "its reads")
    }
    let words = try backEnd.wait(for: "broke the disk")
    // Without whose socket it is.
    let line = words.last { $0.contains("broke the disk") } ?? ""
    wordsOfLie = line.ranges(of: "machine ").last.map { String(line[$0.lowerBound...]) } ?? line
    for machine in machines {
      results.append(
        Result(
          number: machine.number,
          fate: machine.number == liar ? .lied : machine.number == dying ? .died : .wentOn,
          depth: machine.depth, answered: try machine.answered(), wrong: 0))
    }
  }

  /// Those that are left read once more, and then all go.
  private mutating func finish(
    _ machines: [Machine], _ backEnd: BackEndProcess, _ image: String, _ before: [UInt8]
  ) throws(LabError) {
    for (index, machine) in machines.enumerated() where results[index].fate == .wentOn {
      let first = try machine.wrongSectors(Self.usualDepth)
      try machine.offer(Self.usualDepth, .read)
      try machine.wait(for: Self.usualDepth, "its last reads")
      let result = results[index]
      results[index] = Result(
        number: result.number, fate: result.fate, depth: result.depth, answered: result.answered,
        wrong: first + (try machine.wrongSectors(Self.usualDepth)))
    }
    for machine in machines { machine.device.end() }
    let line = try backEnd.wait(for: "order: ").last { $0.contains("order: ") } ?? ""
    let numbers = line.ranges(of: "order: ").last.map { line[$0.upperBound...] } ?? ""
    // The first request of each machine came before.
    let all = numbers.split(separator: " ").compactMap { Int($0) }.dropFirst(machines.count)
    order = Array(all.prefix(machines.reduce(0) { $0 + $1.depth }))
    isBaseSame = try Self.bytes(image) == before
  }

  /// Stops the back end where all its threads wait: one that was stopped on its way round the machines
  /// would go on from there, and not begin with the first.
  private func pause(_ backEnd: BackEndProcess) throws(LabError) {
    let end = Clock.monotonicNanoseconds &+ 2_000_000_000
    while !isAsleep(backEnd.child.identifier), Clock.monotonicNanoseconds < end {
      HostThread.yield()
    }
    guard backEnd.child.pause() else { throw .unexpected("the back end has ended") }
  }

  /// Whether no thread of `process` runs or wants to (proc(5), /proc/PID/task/TID/stat, the third word).
  private func isAsleep(_ process: Int32) -> Bool {
    Directory.names(in: "/proc/\(process)/task").allSatisfy { thread in
      let words = SplitRun.text("/proc/\(process)/task/\(thread)/stat")?.split(separator: ")").last
      return words?.split(separator: " ").first == "S"
    }
  }

  // MARK: A machine

  private enum Kind: UInt64 { case read, write }

  /// A machine with a ring, and its end of what it shares with the back end.
  private final class Machine {
    let number: Int
    let depth: Int
    let device: VhostUserBlock
    private let bench: Bench
    private let kick: Doorbell
    private let call: SharedEvent
    private let start: UInt64
    private let owner = Owner()
    private var offered = 0
    private var usedBefore = 0

    init(_ number: Int, _ socket: String, depth: Int) throws(LabError) {
      (self.number, self.depth) = (number, depth)
      let kit = try Probe.Kit("multiplex")
      bench = try Bench(kit.image, what: "the guest of multiplex", isShareable: true)
      try bench.enterUserWithPorts(taskStateAt: Place.taskState)
      start = try kit.address(of: "batch")
      do {
        device = try VhostUserBlock(
          VhostUserSocket(path: socket), memory: bench.memory, mostQueues: 1)
      } catch { throw .unexpected("the back end can't be reached: \(error)") }
      let (vm, kick) = (bench.vm, try host { () throws(Errno) in try Doorbell(width: 4, value: 0) })
      self.kick = kick
      call = try host { () throws(Errno) in try SharedEvent() }
      try kvm { () throws(KVMError) in
        try vm.connect(
          .memory(GuestAddress(Place.doorbell)), width: 4, value: 0, to: kick.event)
      }
      device.connect(to: owner)
      device.start(
        queue: 0,
        RemoteQueueSetup(
          size: UInt16(MultiplexRun.ringSize),
          addresses: .init(
            descriptors: Place.descriptors, available: Place.available, used: Place.used),
          features: .version1, doorbell: kick, interrupt: call))
    }

    /// What all its words on the disk are.
    private var word: UInt64 { UInt64(0x40 + number) &* 0x0101_0101_0101_0101 }

    /// Has the guest offer so many requests for the disk's first sectors.
    func offer(_ count: Int, _ kind: Kind, lie: Int? = nil) throws(LabError) {
      usedBefore = try usedIndex()
      offered = count
      try bench.startUser(at: start) { registers in
        (registers.r12, registers.r13, registers.r14) = (UInt64(count), kind.rawValue, 0)
        registers.r15 = lie.map { UInt64($0) } ?? .max
        registers.rsi = kind == .write ? word : 0
      }
      let exit = try bench.run()
      guard case .portIO(let io) = exit, io.port == Place.endPort else {
        throw .unexpected("the guest of multiplex ended by \(exit.reason.name)")
      }
    }

    private func usedIndex() throws(LabError) -> Int {
      Int(try bench.words(at: Place.used, 1)[0] >> 16 & 0xFFFF)
    }

    /// How many of the last requests were answered.
    func answered() throws(LabError) -> Int { (try usedIndex() - usedBefore) & 0xFFFF }

    /// Waits until so many of the last requests were answered.
    func wait(for count: Int, _ what: String) throws(LabError) {
      let deadline = Clock.monotonicNanoseconds &+ 30_000_000_000
      while try answered() < count {
        guard Clock.monotonicNanoseconds < deadline else {
          throw .overdue("machine \(number)'s back end (\(what))")
        }
        HostThread.yield()
      }
    }

    /// Of the first `count` sectors that it has read, how many are not what it wrote, or came with an
    /// error.
    func wrongSectors(_ count: Int) throws(LabError) -> Int {
      let data = try bench.words(at: Place.data, count * 64)
      let headers = try bench.words(at: Place.headers, count * 4)
      return (0..<count).count { index in
        headers[index * 4 + 2] & 0xFF != 0
          || (0..<64).contains { data[index * 64 + $0] != word }
      }
    }
  }

  /// Has nothing to do: answers show in the ring.
  private final class Owner: VirtioRemoteOwner {
    func remoteDidStop(queue index: Int) {}
    func remoteDidComplete(queue index: Int) {}
    func remoteDidFail(_ reason: String) {}
  }
}
