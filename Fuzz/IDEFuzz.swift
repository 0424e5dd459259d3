import Devices
import Host
import Memory
import Storage

/// Lets a guest that does what the input says at an IDE controller with two disks, and checks that it
/// can be reset to life afterwards.
///
/// The input is a list of steps of four bytes: what to do, where, and a value of two bytes.
@_cdecl("LLVMFuzzerTestOneInput")
public func ideFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard let memory = try? GuestMemory(ramSize: 1 << 20),
    let controller = try? IDEController(
      [.init(Disk(sectors: 300), serial: "A"), .init(Disk(sectors: 40), serial: "B")],
      lines: (Line(), Line()), memory: memory, mayMaster: { true })
  else { return 0 }
  defer { controller.stop() }
  let guest = Guest(
    command: controller.commandBlocks[0], control: controller.controlBlocks[0],
    busMaster: controller.busMaster, memory: memory)
  for step in stride(from: 0, to: input.count - 3, by: 4) {
    guest.step(input[step], input[step + 1], UInt64(input[step + 2]) | UInt64(input[step + 3]) << 8)
  }
  guest.control.write(offset: 0, width: 1, value: 4)
  guest.control.write(offset: 0, width: 1, value: 0)
  guest.settle()
  guest.command.write(offset: 7, width: 1, value: 0xEC)
  precondition(guest.command.read(offset: 7, width: 1) == 0x58, "no IDENTIFY after a reset")
  return 0
}

private struct Guest {
  let command: any Device
  let control: any Device
  let busMaster: any Device
  let memory: GuestMemory

  func step(_ what: UInt8, _ place: UInt8, _ value: UInt64) {
    let width = 1 << Int((place >> 6 & 1) + (place >> 7))
    let offset = UInt64(place & 7)
    switch what & 7 {
    case 0: command.write(offset: offset, width: offset == 0 ? width : 1, value: value & 0xFF)
    case 1: command.write(offset: 7, width: 1, value: value & 0xFF)
    case 2: _ = command.read(offset: offset, width: width)
    case 3: control.write(offset: 0, width: 1, value: value & 0xFF)
    case 4: busMaster.write(offset: UInt64(place & 15), width: width, value: value)
    case 5:
      // A region of the table at 4096 and what follows it.
      if let view = try? memory.view(at: GuestAddress(4096 + UInt64(place) * 4), count: 4) {
        view.store(
          UInt32(value) << (what & 0x80 == 0 ? 4 : 16) | UInt32(what) << 24 & 0x8000_0000, 0)
      }
    case 6:
      var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: value), count: 512)
      if value & 1 == 0 {
        command.write(offset: 0, width: width, bytes: bytes.span)
      } else {
        var span = bytes.mutableSpan
        command.read(offset: 0, width: width, into: &span)
      }
    default: settle()
    }
  }

  func settle() {
    while control.read(offset: 0, width: 1) & 0x80 != 0 {
      guard control.read(offset: 0, width: 1) != 0x7F else { return }
      // In reset nothing ends until the guest says so.
      control.write(offset: 0, width: 1, value: 2)
    }
  }
}

private final class Line: InterruptLine {
  func set(_ isRaised: Bool) {}
}

/// A disk without contents that checks what it is asked for, and fails at every seventh sector.
private final class Disk: BlockStore {
  let size: UInt64
  var isReadOnly: Bool { false }

  init(sectors: UInt64) { size = sectors * 512 }

  private func check(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    precondition(count <= size && offset <= size - count, "beyond the end")
    precondition(offset % 512 == 0 && count % 512 == 0, "not of sectors")
    for sector in offset / 512..<(offset + count) / 512 where sector % 7 == 6 {
      throw .host(.inputOutput)
    }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try check(offset, UInt64(segments.byteCount))
    for segment in segments { segment.zero(0, count: segment.count) }
  }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try check(offset, UInt64(segments.byteCount))
  }
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) { try check(offset, count) }
}
