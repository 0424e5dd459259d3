import Host

/// The setup header of a Linux kernel (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode
/// Kernel Header"), checked as far as it must be before its fields mean anything.
struct SetupHeader {
  /// Where the fields are, in the file and in boot_params alike, by the names they have there.
  enum Offset {
    static let setupSects = 0x1F1
    static let syssize = 0x1F4
    static let videoMode = 0x1FA
    static let bootFlag = 0x1FE
    static let jump = 0x200
    static let header = 0x202
    static let version = 0x206
    static let typeOfLoader = 0x210
    static let loadflags = 0x211
    static let code32Start = 0x214
    static let ramdiskImage = 0x218
    static let ramdiskSize = 0x21C
    static let extLoaderVersion = 0x226
    static let extLoaderType = 0x227
    static let cmdLinePointer = 0x228
    static let initrdAddressMax = 0x22C
    static let kernelAlignment = 0x230
    static let relocatableKernel = 0x234
    static let xloadflags = 0x236
    static let cmdlineSize = 0x238
    static let hardwareSubarch = 0x23C
    static let setupData = 0x250
    static let prefAddress = 0x258
    static let initSize = 0x260
  }

  /// Protocol versions by what they brought.
  private enum Version {
    static let cmdlineSize: UInt16 = 0x206
    static let prefAddress: UInt16 = 0x20A
    static let xloadflags: UInt16 = 0x20C
  }

  let image: Image
  let version: UInt16
  /// All of the header, from setup_sects on.
  let bytes: ArraySlice<UInt8>
  /// The part of the file that runs in protected or long mode.
  let kernel: ArraySlice<UInt8>

  /// Reads the header of `image`, which has boot_flag and "HdrS" where they belong.
  init(_ image: Image) throws(BootError) {
    self.image = image
    version = try Self.version(of: image)
    bytes = try Self.header(of: image, version)
    kernel = try Self.kernel(of: image)
  }

  /// The field at `offset`, which the header's length has been checked for.
  private func field<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _: T.Type) -> T {
    image.load(offset, as: T.self) ?? 0
  }

  // MARK: Fields

  /// What a loader's kernel finds at its start, unless the loader says otherwise.
  var code32Start: UInt32 { field(Offset.code32Start, UInt32.self) }
  /// Whether the kernel belongs at 1 MiB (LOADED_HIGH): a bzImage, not a zImage.
  var isLoadedHigh: Bool { field(Offset.loadflags, UInt8.self) & 1 != 0 }
  /// The highest address that the initrd may have a byte at.
  var initrdAddressMax: UInt64 { UInt64(field(Offset.initrdAddressMax, UInt32.self)) }
  var isRelocatable: Bool { field(Offset.relocatableKernel, UInt8.self) != 0 }
  var kernelAlignment: UInt64 { UInt64(field(Offset.kernelAlignment, UInt32.self)) }
  /// The most bytes of a command line, its terminating zero not among them.
  var cmdlineSize: UInt64 { UInt64(field(Offset.cmdlineSize, UInt32.self)) }
  /// Whether there is a 64-bit entry point (XLF_KERNEL_64).
  var has64BitEntry: Bool {
    version >= Version.xloadflags && field(Offset.xloadflags, UInt16.self) & 1 != 0
  }
  /// Where the kernel would run; nil for protocols that don't say.
  var prefAddress: UInt64? {
    version >= Version.prefAddress ? field(Offset.prefAddress, UInt64.self) : nil
  }
  /// How much memory the kernel takes from there until it knows what there is.
  var initSize: UInt64 {
    version >= Version.prefAddress ? UInt64(field(Offset.initSize, UInt32.self)) : 0
  }

  // MARK: Reading

  private static func version(of image: Image) throws(BootError) -> UInt16 {
    guard let version = image.load(Offset.version, as: UInt16.self) else {
      throw cutShort(image, "within its setup header")
    }
    guard version >= Version.cmdlineSize else {
      throw image.error(
        .unsupported,
        "is a Linux kernel for boot protocol \(version >> 8).\(twoDigits(version & 0xFF)), and "
          + "kvmlite boots 2.06 and newer: take Linux 2.6.22 or newer")
    }
    return version
  }

  private static func twoDigits(_ number: UInt16) -> String {
    (number < 10 ? "0" : "") + String(number)
  }

  /// The header ends where the jump at its start leads (boot.rst, "Details of Header Fields",
  /// `jump`), and reaches at least to the last field that its version has and kvmlite reads.
  private static func header(
    of image: Image, _ version: UInt16
  ) throws(BootError) -> ArraySlice<UInt8> {
    let least = version >= Version.prefAddress ? Offset.initSize + 4 : Offset.cmdlineSize + 4
    let distance = image.load(Offset.jump + 1, as: UInt8.self) ?? 0
    let end = Offset.header + Int(distance)
    guard end >= least else {
      throw image.error(
        .malformed,
        about:
          "the setup header ends at \(hex(end)) (the jump at 0x200), before the fields of boot "
          + "protocol \(version >> 8).\(twoDigits(version & 0xFF)), which go to \(hex(least)): the "
          + "file is damaged; copy or build it again")
    }
    let start = Offset.setupSects
    // What follows in boot_params (edd_mbr_sig_buffer) isn't the header's to fill.
    let last = min(end, BootParameters.endOfHeader)
    guard let bytes = image.slice(UInt64(start), count: UInt64(last - start)) else {
      throw cutShort(image, "within its setup header")
    }
    return bytes
  }

  /// What follows the boot sector and the setup sectors, as far as syssize says.
  private static func kernel(of image: Image) throws(BootError) -> ArraySlice<UInt8> {
    // 0 means 4, for the oldest kernels' sake (boot.rst, `setup_sects`).
    let sectors = image.load(Offset.setupSects, as: UInt8.self) ?? 0
    let start = (UInt64(sectors == 0 ? 4 : sectors) + 1) * 512
    guard start < image.count else {
      throw cutShort(image, "before the kernel, which follows \(start) bytes of setup code")
    }
    let rest = image.count - start
    // In paragraphs of 16 bytes, the last not always whole; a signature may follow.
    let said = UInt64(image.load(Offset.syssize, as: UInt32.self) ?? 0) * 16
    guard said < rest + 16 else {
      throw cutShort(
        image, "within the kernel: of \(said) bytes from \(hex(start)) on (syssize) it has \(rest)")
    }
    return image.slice(start, count: said == 0 ? rest : min(said, rest)) ?? []
  }

  private static func cutShort(_ image: Image, _ place: String) -> BootError {
    image.error(
      .malformed,
      "ends \(place): it has \(image.count) bytes, so the file is cut short; copy or build it again"
    )
  }
}
