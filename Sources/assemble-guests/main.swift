// assemble-guests: turns guest-asm/*.S into one Swift file for the target Guests.
//
//   assemble-guests --clang PATH --linker PATH --include DIR --work DIR --output FILE.swift GUEST.S...
//
// The plugin AssembleGuests runs it while building. scripts/guest does the same for one guest of
// your own: keep the two in step.

import Glibc

/// How one guest is assembled and linked.
private struct Assembler {
  var clang: String
  var linker: String
  var include: String
  var work: String

  /// The image of the guest at `path`.
  func image(of path: String, _ header: Header) throws(Failure) -> [UInt8] {
    let object = "\(work)/\(header.name).o"
    let image = "\(work)/\(header.name).bin"
    let (target, emulation) =
      switch header.mode {
      case .real, .protected: ("i386-unknown-none-elf", "elf_i386")
      case .long: ("x86_64-unknown-none-elf", "elf_x86_64")
      case .riscv64: ("riscv64-unknown-none-elf", "elf64lriscv")
      case .armv7: ("armv7a-none-eabi", "armelf_linux_eabi")
      }
    try run(
      clang,
      [
        "--target=\(target)", "-c", "-I", include,
        "-DOPERATIONS=\(header.operations ?? 0)", "-o", object, path,
      ])
    let (base, isFlat) =
      switch header.format {
      case .flat: (Self.flatBase(header.mode), true)
      case .bootSector: ("0x7C00", true)
      case .elf32, .elf64: ("0x100000", false)
      }
    try run(
      linker,
      [
        "-m", emulation, "--nmagic", "--strip-all",
        "-T", "\(include)/guest.ld", "--defsym=BASE=\(base)",
      ] + (isFlat ? ["--oformat=binary"] : []) + ["-o", image, object])
    return try readFile(image)
  }

  /// Where a flat image is linked; for other processors, in the RAM of QEMU's machines `virt`.
  private static func flatBase(_ mode: Header.Mode) -> String {
    switch mode {
    case .real: "0"
    case .protected, .long: "0x10000"
    case .riscv64: "0x80000000"
    case .armv7: "0x40200000"
    }
  }
}

/// What the guest at `path` says about itself.
private func readHeader(_ path: String) throws(Failure) -> Header {
  let source = String(decoding: try readFile(path), as: UTF8.self)
  let name = (path.split(separator: "/").last ?? "").dropLast(".S".count)
  do {
    return try Header(name: String(name), source: source)
  } catch {
    throw Failure(message: "\(path):\(error.line): error: \(error.message)")
  }
}

/// `text` as a Swift string literal.
private func literal(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars { result += scalar.escaped(asASCII: true) }
  return result + "\""
}

/// The Swift expression that makes one guest.
private func expression(_ header: Header, _ image: [UInt8]) -> String {
  let pieces = header.expect.map {
    switch $0 {
    case .text(let text): ".text(\(literal(text)))"
    case .digits(let count): ".digits(\(count))"
    }
  }
  return """
        Guest(
          name: \(literal(header.name)),
          summary: \(literal(header.summary)),
          mode: .\(header.mode),
          format: .\(header.format),
          cpus: \(header.cpus),
          options: [\(header.options.map(literal).joined(separator: ", "))],
          diskSize: \(header.disk.map(String.init) ?? "nil"),
          inputText: \(literal(header.input)),
          expectedOutput: OutputPattern([\(pieces.joined(separator: ", "))]),
          expectedStatus: \(header.status),
          operations: \(header.operations.map(String.init) ?? "nil"),
          experiment: \(header.experiment.map(literal) ?? "nil"),
          hex: \(literal(hex(image))))
    """
}

private func hex(_ image: [UInt8]) -> String {
  let digits = Array("0123456789abcdef".utf8)
  return String(
    decoding: image.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}

private func main() throws(Failure) {
  var options: [String: String] = [:]
  var sources: [String] = []
  var words = CommandLine.arguments.dropFirst()
  while let word = words.popFirst() {
    if word.hasPrefix("--") { options[word] = words.popFirst() } else { sources.append(word) }
  }
  guard let clang = options["--clang"], let linker = options["--linker"],
    let include = options["--include"], let work = options["--work"],
    let output = options["--output"]
  else {
    throw Failure(message: "wanted: --clang --linker --include --work --output and the guests")
  }
  let assembler = Assembler(clang: clang, linker: linker, include: include, work: work)

  var guests: [String] = []
  var guestsOfLab: [String] = []
  var foreign: [String] = []
  for path in sources {
    let header = try readHeader(path)
    let image = try assembler.image(of: path, header)
    guard header.mode.isX86 else {
      foreign.append("    \(literal(header.name)): \(literal(hex(image)))")
      continue
    }
    let guest = expression(header, image)
    if header.experiment == nil { guests.append(guest) } else { guestsOfLab.append(guest) }
  }
  try writeFile(
    output,
    """
    // Written by assemble-guests from guest-asm/*.S while building.

    import Boot

    extension Guest {
      /// The built-in guests, in the order of their names.
      public static let all: [Guest] = [
    \(guests.joined(separator: ",\n"))
      ]

      /// The guests of the lab's experiments, in the order of their names.
      public static let lab: [Guest] = [
    \(guestsOfLab.joined(separator: ",\n"))
      ]

      /// The lab's images for other processors than x86, in hexadecimal digits, by name.
      static let foreign: [String: String] = [
    \(foreign.joined(separator: ",\n"))
      ]
    }

    """)
}

do {
  try main()
} catch {
  complain(error.message)
  exit(1)
}
