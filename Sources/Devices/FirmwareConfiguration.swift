import Host

/// QEMU's firmware configuration device, fw_cfg: numbered items that firmware and tests read byte by
/// byte (QEMU, docs/specs/fw_cfg).
///
/// Two ports: 16 bits written to the first select an item and go to its start; each byte read is the
/// next of the item. Unknown items, and what is behind an item's end, read zero.
package final class FirmwareConfiguration: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "fw-cfg" }
  /// Takes the selector in one piece.
  package var widestAccess: Int { 2 }

  private let items: [Item]
  private let registers = RankedMutex(.registers, Registers())

  private struct Registers {
    var key = Key.signature
    // The item of that key, -1 for none; the signature is the first.
    var selected = 0
    var offset = 0
  }

  /// An item by its number.
  package struct Item: Sendable {
    /// Its number, the key that selects it.
    package let key: UInt16
    /// What it holds.
    package let bytes: [UInt8]

    /// Takes both as they are.
    package init(key: UInt16, bytes: [UInt8]) {
      self.key = key
      self.bytes = bytes
    }

    /// An item that holds a little-endian number.
    package init<T: FixedWidthInteger>(key: UInt16, _ value: T) {
      self.key = key
      bytes = littleEndianBytes(value)
    }
  }

  /// An item that is found by its name in the directory.
  package struct File: Sendable {
    /// Its name, in up to 55 ASCII characters, such as `etc/e820`.
    package let name: String
    /// What it holds.
    package let bytes: [UInt8]

    /// Takes both as they are.
    package init(name: String, bytes: [UInt8]) {
      self.name = name
      self.bytes = bytes
    }

    /// A file that holds a little-endian number.
    package init<T: FixedWidthInteger>(name: String, number: T) {
      self.init(name: name, bytes: littleEndianBytes(number))
    }
  }

  /// The keys that every machine answers (QEMU, include/standard-headers/linux/qemu_fw_cfg.h).
  package enum Key {
    /// `QEMU`
    package static let signature: UInt16 = 0x00
    /// What the device can do, in 32 bits. Bit 0 is this interface, bit 1 would be DMA.
    package static let id: UInt16 = 0x01
    /// RAM in bytes, 64 bits.
    package static let ramSize: UInt16 = 0x03
    /// Whether there is no screen, 16 bits.
    package static let noGraphics: UInt16 = 0x04
    /// How many CPUs run, 16 bits.
    package static let cpuCount: UInt16 = 0x05
    /// How many CPUs there could be, 16 bits.
    package static let mostCPUs: UInt16 = 0x0F
    /// The directory of files.
    package static let fileDirectory: UInt16 = 0x19
    /// The first file; the others follow.
    package static let firstFile: UInt16 = 0x20
  }

  /// A device with the items that every machine has, and with `items` and `files` besides.
  package init(ramSize: UInt64, cpuCount: Int, items: [Item] = [], files: [File] = []) {
    let cpus = UInt16(clamping: cpuCount)
    var all = [
      Item(key: Key.signature, bytes: Array("QEMU".utf8)), Item(key: Key.id, UInt32(1)),
      Item(key: Key.ramSize, ramSize), Item(key: Key.noGraphics, UInt16(1)),
      Item(key: Key.cpuCount, cpus), Item(key: Key.mostCPUs, cpus),
      Item(key: Key.fileDirectory, bytes: Self.directory(of: files)),
    ]
    all += items
    for (index, file) in files.enumerated() {
      all.append(Item(key: Self.key(ofFile: index), bytes: file.bytes))
    }
    self.items = all
  }

  /// Answers the next byte of the item, at either port; only bytes can be read.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard width == 1 else { return .max >> UInt64(clamping: 64 - width * 8) }
    return registers.withLock { registers in
      guard items.indices.contains(registers.selected) else { return 0 }
      let bytes = items[registers.selected].bytes
      guard bytes.indices.contains(registers.offset) else { return 0 }
      defer { registers.offset += 1 }
      return UInt64(bytes[registers.offset])
    }
  }

  /// Selects an item by 16 bits at the first port; items can't be written.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset == 0, width == 2 else { return }
    let new = select(UInt16(truncatingIfNeeded: value))
    registers.withLock { $0 = new }
  }

  private func select(_ key: UInt16) -> Registers {
    Registers(key: key, selected: items.firstIndex { $0.key == key } ?? -1)
  }
}

extension FirmwareConfiguration: Stateful {
  /// Selects the signature.
  package func reset() { registers.withLock { $0 = Registers() } }

  /// Writes what is selected, and how far it was read; items are the machine's to make again.
  package func save(to state: inout StateWriter) {
    let registers = registers.withLock { $0 }
    state.write("key", registers.key)
    state.write("offset", UInt64(registers.offset))
  }

  /// Takes both back.
  package func restore(from state: StateReader) throws(StateError) {
    var new = select(try state.read("key"))
    let size = items.indices.contains(new.selected) ? items[new.selected].bytes.count : 0
    new.offset = Int(try state.read("offset", in: 0...UInt64(size)))
    registers.withLock { $0 = new }
  }
}

extension FirmwareConfiguration {
  // Names end in a zero within this many bytes.
  private static let nameSize = 56

  private static func key(ofFile index: Int) -> UInt16 {
    Key.firstFile &+ UInt16(truncatingIfNeeded: index)
  }

  /// The count, then size, key, two zeros and name of each file; numbers are big-endian.
  private static func directory(of files: [File]) -> [UInt8] {
    var bytes: [UInt8] = littleEndianBytes(UInt32(truncatingIfNeeded: files.count).byteSwapped)
    for (index, file) in files.enumerated() {
      bytes += littleEndianBytes(UInt32(truncatingIfNeeded: file.bytes.count).byteSwapped)
      bytes += littleEndianBytes(key(ofFile: index).byteSwapped)
      bytes += [0, 0]
      let name = Array(file.name.utf8.prefix(nameSize - 1))
      bytes += name + [UInt8](repeating: 0, count: nameSize - name.count)
    }
    return bytes
  }
}

private func littleEndianBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
  stride(from: 0, to: T.bitWidth, by: 8).map { UInt8(truncatingIfNeeded: value >> T($0)) }
}
