import Host
import Memory
import Storage

/// One of the controller's two channels: a cable with up to two ATA drives, their registers, and the
/// bus master for them.
///
/// The registers answer at once. What needs a disk is done by a thread of the channel's, which
/// raises the interrupt when it is done.
package final class IDEChannel: Sendable {
  private struct State {
    var channel: ATAChannel
    var isLineRaised = false
    /// What the thread has to do.
    var underWay: IDEJob?
    /// Whether jobs wait for `resume()`, and who is to be told when none is under way any more.
    var isPaused = false
    var still: (@Sendable () -> Void)?
  }

  private let name: String
  private let state: RankedMutex<State>
  private let line: any InterruptLine
  private let runner: IDEJobRunner
  /// Nil without drives, which alone have work for it.
  private let worker: Worker?

  /// A channel with these disks, drive 0 first; `mayMaster` tells whether the bus master may use
  /// `memory`.
  init(
    name: String, _ disks: [IDEController.Disk], _ line: any InterruptLine, _ memory: GuestMemory,
    _ observation: DeviceObservation?, mayMaster: @escaping @Sendable () -> Bool
  ) throws(Errno) {
    self.name = name
    let buffer = try MemoryView(scratch: ATAChannel.bufferSectors * 512)
    let drives = disks.enumerated().map { number, disk in
      ATADrive(
        number: number, sectorCount: disk.store.size / 512, isReadOnly: disk.store.isReadOnly,
        serial: disk.serial,
        recorder: RequestRecorder(observation, label: "\(name) drive \(number)"))
    }
    state = RankedMutex(.registers, State(channel: ATAChannel(drives: drives, buffer: buffer)))
    self.line = line
    runner = IDEJobRunner(
      stores: disks.map(\.store), memory: memory, buffer: buffer, mayMaster: mayMaster)
    worker = disks.isEmpty ? nil : try Worker(name: name)
    // Now, for a guest could only be told that its disk fails.
    try worker?.start()
  }

  /// Ends the channel's thread. To be called when no VCPU runs any longer.
  func stop() { worker?.stop() }

  /// What each drive has done.
  var statistics: [DeviceStatistics] {
    state.withLock { state in
      state.channel.drives.map { $0.statistics(label: "\(name) drive \($0.number)") }
    }
  }

  /// Changes the registers, and lets line and thread follow.
  private func update<Result>(_ body: (inout ATAChannel) -> Result) -> Result {
    state.withLock { state in
      let result = body(&state.channel)
      handOver(&state)
      driveLine(&state)
      return result
    }
  }

  private func handOver(_ state: inout State) {
    guard !state.isPaused, let job = state.channel.job else { return }
    state.channel.job = nil
    do throws(Errno) {
      // What is posted holds nothing but this, so that a VCPU allocates nothing.
      try worker?.post { [self] in perform() }
      state.underWay = job
    } catch {
      // There is no thread to be had.
      state.channel.finish(job, IDEJob.Result(hasFailed: true))
    }
  }

  private func driveLine(_ state: inout State) {
    // An interrupt taken back and raised again is an edge, which the controllers wait for.
    if state.channel.wasInterruptCleared && state.isLineRaised {
      line.set(false)
      state.isLineRaised = false
    }
    state.channel.wasInterruptCleared = false
    let isRaised = state.channel.isInterrupting
    guard isRaised != state.isLineRaised else { return }
    state.isLineRaised = isRaised
    // The bus master's bit is set by the line's edge (Programming Interface, 2.2).
    if isRaised { state.channel.busMaster.status.insert(.interrupt) }
    line.set(isRaised)
  }

  /// On the channel's thread.
  private func perform() {
    guard let job = state.withLock({ $0.underWay }) else { return }
    let result = runner.run(job)
    let still = state.withLock { state in
      state.underWay = nil
      state.channel.finish(job, result)
      handOver(&state)
      driveLine(&state)
      return state.still.take()
    }
    still?()
  }
}

// MARK: - Standing still, and state

extension IDEChannel {
  /// Hands over no more jobs, and calls `still` when the one under way, if there is one, is done.
  func pause(_ still: @escaping @Sendable () -> Void) {
    let isStill = state.withLock { state in
      state.isPaused = true
      guard state.underWay != nil else { return true }
      state.still = still
      return false
    }
    if isStill { still() }
  }

  /// Goes on, with the job that waits.
  func resume() {
    state.withLock { state in
      state.isPaused = false
      state.still = nil
      handOver(&state)
      driveLine(&state)
    }
  }

