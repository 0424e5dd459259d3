/// A channel's Command Block: eight ports, of which the first is as wide as the access (ATA/ATAPI-7,
/// volume 2, 5.2).
final class IDECommandBlock: Device {
  let name: StaticString
  var widestAccess: Int { 4 }
  private let channel: IDEChannel

  init(_ name: StaticString, _ channel: IDEChannel) {
    self.name = name
    self.channel = channel
  }

  func read(offset: UInt64, width: Int) -> UInt64 {
    if offset == 0 { return channel.readData(width: width) }
    return assembled(width) { UInt64(channel.read((offset &+ $0) & 7)) }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    if offset == 0 { return channel.writeData(value, width: width) }
    forEachByte(value, width) { channel.write((offset &+ $0) & 7, $1) }
  }

  func read(offset: UInt64, width: Int, into bytes: inout MutableSpan<UInt8>) {
    if offset == 0 {
      channel.readData(into: &bytes, width: width)
    } else {
      readOneByOne(offset: offset, width: width, into: &bytes)
    }
  }

  func write(offset: UInt64, width: Int, bytes: Span<UInt8>) {
    if offset == 0 {
      channel.writeData(bytes, width: width)
    } else {
      writeOneByOne(offset: offset, width: width, bytes: bytes)
    }
  }
}

/// A channel's Control Block, of which one port is left: Alternate Status and Device Control.
final class IDEControlBlock: Device {
  let name: StaticString
  private let channel: IDEChannel

  init(_ name: StaticString, _ channel: IDEChannel) {
    self.name = name
    self.channel = channel
  }

  func read(offset: UInt64, width: Int) -> UInt64 { UInt64(channel.readAlternateStatus()) }

  func write(offset: UInt64, width: Int, value: UInt64) {
    channel.writeControl(UInt8(truncatingIfNeeded: value))
  }
}

/// The bus master's sixteen ports: eight for each channel.
final class IDEBusMasterBlock: Device {
  let name: StaticString = "ide-dma"
  var widestAccess: Int { 4 }
  private let channels: [IDEChannel]

  init(_ channels: [IDEChannel]) { self.channels = channels }

  func read(offset: UInt64, width: Int) -> UInt64 {
    assembled(width) { index in
      let place = offset &+ index
      return UInt64(channel(place).readBusMaster(place & 7))
    }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    forEachByte(value, width) { index, byte in
      let place = offset &+ index
      channel(place).writeBusMaster(place & 7, byte)
    }
  }

  private func channel(_ place: UInt64) -> IDEChannel { channels[place & 8 == 0 ? 0 : 1] }
}

// Registers of a byte, answered one by one from the lowest.

private func assembled(_ width: Int, _ byte: (UInt64) -> UInt64) -> UInt64 {
  var value: UInt64 = 0
  for index in 0..<UInt64(width) { value |= byte(index) << (index * 8) }
  return value
}

private func forEachByte(_ value: UInt64, _ width: Int, _ body: (UInt64, UInt8) -> Void) {
  for index in 0..<UInt64(width) { body(index, UInt8(truncatingIfNeeded: value >> (index * 8))) }
}
