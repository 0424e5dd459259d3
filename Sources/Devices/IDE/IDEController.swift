import Host
import Memory
import Storage
import Synchronization

/// The IDE controller of Intel's PIIX3: two channels at the ports that PCs have them, and a bus master
/// for both.
package final class IDEController: Sendable {
  /// A disk to be one of its drives.
  package struct Disk: Sendable {
    let store: any BlockStore
    let serial: String

    /// A disk with these contents and a serial number of up to 20 ASCII characters.
    package init(_ store: any BlockStore, serial: String) {
      self.store = store
      self.serial = serial
    }
  }

  /// The most disks: a master and a slave on each channel.
  package static let mostDisks = 4

  private let channels: [IDEChannel]
  /// The Command Blocks' eight ports, the primary channel's and the secondary's.
  package let commandBlocks: [any Device]
  /// The Control Blocks' one port, the same.
  package let controlBlocks: [any Device]
  /// The bus master's sixteen ports.
  package let busMaster: any Device

  /// A controller with up to four disks: primary master, primary slave, secondary master, secondary
  /// slave. `lines` are the interrupts of the primary and the secondary channel; `mayMaster` tells
  /// whether the bus master may use `memory`; `observation` is what is to be seen of the drives.
  package init(
    _ disks: [Disk], lines: (primary: any InterruptLine, secondary: any InterruptLine),
    memory: GuestMemory, observation: DeviceObservation? = nil,
    mayMaster: @escaping @Sendable () -> Bool
  ) throws(Errno) {
    precondition(disks.count <= Self.mostDisks, "a fifth disk has no place")
    let primary = try IDEChannel(
      name: "ide0", Array(disks.prefix(2)), lines.primary, memory, observation,
      mayMaster: mayMaster)
    let secondary = try IDEChannel(
      name: "ide1", Array(disks.dropFirst(2)), lines.secondary, memory, observation,
      mayMaster: mayMaster)
    channels = [primary, secondary]
    commandBlocks = [IDECommandBlock("ide0", primary), IDECommandBlock("ide1", secondary)]
    controlBlocks = [
      IDEControlBlock("ide0-control", primary), IDEControlBlock("ide1-control", secondary),
    ]
    busMaster = IDEBusMasterBlock(channels)
  }

  /// Ends the channels' threads; to be called when no VCPU runs any longer. What a guest had handed
  /// over is on the disk then, though not flushed.
  package func stop() {
    for channel in channels { channel.stop() }
  }

  /// What each disk has done, in the order they were given.
  package var statistics: [DeviceStatistics] { channels.flatMap(\.statistics) }

  /// The bytes that all of them carried so far; from any thread.
  package var traffic: DeviceTraffic {
    statistics.flatMap(\.rings).reduce(DeviceTraffic()) {
      let ring = $1.statistics
      return $0 + DeviceTraffic(read: ring.bytesRead ?? 0, written: ring.bytesWritten ?? 0)
    }
  }
}

// MARK: - State

extension IDEController: Stateful {
  /// Makes both channels as new, as power that comes on does. What disks hold stays.
  package func reset() {
    for channel in channels { channel.reset() }
  }

  /// Writes the channels' and drives' registers.
  package func save(to state: inout StateWriter) {
    for (index, channel) in channels.enumerated() {
      state.group("channel\(index)") { channel.save(to: &$0) }
    }
  }

  /// Takes them back. Each drive must have as many sectors as it had.
  package func restore(from state: StateReader) throws(StateError) {
    for (index, channel) in channels.enumerated() {
      try channel.restore(from: state.group("channel\(index)"))
    }
  }
}

extension IDEController: Pausable {
  /// Hands no more to the disks, and calls `still` when both channels' threads have nothing to do.
  package func pause(_ still: @escaping @Sendable () -> Void) {
    let left = Left(channels.count)
    for channel in channels { channel.pause { if left.isLast() { still() } } }
  }

  /// Goes on with what waits.
  package func resume() {
    for channel in channels { channel.resume() }
  }

  /// How many channels aren't still yet.
  private final class Left: Sendable {
    private let count: Atomic<Int>

    init(_ count: Int) { self.count = Atomic(count) }

    func isLast() -> Bool {
      count.subtract(1, ordering: .acquiringAndReleasing).newValue == 0
    }
  }
}
