/// The data transfer that a channel's command has under way.
struct ATATransfer {
  enum Phase: UInt8 {
    /// None.
    case none
    /// The channel's thread has a job: BSY.
    case working
    /// The guest reads a block from the data port: DRQ.
    case dataIn
    /// The guest writes a block to it: DRQ.
    case dataOut
    /// The bus master has not started, or its table had too little room: DRQ.
    case waitingForBusMaster
  }

  var phase = Phase.none
  /// Which drive's it is.
  var drive = 0
  /// Whether addresses have 48 bits.
  var isExt = false
  var isWrite = false
  /// Whether it is the list of DATA SET MANAGEMENT.
  var isTrim = false
  /// The next sector for the disk, and how many are left of the command from there on.
  var lba: UInt64 = 0
  var sectorsLeft = 0
  /// How many sectors go with one interrupt.
  var blockSectors = 1
  /// Bytes of the buffer: the next for the data port, the end of its block, the end of all.
  var position = 0
  var blockEnd = 0
  var end = 0
  /// Whether what is in the buffer is all there will be.
  var hasFailed = false

  /// Goes on with the next block of the buffer.
  mutating func startBlock() { blockEnd = min(position + blockSectors * 512, end) }

  /// Begins with a buffer that holds, or is to take, `sectors`.
  mutating func startBuffer(sectors: Int) {
    position = 0
    end = sectors * 512
    startBlock()
  }
}
