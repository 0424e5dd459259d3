import Host

/// A file that people take for an image and that can't be one, with what they want instead.
struct ForeignFormat {
  let what: String
  let remedy: Advice

  init?(of image: Image) {
    if let found = Self.magics.first(where: { image.has($0.magic, at: $0.offset) }) {
      self = found.format
    } else if Self.isPE(image) {
      self.init(
        "a Windows or EFI program (PE)", "kvmlite has no Windows and no EFI; make it a flat image")
    } else if image.has([0x55, 0xAA], at: 0x1FE), image.count > 512 {
      self.init(
        "a bootable disk",
        "start it with a PC's firmware, such as \(.firmware, "bios.bin") with \(.disk, image.name); its first "
          + "512 bytes alone run as a boot sector (head -c 512)")
    } else if Self.isText(image.bytes.prefix(4096)) {
      self.init("a text file", "assemble or compile it; scripts/guest makes an image of a .S file")
    } else {
      return nil
    }
  }

  private init(_ what: String, _ remedy: Advice) {
    self.what = what
    self.remedy = remedy
  }

  private static func text(_ magic: String) -> [UInt8] { Array(magic.utf8) }

  private static let magics: [(magic: [UInt8], offset: Int, format: ForeignFormat)] = [
    // 08 is deflate, the only method there is (RFC 1952, 2.3.1).
    ([0x1F, 0x8B, 0x08], 0, compressed("gzip", "gunzip")),
    ([0xFD] + text("7zXZ") + [0], 0, compressed("xz", "unxz")),
    ([0x28, 0xB5, 0x2F, 0xFD], 0, compressed("zstd", "unzstd")),
    (text("BZh"), 0, compressed("bzip2", "bunzip2")),
    ([0x04, 0x22, 0x4D, 0x18], 0, compressed("lz4", "unlz4")),
    ([0x02, 0x21, 0x4C, 0x18], 0, compressed("lz4", "unlz4")),
    (text("CD001"), 0x8001, ForeignFormat("an ISO 9660 CD image", "boot the kernel inside it")),
    (text("QFI") + [0xFB], 0, disk("qcow2")), (text("KDMV"), 0, disk("VMDK")),
    (text("conectix"), 0, disk("VHD")), (text("vhdxfile"), 0, disk("VHDX")),
    (text("QED\0"), 0, disk("QED")), ([0x7F, 0x10, 0xDA, 0xBE], 64, disk("VDI")),
    (text("#!"), 0, ForeignFormat("a script", "give the image that the script makes or starts")),
    (text("070701"), 0, ForeignFormat("a cpio archive (initrd)", "give the kernel as the image")),
    (text("!<arch>\n"), 0, ForeignFormat("a static library", "link a program with it")),
    // The 64-bit little-endian kind and the universal one.
    ([0xCF, 0xFA, 0xED, 0xFE], 0, machO), ([0xCA, 0xFE, 0xBA, 0xBE], 0, machO),
    // Linux, drivers/firmware/efi/libstub/zboot-header.S; no x86 kernel is built so.
    (text("zimg"), 4, kernel("an EFI zboot image of another processor")),
    // Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image".
    (text("ARM") + [0x64], 56, kernel("for AArch64")),
    // Linux, Documentation/arch/riscv/boot-image-header.rst.
    (text("RSC") + [5], 56, kernel("for RISC-V")),
    // Linux, arch/arm/boot/compressed/head.S: a zImage.
    ([0x18, 0x28, 0x6F, 0x01], 36, kernel("for ARM")),
    // U-Boot, include/image.h: IH_MAGIC.
    ([0x27, 0x05, 0x19, 0x56], 0, ForeignFormat("a U-Boot image", "give the kernel inside it")),
  ]

  private static let machO = ForeignFormat(
    "a macOS program (Mach-O)", "build for ELF, as with --target=x86_64-unknown-none-elf")

  private static func disk(_ format: String) -> ForeignFormat {
    ForeignFormat("a \(format) disk", "boot the kernel inside it")
  }

  private static func kernel(_ what: String) -> ForeignFormat {
    ForeignFormat(
      "a Linux kernel \(what)", "take one for x86-64, such as a distribution's /boot/vmlinuz there")
  }

  private static func compressed(_ how: String, _ tool: String) -> ForeignFormat {
    ForeignFormat(
      "a file compressed with \(how)",
      "unpack it with \(tool) and give the result, or for Linux its bzImage (vmlinuz) as it is")
  }

  /// Lines of UTF-8 without control characters but white space.
  private static func isText(_ bytes: ArraySlice<UInt8>) -> Bool {
    // A character may be cut where the bytes end, but not a line.
    guard let last = bytes.lastIndex(of: 0x0A) else { return false }
    return bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7F || (0x09...0x0D).contains($0) }
      && String(validating: bytes[...last], as: UTF8.self) != nil
  }

  /// A DOS header whose e_lfanew leads to the signature of a PE header (PE format, "Signature").
  private static func isPE(_ image: Image) -> Bool {
    guard image.has(text("MZ")), let header = image.load(0x3C, as: UInt32.self) else {
      return false
    }
    return image.has(text("PE") + [0, 0], at: Int(header))
  }
}
