/// Builds the bytes of a Linux kernel as its build leaves them, each field as a test says.
struct BzImageBuilder {
  var version: UInt16 = 0x20F
  var setupSects: UInt8 = 39
  /// In paragraphs of 16 bytes; nil for what the kernel has.
  var syssize: UInt32?
  /// Where the jump at 0x200 leads, less 0x202.
  var jump: UInt8 = 0x6A
  var loadflags: UInt8 = 1
  var code32Start: UInt32 = 0x10_0000
  var initrdAddressMax: UInt32 = 0x7FFF_FFFF
  var alignment: UInt32 = 0x20_0000
  var relocatable: UInt8 = 1
  var xloadflags: UInt16 = 0x7F
  var cmdlineSize: UInt32 = 2047
  var prefAddress: UInt64 = 0x100_0000
  var initSize: UInt32 = 0x100_0000
  var kernel = [UInt8](repeating: 0x90, count: 0x1000)
  /// What comes behind the kernel, such as a signature.
  var rest: [UInt8] = []

  var bytes: [UInt8] {
    var bytes = [UInt8](repeating: 0xCC, count: (Int(setupSects == 0 ? 4 : setupSects) + 1) * 512)
    func put(_ value: some FixedWidthInteger, _ offset: Int) {
      bytes.replaceSubrange(
        offset..<offset + value.bitWidth / 8,
        with: littleEndian(UInt64(truncatingIfNeeded: value), value.bitWidth / 8))
    }
    put(setupSects, 0x1F1)
    put(syssize ?? UInt32((kernel.count + 15) / 16), 0x1F4)
    put(UInt16(0xAA55), 0x1FE)
    put(UInt8(0xEB), 0x200)
    put(jump, 0x201)
    put(UInt32(0x5372_6448), 0x202)  // HdrS
    put(version, 0x206)
    put(loadflags, 0x211)
    put(code32Start, 0x214)
    put(initrdAddressMax, 0x22C)
    put(alignment, 0x230)
    put(relocatable, 0x234)
    put(xloadflags, 0x236)
    put(cmdlineSize, 0x238)
    put(prefAddress, 0x258)
    put(initSize, 0x260)
    return bytes + kernel + rest
  }
}
