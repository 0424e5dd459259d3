import Host
import Memory
import Storage

/// The real disks of the experiment `stack`: the same contents as a file, as an overlay on another file,
/// as a block device, and behind another process.
final class StackDisks {
  /// One of them.
  struct Disk {
    let name: String
    /// Its images, the top one first.
    let files: [String]
    /// How it's read in this process; nil where another does.
    let store: (any BlockStore)?
  }

  static let sectors = 256
  /// What every virtual device says that its serial number is.
  static let serial = "LAB-DISK"

  private(set) var disks: [Disk] = []
  /// Why there is no block device.
  private(set) var whyNoDevice: String?
  /// The process that serves the last one.
  let process: BackEndProcess
  let contents: [UInt64]
  private let directory: TemporaryDirectory

  /// Makes them; the overlay's clusters have `clusterSize` bytes, and each second one is its own.
  init(_ program: String, clusterSize: Int) throws(LabError) {
    directory = try makeDirectory()
    var random = RandomNumbers(seed: 5)
    contents = (0..<Self.sectors * 64).map { _ in random.next() }
    let raw = directory.path + "/disk.raw"
    try Self.write(contents, to: raw)
    process = try BackEndProcess(
      program, image: raw, ",format=raw,readonly,serial=\(Self.serial)", in: directory.path)
    disks.append(Disk(name: "raw file", files: [raw], store: try Self.open(raw, .raw)))
    disks.append(try overlay(clusterSize))
    try addBlockDevice(raw)
    disks.append(Disk(name: "vhost-user", files: [raw], store: nil))
  }

  private static func write(_ words: [UInt64], to path: String) throws(LabError) {
    try host { () throws(Errno) in
      let file = try OutputFile(path)
      try file.write(
        words.flatMap { word in
          (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64($0 * 8)) }
        })
      try file.commit()
    }
  }

  private static func open(
    _ path: String, _ format: DiskFormat, isReadOnly: Bool = true
  ) throws(LabError) -> any BlockStore {
    var options = DiskImage.Options()
    (options.format, options.isReadOnly) = (format, isReadOnly)
    do { return try DiskImage.open(path, options).store } catch { throw .unexpected("\(error)") }
  }

  /// An overlay that has the odd clusters, on a base that has other bytes there.
  private func overlay(_ clusterSize: Int) throws(LabError) -> Disk {
    let (base, top) = (directory.path + "/base.raw", directory.path + "/overlay.qcow2")
    let size = clusterSize / 8
    try Self.write(
      contents.indices.map { $0 / size % 2 == 1 ? ~contents[$0] : contents[$0] }, to: base)
    do {
      var new = DiskImage.NewImage()
      (new.base, new.baseFormat, new.clusterSize) = (base, .raw, UInt64(clusterSize))
      try DiskImage.create(top, new)
      let store = try Self.open(top, .qcow2, isReadOnly: false)
      let buffer = try GuestMemory(ramSize: UInt64(clusterSize))
      let view = try buffer.view(at: 0, count: UInt64(clusterSize))
      for cluster in stride(from: 1, to: contents.count / size, by: 2) {
        for index in 0..<size { view.store(contents[cluster * size + index], index * 8) }
        try store.write(from: [view], at: UInt64(cluster * clusterSize))
      }
      try store.flush()
    } catch let error as LabError { throw error } catch { throw .unexpected("\(error)") }
    return Disk(name: "overlay", files: [top, base], store: try Self.open(top, .qcow2))
  }

  /// A loop device on the raw file, which goes when nobody has it open any longer.
  private func addBlockDevice(_ raw: String) throws(LabError) {
    let file = try host { () throws(Errno) in try FileDescriptor(opening: raw, [.readOnly]) }
    let program = ["/usr/sbin/losetup", "/sbin/losetup"].first {
      (try? FileDescriptor(opening: $0, [.readOnly])) != nil
    }
    guard let program else {
      whyNoDevice = "losetup isn't installed"
      return
    }
    let words = Subprocess.output(
      of: program, ["--read-only", "--find", "--show", raw], inheriting: file)
    guard let path = words?.split(separator: "\n").first.map(String.init) else {
      whyNoDevice = "losetup gets no loop device here, for which it needs root"
      return
    }
    defer { _ = Subprocess.output(of: program, ["--detach", path], inheriting: file) }
    do {
      disks.append(Disk(name: "block device", files: [path], store: try Self.open(path, .raw)))
    } catch { whyNoDevice = "\(path) can't be opened: \(error)" }
  }

  /// The 8 bytes at `offset` of a file.
  static func word(_ path: String, at offset: Int) throws(LabError) -> UInt64 {
    try host { () throws(Errno) in
      let file = try FileDescriptor(opening: path, [.readOnly])
      var bytes: [UInt8] = []
      while bytes.count < offset + 8 {
        let more = try file.read(atMost: offset + 8 - bytes.count)
        guard !more.isEmpty else { return 0 }
        bytes += more
      }
      return bytes[offset..<offset + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}
