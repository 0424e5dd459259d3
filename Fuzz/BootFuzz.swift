import Boot
import Memory

/// Feeds `BootPlan` with arbitrary bytes and checks what it promises of every plan.
///
/// The input: a byte of choices, a byte for the RAM's size, two bytes for the initrd's length, and
/// then the image. The initrd and the command line are all of one byte: nothing reads them.
@_cdecl("LLVMFuzzerTestOneInput")
public func bootFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard input.count > 4 else { return 0 }
  let choices = input[0]
  let ram = sizes[Int(input[1]) % sizes.count]
  let image = Array(input[4...])
  let initrd = [UInt8](repeating: 1, count: Int(input[2]) << 4)
  let text = String(repeating: "x", count: Int(input[3]) << 2)
  let options = BootOptions(
    mode: choices & 8 == 0 ? nil : CPUMode.allCases[Int(choices >> 4) % 3],
    initrds: choices & 1 == 0 ? [] : [BootFile(initrd, name: "initrd")],
    commandLine: choices & 2 == 0 ? nil : text)
  let tables =
    choices & 4 == 0
    ? nil : FirmwareRoom(acpi: 0xE_0000..<0xE_3000, mp: 0xF_C000..<0xF_E000)
  do throws(BootError) {
    let plan = try BootPlan(
      image: image, name: "image", options: options, layout: layout, ramSize: ram, tables: tables)
    check(plan, ram: ram)
  } catch {
    // Whatever is wrong, it is said about something, and with what to do.
    let message = error.description
    let isAboutAFile = message.hasPrefix("image") || message.hasPrefix("initrd")
    precondition(isAboutAFile && message.utf8.count > 30, message)
  }
  if let plan = try? BootPlan(firmware: BootFile(image, name: "image"), ramSize: ram) {
    check(plan, ram: ram)
  }
  return 0
}

private let sizes: [UInt64] = [
  4096, 64 << 10, 1 << 20, 3 << 20, 128 << 20, 3 << 30, 5 << 30, GuestMemory.largestSize,
]

private let layout = BootLayout(
  flatImage: 0x10000, bootSector: 0x7C00, descriptorTable: 0x500, pageTables: 0x1000,
  stackTop: 0x10000, information: 0x3000..<0x9F000, reserved: [.reserved(0xFEC0_0000..<0x1_0000_0000)])

/// Traps unless all pieces are in RAM, none overlap, and the guest starts in one of them or in ROM.
private func check(_ plan: BootPlan, ram: UInt64) {
  let hole = GuestMemory.holeStart..<GuestMemory.holeEnd
  let lowEnd = min(ram, hole.lowerBound)
  let highEnd = hole.upperBound + (ram - lowEnd)
  var ranges: [Range<UInt64>] = []
  for piece in plan.pieces {
    let range = piece.start.value..<piece.start.value + piece.size
    precondition(
      range.upperBound <= lowEnd
        || range.lowerBound >= hole.upperBound && range.upperBound <= highEnd, piece.what)
    precondition(UInt64(piece.contents.count) <= piece.size, piece.what)
    precondition(range.lowerBound >= ranges.last?.upperBound ?? 0, piece.what)
    ranges.append(range)
  }
  if let tables = plan.tables {
    for range in [tables.acpi, tables.mp] {
      precondition(MemoryMap.firmware.contains(range) && range.upperBound <= lowEnd, "tables")
      precondition(!ranges.contains { $0.overlaps(range) }, "tables")
    }
    precondition(!tables.acpi.overlaps(tables.mp), "tables")
  }
  ranges += plan.roms.map { $0.start.value..<$0.start.value + UInt64($0.contents.count) }
  let entry = plan.entry
  precondition(ranges.contains { $0.contains(entry.code.base + entry.instructionPointer) }, "entry")
  for pointer in [entry.rsi, entry.rbx] where pointer != 0 {
    precondition(ranges.contains { $0.contains(pointer) }, "pointer")
  }
}