  /// Makes the channel and its drives as new.
  func reset() { state.withLock { take($0.channel.powerOnReset(), &$0) } }

  /// Writes the registers, and what waits in the buffer.
  func save(to writer: inout StateWriter) {
    state.withLock { $0.channel.save(to: &writer) }
  }

  /// Takes them back.
  func restore(from reader: StateReader) throws(StateError) {
    try state.withLock { (state) throws(StateError) in
      take(try state.channel.restored(from: reader), &state)
    }
  }

  private func take(_ channel: ATAChannel, _ state: inout State) {
    state.channel = channel
    state.isLineRaised = channel.isInterrupting
    line.set(state.isLineRaised)
  }
}

// MARK: - Registers

extension IDEChannel {
  /// Reads a Command Block register other than Data.
  func read(_ offset: UInt64) -> UInt8 { update { $0.read(offset) } }

  /// Writes a Command Block register other than Data.
  func write(_ offset: UInt64, _ value: UInt8) { update { $0.write(offset, value) } }

  /// Reads the Alternate Status register.
  func readAlternateStatus() -> UInt8 { state.withLock { $0.channel.alternateStatus } }

  /// Writes the Device Control register.
  func writeControl(_ value: UInt8) { update { $0.writeControl(value) } }

  /// Reads one of the bus master's eight bytes.
  func readBusMaster(_ offset: UInt64) -> UInt8 {
    state.withLock { $0.channel.busMaster.read(offset) }
  }

  /// Writes one of them.
  func writeBusMaster(_ offset: UInt64, _ value: UInt8) {
    update { channel in
      if channel.busMaster.write(offset, value) { channel.startBusMaster() }
    }
  }

  // MARK: Data

  /// Reads the Data register with an access of 1, 2 or 4 bytes.
  func readData(width: Int) -> UInt64 {
    update { channel in
      channel.countDataAccesses(1)
      return channel.readData(width: width)
    }
  }

  /// Writes the Data register with an access of 1, 2 or 4 bytes.
  func writeData(_ value: UInt64, width: Int) {
    update { channel in
      channel.countDataAccesses(1)
      channel.writeData(value, width: width)
    }
  }

  /// Reads the Data register over and over, with accesses of `width` bytes.
  func readData(into bytes: inout MutableSpan<UInt8>, width: Int) {
    // A closure can't hold the span, so the lock is taken for each piece of it.
    var index = 0
    while index &+ width <= bytes.count {
      let count = min((bytes.count &- index) / width, 32)
      let piece = readPiece(count: count, width: width)
      for access in 0..<count {
        for byte in 0..<width {
          bytes[index] = UInt8(truncatingIfNeeded: piece[access] >> UInt32(byte * 8))
          index &+= 1
        }
      }
    }
  }

  private func readPiece(count: Int, width: Int) -> InlineArray<32, UInt32> {
    update { channel in
      var piece = InlineArray<32, UInt32>(repeating: 0)
      channel.countDataAccesses(count)
      for index in 0..<count {
        piece[index] = UInt32(truncatingIfNeeded: channel.readData(width: width))
      }
      return piece
    }
  }

  /// Writes the Data register over and over, with accesses of `width` bytes.
  func writeData(_ bytes: Span<UInt8>, width: Int) {
    update { channel in
      channel.countDataAccesses(bytes.count / width)
      var index = 0
      while index &+ width <= bytes.count {
        var value: UInt64 = 0
        for byte in 0..<width { value |= UInt64(bytes[index &+ byte]) << UInt64(byte * 8) }
        channel.writeData(value, width: width)
        index &+= width
      }
    }
  }
}

extension ATAChannel {
  fileprivate mutating func countDataAccesses(_ count: Int) {
    guard selected < drives.count else { return }
    drives[selected].counters.dataPortAccesses &+= UInt64(count)
  }

  // The register has 16 bits: a byte is the low half of one, and 32 bits are two.

  fileprivate mutating func readData(width: Int) -> UInt64 {
    switch width {
    case 1: return UInt64(readData()) & 0xFF
    case 2: return UInt64(readData())
    default:
      let low = UInt64(readData())
      return low | UInt64(readData()) << 16
    }
  }

  fileprivate mutating func writeData(_ value: UInt64, width: Int) {
    writeData(UInt16(truncatingIfNeeded: value))
    if width > 2 { writeData(UInt16(truncatingIfNeeded: value >> 16)) }
  }
}
