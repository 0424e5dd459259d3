import Host
import Memory

extension BootPlan {
  /// A kernel for a Multiboot loader (Multiboot 0.6.96): in protected mode, with EBX leading to the
  /// Multiboot information.
  ///
  /// 64-bit ELF files start in protected mode too, as with GRUB: their first code is of 32 bits.
  static func multiboot(_ request: BootRequest) throws(BootError) -> BootPlan {
    let image = request.image
    try request.requireOwn(mode: .protected)
    var placement = Placement(
      request, overlap: .malformed, remedy: "link it elsewhere, as with -Ttext=0x100000")
    let entry = try placement.placeMultibootImage(image)
    let tables = try placement.placeTables(request)
    try placement.placeVectors()
    let stack = try placement.reserveStack()
    var modules: [Range<UInt64>] = []
    for file in request.options.initrds { modules.append(try placement.placeModule(file)) }
    let info = try MultibootInfo(request, modules: modules)
    let address = try placement.placeInformation("the Multiboot information", size: info.size) {
      info.bytes(at: $0)
    }
    return BootPlan(
      format: request.format, pieces: placement.pieces,
      entry: .kernel(at: entry, rax: 0x2BAD_B002, rbx: address, stackTop: stack), tables: tables)
  }
}

extension Placement {
  /// Places the image as its header or its ELF program headers say, and returns its entry point.
  fileprivate mutating func placeMultibootImage(_ image: Image) throws(BootError) -> UInt64 {
    guard let header = MultibootHeader(in: image) else {
      throw image.error(.malformed, "has no Multiboot header")
    }
    try header.requireKnownFlags(image)
    if header.hasAddresses {
      let addresses = try MultibootAddresses(header, in: image)
      try place("the image", addresses.contents, size: addresses.size, at: addresses.load)
      return addresses.entry
    }
    guard image.has(ELF.magic) else {
      throw image.error(
        .malformed,
        "has a Multiboot header but is no ELF file, and the header doesn't say where it goes (flag "
          + "16): make it an ELF file or add the addresses")
    }
    let elf = try ELF(image)
    let segments = try elf.loadableSegments(of: image)
    let entry = try elf.physicalEntry(in: segments, image)
    try place(segments)
    return entry
  }
}
