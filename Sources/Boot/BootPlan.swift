import Host
import Memory

/// What to put where in the guest's memory, and the state its first VCPU starts in.
///
/// Every piece is inside the guest's RAM and none overlap, whatever bytes the image holds.
package struct BootPlan: Sendable {
  /// Bytes for one place in the guest's memory.
  package struct Piece: Equatable, Sendable {
    /// What it is, in words: `segment 1`, `kvmlite's page tables`.
    package let what: String
    /// Where it goes.
    package let start: GuestAddress
    /// How much memory it takes: zeros follow the contents, and fresh memory has them already.
    package let size: UInt64
    /// The bytes, at most `size`.
    package let contents: ArraySlice<UInt8>

    var range: Range<UInt64> { start.value..<start.value + size }
  }

  /// What the image was found to be.
  package let format: ImageFormat
  /// All pieces by rising address.
  package let pieces: [Piece]
  /// What the guest can read but not write, and where, for `GuestMemory`: above RAM.
  package let roms: [(start: GuestAddress, contents: [UInt8])]
  /// Where and how the guest starts.
  package let entry: EntryState
  /// Where the machine is to put firmware's tables; nil for an image that has no use for them or leaves
  /// no room.
  package let tables: FirmwareRoom?

  init(
    format: ImageFormat, pieces: [Piece], roms: [(start: GuestAddress, contents: [UInt8])] = [],
    entry: EntryState, tables: FirmwareRoom? = nil
  ) {
    self.format = format
    self.tables = tables
    self.roms = roms
    self.pieces = pieces.sorted { $0.start < $1.start }
    self.entry = entry
  }

  /// Plans the start of `image`, which messages call `name`, in a guest with `ramSize` bytes of RAM.
  ///
  /// `tables` is where the machine would have firmware's tables; nil for one without. They move out of
  /// the image's way, kernels are told where ACPI's are, and nothing else goes there.
  package init(
    image: [UInt8], name: String, options: BootOptions = BootOptions(), layout: BootLayout,
    ramSize: UInt64, tables: FirmwareRoom? = nil
  ) throws(BootError) {
    let image = Image(bytes: image, name: name)
    let format = try ImageFormat(of: image)
    let request = BootRequest(
      image: image, format: format, options: options, layout: layout, ram: RAM(size: ramSize),
      tables: tables)
    switch format {
    case .flat: self = try .flat(request)
    case .bootSector: self = try .bootSector(request)
    case .elf32, .elf64: self = try .elf(request)
    case .bzImage: self = try .bzImage(request)
    case .vmlinux: self = try .vmlinux(request)
    case .pvh: self = try .pvh(request)
    case .multiboot: self = try .multiboot(request)
    case .firmware:
      self = try BootPlan(firmware: BootFile(image.bytes, name: name), ramSize: ramSize)
    }
  }

  /// Copies all pieces into `memory`, which is fresh: what follows a piece's contents is zero.
  package func load(into memory: GuestMemory) throws(GuestMemory.OutOfBounds) {
    for piece in pieces { try memory.write(piece.contents.span, at: piece.start) }
  }
}

/// All that the planning of one format goes by.
struct BootRequest {
  let image: Image
  let format: ImageFormat
  let options: BootOptions
  let layout: BootLayout
  let ram: RAM
  let tables: FirmwareRoom?

  /// What a kernel is told of its memory.
  var memoryMap: MemoryMap { MemoryMap(ramSize: ram.size, reserved: layout.reserved) }

  /// Refuses options that contradict a format which starts in `mode` at a place of its own.
  func requireOwn(mode: CPUMode) throws(BootError) {
    if let asked = options.mode, asked != mode {
      throw image.error(
        .options,
        about: "\(.mode, asked.rawValue) contradicts the image, which is \(format) and starts in "
          + "\(mode.rawValue) mode: leave \(.mode) out")
    }
    if let address = options.loadAddress {
      throw image.error(
        .options,
        about:
          "\(.loadAddress, "\(address)") is for flat images; this is \(format), which has its own place: "
          + "leave \(.loadAddress) out")
    }
  }

  /// Refuses what only a kernel's boot protocol has a place for.
  func requireNothingToTell() throws(BootError) {
    let setting: Advice.Term? =
      if !options.initrds.isEmpty { .initrds } else if options.commandLine != nil {
        .append
      } else {
        nil
      }
    if let setting {
      throw image.error(
        .options,
        about: "\(setting) is for Linux, PVH and Multiboot kernels; this is \(format), which would "
          + "never learn of it: leave \(setting) out")
    }
  }
}
