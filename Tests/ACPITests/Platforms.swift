import ACPI
import Memory

/// Where the tests put tables.
let tableStart: GuestAddress = 0xE0000

/// A machine as kvmlite makes it, with so many processors.
func makePlatform(processors: Int = 1) -> PlatformDescription {
  var platform = PlatformDescription(
    processors: (0..<UInt32(processors)).map { $0 }, localAPIC: 0xFEE0_0000,
    ioapic: .init(id: 0, address: 0xFEC0_0000, interruptBase: 0),
    powerManagement: .init(
      event: 0x600, control: 0x604, timer: 0x608, interrupt: 9, powerOffType: 0),
    reset: .init(port: 0xCF9, value: 6), realTimeClock: 0x70)
  platform.overrides = [.init(interrupt: 9, globalInterrupt: 9, isLevelTriggered: true)]
  platform.pci = .init(
    configuration: 0xC000_0000, configurationPorts: 0xCF8, ports: 0xC000...0xFFFF,
    memory32: 0xC100_0000...0xFEBF_FFFF, memory64: 0x1_0000_0000...0x40_FFFF_FFFF,
    interrupts: (0..<32).map { device in (0..<4).map { UInt32(16 + (device + $0) % 8) } })
  platform.generalPurposeEvents = 0x60C
  platform.generation = .init(address: 0xFEFF_B000, event: 5)
  platform.serialPorts = [.init(port: 0x3F8, interrupt: 4)]
  return platform
}

/// Memory that holds one piece of tables, read as a kernel reads it.
struct TableMemory {
  let start: UInt64
  let bytes: [UInt8]

  init(_ tables: ACPITables) { (start, bytes) = (tables.start.value, tables.bytes) }
  init(_ table: MPTable) { (start, bytes) = (table.start.value, table.bytes) }

  /// The `count` bytes at `address`; none where they aren't all there.
  func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
    guard address >= start, address - start + UInt64(count) <= bytes.count else { return [] }
    return Array(bytes[Int(address - start)..<Int(address - start) + count])
  }

  func number(_ address: UInt64, _ count: Int) -> UInt64 {
    bytes(address, count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  func text(_ address: UInt64, _ count: Int) -> String {
    String(decoding: bytes(address, count), as: UTF8.self)
  }

  func sum(_ address: UInt64, _ count: Int) -> UInt8 { bytes(address, count).reduce(0, &+) }

  /// A table's bytes, by the length in its header.
  func table(_ address: UInt64) -> [UInt8] { bytes(address, Int(number(address + 4, 4))) }

  /// The addresses in RSDT or XSDT, whose entries have `width` bytes.
  func entries(_ address: UInt64, width: Int) -> [UInt64] {
    stride(from: 36, to: table(address).count, by: width).map {
      number(address + UInt64($0), width)
    }
  }

  var rsdt: UInt64 { number(start + 16, 4) }
  var xsdt: UInt64 { number(start + 24, 8) }

  /// The address of the table that XSDT lists with `signature`; 0 if it doesn't.
  func address(of signature: String) -> UInt64 {
    entries(xsdt, width: 8).first { text($0, 4) == signature } ?? 0
  }

  /// The structures of MADT, or the entries of any list of type, length and contents.
  func structures(_ table: UInt64) -> [[UInt8]] {
    var structures: [[UInt8]] = []
    var rest = self.table(table).dropFirst(44)
    while let length = rest.dropFirst().first, length > 1, Int(length) <= rest.count {
      structures.append(Array(rest.prefix(Int(length))))
      rest = rest.dropFirst(Int(length))
    }
    return structures
  }
}
