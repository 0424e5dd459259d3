import Foundation

/// A directory for one test, which is removed after it.
final class Scratch {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.appending(path: "kvmlite-\(UUID())").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// Writes a file and returns its path.
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let path = path + "/" + name
    try Data(bytes).write(to: URL(filePath: path))
    return path
  }

  /// The names of the files in it.
  var names: [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: path))?.sorted() ?? []
  }
}

/// Small guests: flat ones in real mode, if nothing else is said.
enum Image {
  /// Writes `!` to the debug console and jumps to itself.
  static let spin: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xEB, 0xFE,  // 04: jmp 0x4
  ]

  /// Prints all bytes by falling values, from 0 on, again and again.
  static let counting: [UInt8] = [
    0xB9, 0x00, 0x00,  // 00: mov cx,0x0
    0x88, 0xC8,  //       03: mov al,cl
    0xE6, 0xE9,  //       05: out 0xe9,al
    0x49,  //             07: dec cx
    0xEB, 0xF9,  //       08: jmp 0x3
  ]

  /// The first byte of what that has printed which isn't what it prints, if there is one.
  static func firstWrong(inCounting output: [UInt8]) -> Int? {
    output.indices.first { output[$0] != 0 &- UInt8(truncatingIfNeeded: $0) }
  }

  /// A Multiboot kernel that jumps to itself (Multiboot 0.6.96, 3.1).
  static let multibootSpin: [UInt8] =
    [0x1BAD_B002, 1 << 16, 0 &- 0x1BAD_B002 &- (1 << 16)].littleEndianBytes
    // Loaded from the header on, at 1 MiB; the code is behind the header.
    + [0x10_0000, 0x10_0000, 0x10_0024, 0x10_0024, 0x10_0020].littleEndianBytes
    + [
      0xEB, 0xFE,  // 20: jmp 0x20
      0x90, 0x90,
    ]

  /// A Linux kernel by its header (Linux boot protocol 2.15) that jumps to itself.
  static let linuxSpin: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 512 * 2) + [UInt8](repeating: 0x90, count: 4096)
    func put(_ field: [UInt8], _ offset: Int) {
      bytes.replaceSubrange(offset..<offset + field.count, with: field)
    }
    put([1], 0x1F1)  // setup_sects
    put([0, 1, 0, 0], 0x1F4)  // syssize, in paragraphs
    put([0x55, 0xAA, 0xEB, 0x6A], 0x1FE)
    put(Array("HdrS".utf8) + [0x0F, 0x02], 0x202)
    put([0x01], 0x211)  // loadflags: LOADED_HIGH
    put([0, 0, 0x10, 0], 0x214)  // code32_start
    put([0xFF, 0xFF, 0xFF, 0x7F], 0x22C)  // initrd_addr_max
    put([0, 0, 0x20, 0, 1, 0, 0x03], 0x230)  // kernel_alignment, relocatable, xloadflags
    put([0, 8, 0, 0], 0x238)  // cmdline_size
    put([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0], 0x258)  // pref_address, init_size
    // The entry for 64-bit mode: jmp to itself.
    put([0xEB, 0xFE], 1024 + 0x200)
    return bytes
  }()

  /// Writes `!` and sleeps with interrupts on.
  static let idle: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xFB,  //       04: sti
    0xF4,  //       05: hlt
    0xEB, 0xFD,  // 06: jmp 0x5
  ]

  /// Writes `!` again and again.
  static let chatter: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xEB, 0xFA,  // 04: jmp 0x0
  ]

  /// Leaves through the exit port with 0x21.
  static let exit: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xF4,  // 02: out 0xf4,al
    0xF4,  //       04: hlt
  ]

  /// Writes each byte that it reads from COM1 to the debug console: an `r` resets the machine, any
  /// other byte ends the run.
  static let resetByInput: [UInt8] = [
    0xBA, 0xFD, 0x03,  // 00: mov dx,0x3fd
    0xEC,  //             03: in al,dx
    0xA8, 0x01,  //       04: test al,0x1
    0x74, 0xFB,  //       06: je 0x3
    0xBA, 0xF8, 0x03,  // 08: mov dx,0x3f8
    0xEC,  //             0b: in al,dx
    0xE6, 0xE9,  //       0c: out 0xe9,al
    0x3C, 0x72,  //       0e: cmp al,0x72
    0x75, 0x04,  //       10: jne 0x16
    0xB0, 0xFE,  //       12: mov al,0xfe
    0xE6, 0x64,  //       14: out 0x64,al
    0xFA,  //             16: cli
    0xF4,  //             17: hlt
  ]

  /// Copies COM1 to the debug console, slowly, until a zero byte.
  static let slowCopy: [UInt8] = [
    0xBA, 0xFD, 0x03,  // 00: mov dx,0x3fd
    0xEC,  //             03: in al,dx
    0xA8, 0x01,  //       04: test al,0x1
    0x74, 0xFB,  //       06: je 0x3
    0xBA, 0xF8, 0x03,  // 08: mov dx,0x3f8
    0xEC,  //             0b: in al,dx
    0x84, 0xC0,  //       0c: test al,al
    0x74, 0x04,  //       0e: je 0x14
    0xE6, 0xE9,  //       10: out 0xe9,al
    0xEB, 0xEC,  //       12: jmp 0x0
    0xFA,  //             14: cli
    0xF4,  //             15: hlt
  ]

  /// Jumps to an address without memory: no KVM can fetch from there.
  static let stray: [UInt8] = [
    0xB0, 0x21,  //                   00: mov al,0x21
    0xE6, 0xE9,  //                   02: out 0xe9,al
    0xB8, 0x00, 0x00, 0x00, 0xD0,  // 04: mov eax,0xd0000000
    0xFF, 0xE0,  //                   09: jmp eax
  ]
}

extension [UInt32] {
  fileprivate var littleEndianBytes: [UInt8] {
    flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
  }
}
