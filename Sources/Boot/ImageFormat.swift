/// What kind of image a guest comes as, found from its bytes.
public enum ImageFormat: Sendable, CaseIterable {
  /// A Linux kernel for the Linux boot protocol.
  case bzImage
  /// An ELF executable with a note that names its PVH entry point.
  case elfPVH
  /// An ELF executable with a Multiboot (version 1) header.
  case elfMultiboot
  /// Any other ELF executable of 32 bits.
  case elf32
  /// Any other ELF executable of 64 bits.
  case elf64
  /// 512 bytes ending 55 AA.
  case bootSector
  /// Bare instructions and data.
  case flat

  /// Finds the format of `image`, which messages call `name`.
  ///
  /// Throws for an image that is empty or a damaged ELF file, and for files that are known and no guest
  /// at all, such as a compressed one.
  public init(of image: [UInt8], name: String) throws(BootError) {
    try self.init(of: Image(bytes: image, name: name))
  }

  init(of image: Image) throws(BootError) {
    guard !image.bytes.isEmpty else {
      throw image.error(.malformed, "is empty: an image has at least one instruction")
    }
    let hasBootSignature = image.has([0x55, 0xAA], at: 0x1FE)
    // Linux boot protocol, "The Real-Mode Kernel Header": boot_flag and header.
    if hasBootSignature && image.has(Array("HdrS".utf8), at: 0x202) {
      self = .bzImage
    } else if image.has(ELF.magic) {
      self = try ELF(image).format(of: image)
    } else if hasBootSignature && image.bytes.count == 512 {
      self = .bootSector
    } else if let foreign = ForeignFormat(of: image) {
      throw image.error(.unsupported, "is \(foreign.what), no guest: \(foreign.remedy)")
    } else {
      self = .flat
    }
  }
}

extension ImageFormat: CustomStringConvertible {
  /// The format in words that follow "is", such as "a boot sector".
  public var description: String {
    switch self {
    case .bzImage: "a Linux kernel (bzImage)"
    case .elfPVH: "an ELF image with a PVH note"
    case .elfMultiboot: "an ELF image with a Multiboot header"
    case .elf32: "a 32-bit ELF image"
    case .elf64: "a 64-bit ELF image"
    case .bootSector: "a boot sector"
    case .flat: "a flat image"
    }
  }
}

extension ELF {
  /// Which of the ELF formats this is: what a kernel's makers ask for comes before the plain entry.
  fileprivate func format(of image: Image) throws(BootError) -> ImageFormat {
    if hasNote(owner: "Xen", type: pvhNoteType, in: image) { return .elfPVH }
    if MultibootHeader.isPresent(in: image) { return .elfMultiboot }
    guard !MultibootHeader.isPresentVersion2(in: image) else {
      throw image.error(
        .unsupported,
        "is an ELF image with a Multiboot2 header, which kvmlite doesn't boot: build it without "
          + "one, to start at its ELF entry point")
    }
    return is64Bit ? .elf64 : .elf32
  }
}
