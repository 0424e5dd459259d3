import Devices
import Host
import KVM
import Memory
import Storage

/// A bench with the devices that the experiment `io-models` compares, at the places that
/// guest-asm/lab/io-models.S knows. It answers all exits on the calling thread.
final class IOBench {
  /// Where things are in the guest.
  enum Place {
    static let data: UInt64 = 0x20_0000
    static let taskState: UInt64 = 0x40_0000
    static let virtio: UInt64 = 0x3000_0000
    static let endPort: UInt16 = 0xF0
    static let waitPort: UInt16 = 0xF1
    static let master: UInt64 = 0xC000
    static let dataPorts: [UInt16] = [0x1F0, 0x3F8]
    /// The doorbell among virtio's registers.
    static let notify: UInt64 = 0x50
  }

  /// One transfer, measured.
  struct Sample {
    /// Returns of KVM_RUN for the device: registers, data and doorbells.
    var deviceExits = 0
    /// Of these, those for a virtio doorbell.
    var doorbells = 0
    /// Of these, those that carried data: the UART's and the disk's data ports.
    var dataExits = 0
    /// Returns of KVM_RUN to sleep until an interrupt.
    var waits = 0
    /// KVM's exits that came no further; nil where KVM has no counters.
    var kernelExits: Int?
    /// Processor time of all threads and of the back end's process, in nanoseconds.
    var processor: UInt64 = 0
    /// Wall-clock time in nanoseconds.
    var elapsed: UInt64 = 0
  }

  let bench: Bench
  /// The interrupt of the device.
  let interrupt: WaitingLine
  private let kit: Probe.Kit
  private var ports = Bus()
  private var mmio = Bus()
  private let exits: ExitCounter?
  private let name: String
  /// The guest's accesses, if they are written down.
  var log: [Access]?

  /// One access of the guest's to a device.
  struct Access {
    /// A port, or an address in memory.
    let place: UInt64
    let isWrite: Bool
    let value: UInt64
  }

  init(_ kit: Probe.Kit, seconds: Int, name: String = "io-models") throws(LabError) {
    self.kit = kit
    self.name = name
    interrupt = try host { () throws(Errno) in try WaitingLine() }
    bench = try Bench(
      kit.image, seconds: seconds, what: "the guest of \(name)", isShareable: true)
    try bench.enterUserWithPorts(taskStateAt: Place.taskState)
    exits = bench.exitCounter()
  }

  // MARK: Devices

  func add(port device: any Device, at start: UInt64, count: UInt64) throws(LabError) {
    do { try ports.add(device, at: start, count: count) } catch { throw .unexpected("\(error)") }
  }

  func add(memory device: any Device, at start: UInt64, count: UInt64) throws(LabError) {
    do { try mmio.add(device, at: start, count: count) } catch { throw .unexpected("\(error)") }
  }

  // MARK: Running

  /// Runs the guest's routine `name` to its end, for `pieces` in batches of `batch`; `worker` is the
  /// process that works for it.
  func run(
    _ name: String, pieces: Int, batch: Int, worker: ChildProgram? = nil
  ) throws(LabError) -> Sample {
    try bench.startUser(at: kit.address(of: name)) { registers in
      (registers.rbx, registers.r12) = (UInt64(batch), UInt64(pieces))
      registers.rcx = UInt64(pieces)
    }
    var sample = Sample()
    let exitsBefore = try exits?.value()
    let workerBefore = worker?.processorNanoseconds ?? 0
    let processorBefore = Clock.processorNanoseconds
    let start = Clock.monotonicNanoseconds
    while try !answer(bench.run(), &sample) {}
    sample.elapsed = Clock.monotonicNanoseconds &- start
    sample.processor = Clock.processorNanoseconds &- processorBefore
    if let worker { sample.processor &+= worker.processorNanoseconds &- workerBefore }
    let exitsAfter = try exits?.value()
    if let exitsBefore, let exitsAfter {
      // The exit that ends the routine came to user space, too.
      let inUser = sample.deviceExits + sample.waits + 1
      sample.kernelExits = max(0, exitsAfter - exitsBefore - inUser)
    }
    return sample
  }

