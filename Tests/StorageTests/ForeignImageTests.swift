import Storage
import TestSupport
import Testing

@Suite("Disk images of other formats", .limited)
struct ForeignImageTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func said(_ body: () throws -> Void) -> String {
    do { try body() } catch {
      return (error as? DiskError).map { "\($0.kind) \($0)" } ?? "\(error)"
    }
    return "nothing"
  }

  /// What opening `path`, looking into it, copying it and putting an overlay on it say.
  private func refusals(_ path: String) -> [String] {
    var overlay = DiskImage.NewImage()
    overlay.base = path
    return [
      said { _ = try DiskImage.open(path, .init()) },
      said { try DiskInformation.forEach(of: path, format: nil) { _ in } },
      said { try DiskImage.convert(path, format: nil, to: path + ".copy", .init()) { _, _ in } },
      said { try DiskImage.create(path + ".overlay", overlay) },
    ]
  }

  @Test(
    "are named and refused, unless they are said to be raw",
    arguments: [
      ("vmdk", 0, Array("KDMV".utf8)), ("vmdk", 0, Array("# Disk DescriptorFile".utf8)),
      ("vdi", 64, [0x7F, 0x10, 0xDA, 0xBE]), ("vpc", 0, Array("conectix".utf8)),
      ("vhdx", 0, Array("vhdxfile".utf8)), ("qed", 0, Array("QED\0".utf8)),
      ("parallels", 0, Array("WithoutFreeSpace".utf8)),
      ("gzip", 0, [0x1F, 0x8B, 0x08]), ("xz", 0, [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0]),
      ("zstd", 0, [0x28, 0xB5, 0x2F, 0xFD]), ("bzip2", 0, Array("BZh91AY&SY".utf8)),
      ("lz4", 0, [0x04, 0x22, 0x4D, 0x18]),
    ] as [(String, Int, [UInt8])])
  func named(format: String, offset: Int, magic: [UInt8]) throws {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.replaceSubrange(offset..<offset + magic.count, with: magic)
    let path = try scratch.file("disk", bytes)
    for refusal in refusals(path) {
      #expect(refusal.hasPrefix("malformed") && refusal.contains(format) && refusal.contains("raw"))
    }
    #expect(try contents(of: path) == bytes)

    var options = DiskImage.Options()
    options.format = .raw
    #expect(try DiskImage.open(path, options).store.read(4096, at: 0) == bytes)
    // All but the last byte of the magic says nothing.
    bytes[offset + magic.count - 1] = 0xEE
    _ = try DiskImage.open(try scratch.file("other", bytes), .init())
  }

  @Test(
    "as QEMU makes them", .enabled(if: QEMUImage.isThere, "needs qemu-img"),
    arguments: ["vmdk", "vdi", "vpc", "vhdx", "qed", "parallels"])
  func real(format: String) throws {
    let path = scratch.path + "/disk"
    try QEMUImage.run("create", "-f", format, path, "4M")
    for refusal in refusals(path) { #expect(refusal.contains(" the format \(format),")) }
  }
}
