import Glibc

/// A whole disk of the host's, by the kernel's numbers.
struct HostDisk: Hashable, CustomStringConvertible {
  /// Major and minor number, as in `8:0`.
  let description: String

  /// That on which the file at `path` lies, or a part of which it is; nil where there is none.
  init?(of path: String) {
    var status = stat()
    // The kernel fills the structure.
    guard unsafe stat(path, &status) == 0 else { return nil }
    self.init(status)
  }

  /// Those of all files that this process has open.
  static func all() -> Set<HostDisk> {
    let numbers = Directory.names(in: "/proc/self/fd").compactMap { Int32($0) }
    return Set(
      numbers.compactMap { number in
        var status = stat()
        // The kernel fills the structure.
        return unsafe fstat(number, &status) == 0 ? HostDisk(status) : nil
      })
  }

  private init?(_ status: stat) {
    let device: UInt64
    switch status.st_mode & S_IFMT {
    case S_IFREG: device = UInt64(status.st_dev)
    case S_IFBLK: device = UInt64(status.st_rdev)
    default: return nil
    }
    // makedev(3)
    let major = device >> 8 & 0xFFF | device >> 32 & 0xFFFF_F000
    let minor = device & 0xFF | device >> 12 & 0xFFFF_FF00
    let place = "/sys/dev/block/\(major):\(minor)"
    // A part of a disk is a directory in the disk's.
    let disk = FileDescriptor.exists(place + "/partition") ? place + "/.." : place
    let text = ControlGroupTree.text(of: disk + "/dev")
    guard let line = text.split(separator: "\n").first else { return nil }
    description = String(line)
  }
}