  /// Answers one exit; true for the routine's end.
  private func answer(_ exit: Exit, _ sample: inout Sample) throws(LabError) -> Bool {
    switch exit {
    case .portIO(let io) where io.port == Place.endPort: return true
    case .portIO(let io) where io.port == Place.waitPort:
      sample.waits += 1
      guard interrupt.wait() else { throw .overdue("the device") }
    case .portIO(let io):
      sample.deviceExits += 1
      if Place.dataPorts.contains(io.port) { sample.dataExits += 1 }
      answer(io)
    case .mmio(let access):
      sample.deviceExits += 1
      if access.isWrite {
        if access.address == Place.virtio + Place.notify { sample.doorbells += 1 }
        mmio.write(access.address, width: access.width, value: access.data)
      } else {
        bench.vcpu.setMMIOData(mmio.read(access.address, width: access.width))
      }
    case .halt:
      let exception = try bench.exception()
      throw .unexpected(
        "the guest of \(name) met a device that didn't do what it should: "
          + "\(exception?.name ?? "HLT") at \(hex(exception?.instructionPointer ?? 0))")
    case let other: throw .unexpected("the guest of \(name) ended by \(other.reason.name)")
    }
    return false
  }

  private func answer(_ io: Exit.PortIO) {
    let (vcpu, port) = (bench.vcpu, UInt64(io.port))
    if io.isWrite {
      vcpu.withBytes(of: io) { ports.write(port, width: io.width, bytes: $0) }
    } else {
      vcpu.withMutableBytes(of: io) { ports.read(port, width: io.width, into: &$0) }
    }
    log?.append(Access(place: port, isWrite: io.isWrite, value: vcpu.value(of: io, 0)))
  }

  // MARK: Data

  /// The guest's bytes, at the place that all drivers use.
  func data(_ count: Int) throws(LabError) -> MemoryView {
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.view(at: GuestAddress(Place.data), count: UInt64(count))
    }
  }

  /// What the guest says its `count` bytes sum up to.
  func guestChecksum(_ count: Int) throws(LabError) -> UInt64 {
    _ = try run("checksum", pieces: count, batch: 1)
    return try bench.registers().rax
  }
}

/// An interrupt line that the lab waits for.
final class WaitingLine: InterruptLine {
  private let event: Event
  private let poller: Poller

  init() throws(Errno) {
    event = try Event()
    poller = try Poller()
    _ = try poller.add(event.descriptor, tag: 0)
  }

  func set(_ isRaised: Bool) { if isRaised { event.raise() } }

  /// Sleeps until it is raised; false if that takes more than half a minute, as on no host however
  /// busy.
  func wait() -> Bool {
    while !event.consume() {
      guard poller.next(milliseconds: 30_000) != nil else { return false }
    }
    return true
  }

  /// Forgets that it was raised.
  func clear() { event.consume() }
}

/// Gives each doorbell to KVM.
final class LabDoorbells: DoorbellHost {
  private let vm: VM
  init(_ vm: VM) { self.vm = vm }

  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool {
    change(doorbell, place, disconnect: false)
  }

  func disconnect(_ doorbell: Doorbell, at place: BusAddress) {
    _ = change(doorbell, place, disconnect: true)
  }

  private func change(_ doorbell: Doorbell, _ place: BusAddress, disconnect: Bool) -> Bool {
    let address: VM.Doorbell =
      switch place {
      case .port(let port): .port(port)
      case .memory(let address): .memory(GuestAddress(address))
      }
    do throws(KVMError) {
      try vm.connect(
        address, width: UInt32(doorbell.width), value: doorbell.value, to: doorbell.event,
        disconnect: disconnect)
      return true
    } catch { return false }
  }
}

/// FNV-1a by words of 64 bits, as the guest's routine `checksum` has it.
func checksum(_ words: some Sequence<UInt64>) -> UInt64 {
  words.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ $1) &* 0x100_0000_01B3 }
}
