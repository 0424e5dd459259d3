/// What kind of image a guest comes as, found from its bytes.
package enum ImageFormat: Sendable, CaseIterable {
  /// A Linux kernel for the Linux boot protocol.
  case bzImage
  /// A Linux kernel as the linker made it: an ELF executable with Linux's notes.
  case vmlinux
  /// An ELF executable with a note that names its PVH entry point.
  case pvh
  /// An image with a Multiboot (version 1) header, mostly an ELF executable.
  case multiboot
  /// Any other ELF executable of 32 bits.
  case elf32
  /// Any other ELF executable of 64 bits.
  case elf64
  /// 512 bytes ending 55 AA.
  case bootSector
  /// Bare instructions and data.
  case flat
  /// A ROM image with a PC's firmware; never found from the bytes.
  case firmware

  /// Finds the format of `image`, which messages call `name`.
  ///
  /// Throws for an image that is empty or a damaged ELF file, and for files that are known and no guest
  /// at all, such as a compressed one.
  package init(of image: [UInt8], name: String) throws(BootError) {
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
    } else if MultibootHeader(in: image) != nil {
      self = .multiboot
    } else {
      try MultibootHeader.refuseVersion2(image)
      self = .flat
    }
  }
}

extension ImageFormat: CustomStringConvertible {
  /// The format in words that follow "is", such as "a boot sector".
  package var description: String {
    switch self {
    case .bzImage: "a Linux kernel (bzImage)"
    case .vmlinux: "an unpacked Linux kernel (vmlinux)"
    case .pvh: "an ELF image with a PVH note"
    case .multiboot: "a Multiboot kernel"
    case .elf32: "a 32-bit ELF image"
    case .elf64: "a 64-bit ELF image"
    case .bootSector: "a boot sector"
    case .flat: "a flat image"
    case .firmware: "firmware"
    }
  }
}

extension ELF {
  /// Which of the ELF formats this is: what a kernel's makers ask for comes before the plain entry.
  ///
  /// Where a kernel asks for several, PVH is for 64-bit kernels, which have Multiboot at most for
  /// old loaders' sake; 32-bit ones with both, such as Xen itself, take PVH for a sign that Xen
  /// started them.
  fileprivate func format(of image: Image) throws(BootError) -> ImageFormat {
    let hasMultiboot = MultibootHeader(in: image) != nil
    if hasMultiboot && !is64Bit { return .multiboot }
    if note(owner: "Xen", type: Self.pvhEntryNote, in: image) != nil { return .pvh }
    if hasMultiboot { return .multiboot }
    if note(owner: "Linux", in: image) != nil { return .vmlinux }
    try MultibootHeader.refuseVersion2(image)
    return is64Bit ? .elf64 : .elf32
  }
}

extension ImageFormat {
  /// Whether the image is a Linux kernel, or is started like one, and so reads Linux's command line.
  package var isLinux: Bool { self == .bzImage || self == .vmlinux }
}
