import Devices
import Host
import Memory
import Storage
import Synchronization
import VhostUser

/// The ways to move bytes that `io-models` compares.
enum IOModel: String, CaseIterable {
  case uart = "UART"
  case pio = "IDE PIO"
  case dma = "IDE DMA"
  case virtio = "virtio"
  case ioeventfd = "virtio, ioeventfd"
  case vhostUser = "vhost-user"

  /// The guest's routine.
  var routine: String {
    switch self {
    case .uart: "uart"
    case .pio: "pio"
    case .dma: "dma"
    case .virtio, .ioeventfd, .vhostUser: "virtio"
    }
  }

  var isVirtio: Bool { routine == "virtio" }
  /// Bytes of a piece.
  var pieceSize: Int { self == .uart ? 1 : 512 }
  /// How many pieces a transfer in batches of `batch` has: enough for one batch, and for a time that
  /// can be measured. A byte by UART is an exit, so there it has fewer bytes.
  func pieces(_ batch: Int) -> Int { max(batch, self == .uart ? 512 : 64) }
  /// Bytes of such a transfer.
  func byteCount(_ batch: Int) -> Int { pieces(batch) * pieceSize }
}

/// One way to move bytes, set up and ready, with the thread or process that works for it.
final class IORig {
  let model: IOModel
  private let io: IOBench
  private let contents: [UInt64]
  private let sink = ChecksumSink()
  private var ide: IDEController?
  private var transport: VirtioMMIO?
  private var worker: Worker?
  private var process: BackEndProcess?

  /// Sets `model` up with the disk image `image`, which holds `contents`.
  init(
    _ model: IOModel, _ kit: Probe.Kit, image: String, _ contents: [UInt64],
    program: String, in directory: String
  ) throws(LabError) {
    self.model = model
    self.contents = contents
    io = try IOBench(kit, seconds: 200)
    switch model {
    case .uart:
      try io.add(port: UART16550A(line: io.interrupt, sink: sink), at: 0x3F8, count: 8)
    case .pio, .dma: try addIDE(Self.open(image))
    case .virtio: try addVirtio(VirtioBlock(Self.open(image)), rings: false)
    case .ioeventfd: try addVirtio(VirtioBlock(Self.open(image)), rings: true)
    case .vhostUser:
      let process = try BackEndProcess(
        program, image: image, ",format=raw,readonly", in: directory)
      self.process = process
      let device: VhostUserBlock
      do {
        device = try VhostUserBlock(
          VhostUserSocket(path: process.socket), memory: io.bench.memory, mostQueues: 1)
      } catch { throw .unexpected("the back end can't be reached: \(error)") }
      try addVirtio(device, rings: true)
    }
    if model.isVirtio { _ = try io.run("virtio setup", pieces: 0, batch: 0) }
  }

  deinit {
    ide?.stop()
    transport?.core.stop()
    worker?.stop()
  }

  private static func open(_ image: String) throws(LabError) -> any BlockStore {
    var options = DiskImage.Options()
    (options.format, options.isReadOnly) = (.raw, true)
    do { return try DiskImage.open(image, options).store } catch { throw .unexpected("\(error)") }
  }

  private func addIDE(_ store: any BlockStore) throws(LabError) {
    let ide = try host { () throws(Errno) in
      try IDEController(
        [.init(store, serial: "")], lines: (io.interrupt, io.interrupt), memory: io.bench.memory,
        mayMaster: { true })
    }
    self.ide = ide
    try io.add(port: ide.commandBlocks[0], at: 0x1F0, count: 8)
    try io.add(port: ide.controlBlocks[0], at: 0x3F6, count: 1)
    try io.add(port: ide.busMaster, at: IOBench.Place.master, count: 16)
  }

  private func addVirtio(_ device: any VirtioDevice, rings: Bool) throws(LabError) {
    let (memory, interrupt) = (io.bench.memory, io.interrupt)
    let (worker, transport) = try host { () throws(Errno) in
      let worker = try Worker(name: "virtio")
      let surroundings = VirtioCore.Surroundings(
        memory: memory, worker: worker, reports: try DeviceReports())
      return (worker, try VirtioMMIO(device, surroundings, line: interrupt))
    }
    (self.worker, self.transport) = (worker, transport)
    let place = IOBench.Place.virtio
    if rings { transport.connectDoorbells(at: place, LabDoorbells(io.bench.vm)) }
    try io.add(memory: transport, at: place, count: VirtioMMIO.size)
  }

  /// Moves all bytes once, in batches of `batch`, and checks that they came as they were sent.
  func transfer(batch: Int) throws(LabError) -> IOBench.Sample {
    let count = model.byteCount(batch)
    let sent = contents.prefix(count / 8)
    let view = try io.data(count)
    for index in sent.indices { view.store(model == .uart ? sent[index] : 0, index * 8) }
    sink.clear(roomFor: count)
    io.interrupt.clear()
    let sample = try io.run(
      model.routine, pieces: model.pieces(batch), batch: batch, worker: process?.child)
    // The other end's sum: the guest's of what it read, the sink's of what the guest sent.
    let received = model == .uart ? sink.checksum : try io.guestChecksum(count)
    guard received == checksum(sent) else {
      throw .unexpected("the bytes that came by \(model.rawValue) are not those that were sent")
    }
    return sample
  }
}

/// Keeps what a UART sends.
private final class ChecksumSink: ByteSink {
  private let bytes = Mutex<[UInt8]>([])

  func clear(roomFor count: Int) {
    bytes.withLock {
      $0.removeAll(keepingCapacity: true)
      $0.reserveCapacity(count)
    }
  }

  func write(_ more: Span<UInt8>) {
    bytes.withLock { bytes in for index in more.indices { bytes.append(more[index]) } }
  }

  var checksum: UInt64 {
    bytes.withLock { bytes in
      Lab.checksum(
        stride(from: 0, to: bytes.count & ~7, by: 8).map { start in
          (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << UInt64($1 * 8) }
        })
    }
  }
}
