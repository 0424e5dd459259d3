/// A file that people take for an image and that can't be one, with what they want instead.
struct ForeignFormat {
  let what: String
  let remedy: String

  init?(of image: Image) {
    guard let found = Self.magics.first(where: { image.has($0.magic, at: $0.offset) }) else {
      guard Self.isPE(image) else { return nil }
      self.init(
        "a Windows or EFI program (PE)", "kvmlite has no Windows and no EFI; make it a flat image")
      return
    }
    self = found.format
  }

  private init(_ what: String, _ remedy: String) {
    self.what = what
    self.remedy = remedy
  }

  private static func text(_ magic: String) -> [UInt8] { Array(magic.utf8) }

  private static let magics: [(magic: [UInt8], offset: Int, format: ForeignFormat)] = [
    // 08 is deflate, the only method there is (RFC 1952, 2.3.1).
    ([0x1F, 0x8B, 0x08], 0, compressed("gzip", "gunzip")),
    ([0xFD] + text("7zXZ") + [0], 0, compressed("xz", "unxz")),
    ([0x28, 0xB5, 0x2F, 0xFD], 0, compressed("zstd", "unzstd")),
    (text("CD001"), 0x8001, ForeignFormat("an ISO 9660 CD image", "boot the kernel inside it")),
    (text("QFI") + [0xFB], 0, ForeignFormat("a qcow2 disk", "boot the kernel inside it")),
    (text("#!"), 0, ForeignFormat("a script", "give the image that the script makes or starts")),
    (text("070701"), 0, ForeignFormat("a cpio archive (initrd)", "give the kernel as the image")),
    (text("!<arch>\n"), 0, ForeignFormat("a static library", "link a program with it")),
    // The 64-bit little-endian kind and the universal one.
    ([0xCF, 0xFA, 0xED, 0xFE], 0, machO), ([0xCA, 0xFE, 0xBA, 0xBE], 0, machO),
    // Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image".
    (text("ARM") + [0x64], 56, ForeignFormat("a Linux kernel for AArch64", "take one for x86-64")),
  ]

  private static let machO = ForeignFormat(
    "a macOS program (Mach-O)", "build for ELF, as with --target=x86_64-unknown-none-elf")

  private static func compressed(_ how: String, _ tool: String) -> ForeignFormat {
    ForeignFormat("a file compressed with \(how)", "unpack it with \(tool) and give the result")
  }

  /// A DOS header whose e_lfanew leads to the signature of a PE header (PE format, "Signature").
  private static func isPE(_ image: Image) -> Bool {
    guard image.has(text("MZ")), let header = image.load(0x3C, as: UInt32.self) else {
      return false
    }
    return image.has(text("PE") + [0, 0], at: Int(header))
  }
}
