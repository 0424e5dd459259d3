import Memory

/// The 256 words by which a drive says what it is and can (ATA/ATAPI-7, volume 1, 6.17).
struct ATAIdentity {
  private(set) var words = [UInt16](repeating: 0, count: 256)

  /// What goes where: 40 and 8 characters.
  static let model = "kvmlite disk"
  static let firmware = "1.0"

  /// The identity of `drive` as it is set now.
  init(_ drive: ATADrive) {
    setTexts(drive)
    setGeometry(drive)
    setTransferModes(drive)
    setCommandSets(drive)
    setIntegrity()
  }

  /// Puts the words at the start of `view`.
  func store(in view: MemoryView) {
    for index in words.indices { view.store(words[index], index * 2) }
  }

  private mutating func setTexts(_ drive: ATADrive) {
    setText(drive.serial, 10..<20)
    setText(Self.firmware, 23..<27)
    setText(Self.model, 27..<47)
  }

  private mutating func setGeometry(_ drive: ATADrive) {
    let original = ATAGeometry(sectors: drive.sectorCount)
    let current = drive.settings.geometry
    words[0] = 0x0040  // neither removable nor a packet device
    words[1] = UInt16(original.cylinders)
    words[3] = UInt16(original.heads)
    words[6] = UInt16(original.sectorsPerTrack)
    words[54] = UInt16(current.cylinders)
    words[55] = UInt16(current.heads)
    words[56] = UInt16(current.sectorsPerTrack)
    set(current.sectorCount, 57, count: 2)
    set(min(drive.sectorCount, ATADrive.lba28Limit), 60, count: 2)
    set(drive.sectorCount, 100, count: 4)
  }

  private mutating func setTransferModes(_ drive: ATADrive) {
    words[47] = 0x8000 | UInt16(ATADrive.largestMultiple)
    words[48] = 0x0001  // accesses of 32 bits to the data port
    words[49] = 0x0B00  // DMA, LBA, IORDY
    words[50] = 0x4000
    words[51] = 0x0200  // PIO mode 2, for those that don't look at word 64
    words[53] = 0x0007  // words 54 to 58, 64 to 70 and 88 are valid
    if drive.settings.multipleCount > 0 {
      words[59] = 0x0100 | UInt16(drive.settings.multipleCount)
    }
    words[63] = 0x0007  // multiword DMA modes 0 to 2
    words[64] = 0x0003  // PIO modes 3 and 4
    for index in 65...68 { words[index] = 120 }  // cycles of 120 ns
    words[88] = 0x003F  // Ultra DMA modes 0 to 5
    switch drive.dmaMode {
    case .multiwordDMA(let mode): words[63] |= 0x0100 << UInt16(mode)
    case .ultraDMA(let mode): words[88] |= 0x0100 << UInt16(mode)
    case .pio, nil: break
    }
    // A cable of 80 wires; drive numbers by jumper; diagnosis passed.
    words[93] = drive.number == 0 ? 0x600B : 0x6B00
  }

  private mutating func setCommandSets(_ drive: ATADrive) {
    let writeCache: UInt16 = 1 << 5
    words[80] = 0x00F0  // ATA/ATAPI-4 to 7
    words[82] = 0x4008 | writeCache  // NOP, power management
    words[83] = 0x7400  // FLUSH CACHE and FLUSH CACHE EXT, LBA48
    words[84] = 0x4000
    words[85] = 0x4008 | (drive.settings.hasWriteCache ? writeCache : 0)
    words[86] = 0x3400
    words[87] = 0x4000
    // From ACS-2, as all drivers look for it: DATA SET MANAGEMENT with TRIM.
    if !drive.isReadOnly {
      words[105] = UInt16(ATADrive.largestTrim)
      words[169] = 0x0001
    }
  }

  // The sum of all bytes is zero.
  private mutating func setIntegrity() {
    words[255] = 0x00A5
    let sum = words.reduce(UInt8(0)) { $0 &+ UInt8($1 & 0xFF) &+ UInt8($1 >> 8) }
    words[255] |= UInt16(0 &- sum) << 8
  }

  private mutating func set(_ value: UInt64, _ start: Int, count: Int) {
    for index in 0..<count {
      words[start + index] = UInt16(truncatingIfNeeded: value >> UInt64(index * 16))
    }
  }

  // The first character of two is in the high byte; what is short is filled with spaces.
  private mutating func setText(_ text: String, _ range: Swift.Range<Int>) {
    let printable = text.utf8.map { (0x20...0x7E).contains($0) ? $0 : UInt8(ascii: "?") }
    for (index, word) in range.enumerated() {
      let high = index * 2 < printable.count ? printable[index * 2] : 0x20
      let low = index * 2 + 1 < printable.count ? printable[index * 2 + 1] : 0x20
      words[word] = UInt16(high) << 8 | UInt16(low)
    }
  }
}
