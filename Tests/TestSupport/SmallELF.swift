/// A 64-bit ELF file with `code` at 1 MiB, where it starts: a guest in long mode that is told of the
/// machine by ACPI tables, as flat ones aren't.
package func smallELF(_ code: [UInt8]) -> [UInt8] {
  func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
  }
  let start: UInt64 = 0x10_0000
  // Class, byte order and version; type, machine, version, entry; program headers behind it.
  var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + bytes(0, 9)
  file += bytes(2, 2) + bytes(62, 2) + bytes(1, 4) + bytes(start, 8) + bytes(64, 8) + bytes(0, 8)
  file += bytes(0, 4) + bytes(64, 2) + bytes(56, 2) + bytes(1, 2) + bytes(0, 6)
  // PT_LOAD, readable, writable and executable; offset, addresses, sizes, alignment.
  file += bytes(1, 4) + bytes(7, 4) + bytes(120, 8) + bytes(start, 8) + bytes(start, 8)
  file += bytes(UInt64(code.count), 8) + bytes(UInt64(code.count), 8) + bytes(0x1000, 8)
  return file + code
}

/// A guest, as ELF, that prints `!`, waits for the event which tells of a new generation ID, and then prints
/// that (16 bytes) and the events' status (a zero) before it halts. It tries to write to the ID first.
package let generationGuest = smallELF([
  0xB0, 0x21,  //                    00: mov al,0x21
  0xE6, 0xE9,  //                    02: out 0xe9,al
  0x66, 0xBA, 0x0C, 0x06,  //        04: mov dx,0x60c
  0xEC,  //                          08: in al,dx
  0xA8, 0x20,  //                    09: test al,0x20
  0x74, 0xFB,  //                    0b: je 0x8
  0xEE,  //                          0d: out dx,al
  0xBE, 0x00, 0xB0, 0xFF, 0xFE,  //  0e: mov esi,0xfeffb000
  0xC6, 0x06, 0x05,  //              13: mov BYTE PTR [rsi],0x5
  0xB9, 0x10, 0x00, 0x00, 0x00,  //  16: mov ecx,0x10
  0xAC,  //                          1b: lodsb
  0xE6, 0xE9,  //                    1c: out 0xe9,al
  0xE2, 0xFB,  //                    1e: loop 0x1b
  0xEC,  //                          20: in al,dx
  0xE6, 0xE9,  //                    21: out 0xe9,al
  0xFA,  //                          23: cli
  0xF4,  //                          24: hlt
])
