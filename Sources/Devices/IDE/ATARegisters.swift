/// The Status register (ATA/ATAPI-7, volume 1, 5.14).
struct ATAStatus: OptionSet {
  let rawValue: UInt8
  /// ERR: the Error register says why the command failed.
  static let error = Self(rawValue: 0x01)
  /// DRQ: a block of data is to be transferred.
  static let dataRequest = Self(rawValue: 0x08)
  /// DSC, as it was up to ATA-3: the heads have settled. Old drivers wait for it.
  static let seekComplete = Self(rawValue: 0x10)
  /// DRDY: commands are taken.
  static let ready = Self(rawValue: 0x40)
  /// BSY: the drive works; no other register means anything.
  static let busy = Self(rawValue: 0x80)

  static let idle: Self = [.ready, .seekComplete]
}

/// The Error register after a command (ATA/ATAPI-7, volume 1, 5.9 and each command's error outputs).
struct ATAError: OptionSet {
  let rawValue: UInt8
  /// ABRT: the command is not known, or could not be done.
  static let abort = Self(rawValue: 0x04)
  /// IDNF: no sector has that address.
  static let idNotFound = Self(rawValue: 0x10)
  /// UNC, of reads: the data is lost.
  static let uncorrectable = Self(rawValue: 0x40)
  /// WP, of writes, in the same place: nothing can be written.
  static let writeProtected = Self(rawValue: 0x40)

  /// The diagnostic code of a drive that passed (ATA/ATAPI-7, volume 1, table 17).
  static let diagnosticPassed = Self(rawValue: 0x01)
}

/// The Device Control register (ATA/ATAPI-7, volume 1, 5.6).
struct ATADeviceControl: OptionSet {
  let rawValue: UInt8
  /// nIEN: the drives drive no interrupt.
  static let interruptDisable = Self(rawValue: 0x02)
  /// SRST: the drives are held in reset.
  static let softwareReset = Self(rawValue: 0x04)
  /// HOB: reads give what the registers held before the last write.
  static let highOrderByte = Self(rawValue: 0x80)
}

/// A register of two bytes' depth: a write pushes what was there (ATA/ATAPI-7, volume 1, 6.20).
struct ATADoubleRegister {
  var current: UInt8 = 0
  var previous: UInt8 = 0

  init(_ current: UInt8 = 0, _ previous: UInt8 = 0) {
    self.current = current
    self.previous = previous
  }

  mutating func write(_ value: UInt8) {
    previous = current
    current = value
  }
}

/// The registers that a command's parameters are in, and its results: the Command Block without
/// Data, Status, Command and Error.
struct ATATaskFile {
  var features = ATADoubleRegister()
  var sectorCount = ATADoubleRegister(1)
  var lbaLow = ATADoubleRegister(1)
  var lbaMid = ATADoubleRegister()
  var lbaHigh = ATADoubleRegister()
  /// Bit 6: LBA rather than CHS. Bit 4: which drive. Bits 3 to 0: LBA bits 27 to 24, or the head.
  var device: UInt8 = 0

  static let isLBA: UInt8 = 0x40
  static let isSecondDrive: UInt8 = 0x10

  /// What reset and diagnosis leave: the signature of a drive that takes no packets (ATA/ATAPI-7,
  /// volume 1, table 16), which is also the initial value. The drive selected stays or is drive 0.
  static let signature = ATATaskFile()

  /// The address of an EXT command.
  var lba48: UInt64 {
    UInt64(lbaLow.current) | UInt64(lbaMid.current) << 8 | UInt64(lbaHigh.current) << 16
      | UInt64(lbaLow.previous) << 24 | UInt64(lbaMid.previous) << 32
      | UInt64(lbaHigh.previous) << 40
  }

  /// The address of other commands in LBA.
  var lba28: UInt64 {
    UInt64(lbaLow.current) | UInt64(lbaMid.current) << 8 | UInt64(lbaHigh.current) << 16
      | UInt64(device & 0x0F) << 24
  }

  /// The address of other commands in CHS; its cylinder is 16 bits wide.
  var chs: (cylinder: UInt32, head: UInt32, sector: UInt32) {
    (
      UInt32(lbaMid.current) | UInt32(lbaHigh.current) << 8, UInt32(device & 0x0F),
      UInt32(lbaLow.current)
    )
  }

  mutating func setLBA48(_ lba: UInt64) {
    func byte(_ index: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: lba >> (index * 8)) }
    lbaLow = ATADoubleRegister(byte(0), byte(3))
    lbaMid = ATADoubleRegister(byte(1), byte(4))
    lbaHigh = ATADoubleRegister(byte(2), byte(5))
  }

  mutating func setLBA28(_ lba: UInt64) {
    lbaLow.current = UInt8(truncatingIfNeeded: lba)
    lbaMid.current = UInt8(truncatingIfNeeded: lba >> 8)
    lbaHigh.current = UInt8(truncatingIfNeeded: lba >> 16)
    device = device & 0xF0 | UInt8(truncatingIfNeeded: lba >> 24) & 0x0F
  }

  mutating func setCHS(cylinder: UInt32, head: UInt32, sector: UInt32) {
    lbaLow.current = UInt8(truncatingIfNeeded: sector)
    lbaMid.current = UInt8(truncatingIfNeeded: cylinder)
    lbaHigh.current = UInt8(truncatingIfNeeded: cylinder >> 8)
    device = device & 0xF0 | UInt8(truncatingIfNeeded: head) & 0x0F
  }
}
