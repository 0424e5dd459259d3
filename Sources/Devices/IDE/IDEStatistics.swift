/// What one drive has done since the machine was made.
public struct IDEDriveStatistics: Sendable, Equatable {
  /// Commands written to the drive, those that failed too.
  public var commands: UInt64 = 0
  /// Commands that ended with an error.
  public var failures: UInt64 = 0
  /// Sectors that the guest read.
  public var sectorsRead: UInt64 = 0
  /// Sectors that the guest wrote.
  public var sectorsWritten: UInt64 = 0
  /// Accesses to the data port, those of repeated instructions each.
  public var dataPortAccesses: UInt64 = 0
  /// Transfers by the bus master, each from one start to its end.
  public var dmaTransfers: UInt64 = 0
  /// FLUSH CACHE commands.
  public var flushes: UInt64 = 0
  /// How often the drive raised its interrupt.
  public var interrupts: UInt64 = 0

  /// Counters that are all zero.
  public init() {}

  /// Bytes that the guest read.
  public var bytesRead: UInt64 { sectorsRead &* 512 }
  /// Bytes that the guest wrote.
  public var bytesWritten: UInt64 { sectorsWritten &* 512 }
}
