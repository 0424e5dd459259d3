import Memory

/// What both transports save alike. The transports save the rest, and must have restored interrupts
/// before this is: a queue may use them at once.
extension VirtioCore {
  /// Makes everything as in a new device. The machine stands still.
  func reset() {
    device.remote?.reset()
    update { state in
      for index in state.queues.indices {
        _ = state.queues[index].active?.stop()
        didStop(index, &state)
      }
      beNew(&state)
      signals.clear()
    }
  }

  /// Writes status, features, queues and what the device has of its own.
  func save(to writer: inout StateWriter) {
    let state = update { $0 }
    writer.write("status", state.status.rawValue)
    writer.write("features", state.features.rawValue)
    writer.write("generation", generation)
    writer.write("driverReady", signals.isReady)
    for (index, queue) in state.queues.enumerated() {
      writer.group("queue\(index)") { writer in
        let registers = queue.registers
        writer.write("size", registers.size)
        writer.write("enabled", registers.isEnabled)
        writer.write("descriptors", registers.addresses.descriptors)
        writer.write("available", registers.addresses.available)
        writer.write("used", registers.addresses.used)
        // A device that needs a reset goes on nowhere.
        let isOver = state.status.contains(.needsReset)
        let position = isOver ? .init() : position(ofQueue: index, queue)
        writer.write("nextAvailable", position.available)
        writer.write("nextUsed", position.used)
      }
    }
    writer.group("device") { device.save(to: &$0) }
  }

  private func position(ofQueue index: Int, _ queue: Queue) -> VirtQueue.Position {
    if let active = queue.active { return active.position }
    guard queue.remote == .served, let remote = device.remote else { return .init() }
    return .init(remote.position(ofQueue: index))
  }

  /// Takes what `save` wrote into a device that was reset just now.
  func restore(from reader: StateReader) throws(StateError) {
    let status = Status(rawValue: try reader.read("status"))
    let features = VirtioFeatures(rawValue: try reader.read("features"))
    guard status.isSubset(of: .drivers.union(.needsReset)) else { throw .impossible("status") }
    let isReady = status.contains(.driverOK)
    guard !isReady || status.contains(.featuresOK) || status.contains(.needsReset) else {
      throw .impossible("status")
    }
    guard !status.contains(.featuresOK) || accepts(features) else {
      throw .impossible("features")
    }
    var queues: [(registers: QueueRegisters, position: VirtQueue.Position)] = []
    for index in 0..<queueCount {
      try queues.append(Self.queue(reader.group("queue\(index)")))
    }
    signals.clear(generation: try reader.read("generation"))
    signals.setDriverReady(try reader.readFlag("driverReady"))
    let own = try reader.group("device")
    try device.restore(from: own, features)
    let isSound = update { state in
      (state.status, state.features) = (status, features)
      for index in queues.indices { state.queues[index].registers = queues[index].registers }
      guard status.contains([.driverOK, .featuresOK]), !status.contains(.needsReset) else {
        return true
      }
      for index in queues.indices where queues[index].registers.isEnabled {
        start(queue: index, &state, at: queues[index].position)
      }
      return !state.status.contains(.needsReset)
    }
    // A driver that had set a ring up so would have been told then.
    guard isSound else { throw .impossible("queue") }
  }

  private static func queue(
    _ reader: StateReader
  ) throws(StateError) -> (registers: QueueRegisters, position: VirtQueue.Position) {
    var registers = QueueRegisters(size: try reader.read("size"))
    registers.isEnabled = try reader.readFlag("enabled")
    registers.addresses = VirtQueue.Addresses(
      descriptors: try reader.read("descriptors"), available: try reader.read("available"),
      used: try reader.read("used"))
    var position = VirtQueue.Position()
    (position.available, position.used) = (
      try reader.read("nextAvailable"), try reader.read("nextUsed")
    )
    // Nothing is in flight while a machine stands still.
    guard position.available == position.used else { throw .impossible("nextAvailable") }
    return (registers, position)
  }
}
