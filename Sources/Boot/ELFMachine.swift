import Host

/// The processor an ELF file is for (e_machine).
struct ELFMachine {
  static let remedy = "kvmlite runs x86 guests: build it for x86-64 or i386"

  let number: UInt16

  init(_ number: UInt16) { self.number = number }

  var name: String {
    switch number {
    case 3: "i386"
    case 62: "x86-64"
    case 2, 43: "SPARC"
    case 8: "MIPS"
    case 20: "PowerPC"
    case 21: "64-bit PowerPC"
    case 22: "IBM Z (s390)"
    case 40: "ARM"
    case 183: "AArch64"
    case 243: "RISC-V"
    case 258: "LoongArch"
    default: "machine \(number) (e_machine)"
    }
  }

  /// Refuses other processors, and the mixtures of the two x86 that no mode runs as they are.
  func requireX86(is64Bit: Bool, _ image: Image) throws(BootError) {
    switch (number, is64Bit) {
    case (3, false), (62, true): return
    case (62, false):
      throw image.error(
        .unsupported,
        "is a 32-bit ELF file for x86-64 (x32), which doesn't say whether it starts in protected or "
          + "long mode: link it with -m elf_i386 or with -m elf_x86_64")
    case (3, true):
      throw image.error(
        .malformed,
        "is a 64-bit ELF file for i386, which can't be: build it again, for x86-64 or i386")
    default:
      throw image.error(.unsupported, "is an ELF file for \(name); \(Self.remedy)")
    }
  }
}
