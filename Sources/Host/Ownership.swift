import Glibc

/// Who owns a file and who may use it. Corresponds to the fields of `stat(2)`.
package struct Ownership: Equatable, Sendable {
  /// The owner's number.
  package let user: UInt32
  /// The group's number.
  package let group: UInt32
  /// The lower 9 bits of `st_mode`: read, write and execute for the owner, the group and others.
  package let permissions: UInt32
  /// The device behind a character device, as two numbers; nil for any other kind of file.
  package let device: Device?

  /// The number of a device.
  package struct Device: Equatable, Sendable {
    /// Which driver.
    package let major: UInt32
    /// Which of its devices.
    package let minor: UInt32

    /// Takes the kernel's one number apart. Corresponds to `makedev(3)`.
    init(_ number: UInt) {
      major = UInt32(truncatingIfNeeded: number >> 8 & 0xFFF | number >> 32 & 0xFFFF_F000)
      minor = UInt32(truncatingIfNeeded: number & 0xFF | number >> 12 & 0xFFFF_FF00)
    }

    /// Wraps two numbers.
    package init(major: UInt32, minor: UInt32) {
      self.major = major
      self.minor = minor
    }
  }

  /// Takes the four as they are.
  package init(user: UInt32, group: UInt32, permissions: UInt32, device: Device? = nil) {
    self.user = user
    self.group = group
    self.permissions = permissions
    self.device = device
  }

  /// Looks at the file at `path`. Corresponds to `stat(2)`.
  package init(of path: String) throws(Errno) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw Errno.current }
    let isDevice = status.st_mode & S_IFMT == S_IFCHR
    self.init(
      user: status.st_uid, group: status.st_gid, permissions: status.st_mode & 0o777,
      device: isDevice ? Device(status.st_rdev) : nil)
  }
}

/// Who this process runs as.
package enum Identity {
  /// The user whose rights it had when it was first asked for: a confined process has given them up.
  package static let original: UInt32 = geteuid()

  /// The user whose rights it has. Corresponds to `geteuid(2)`.
  package static var user: UInt32 { geteuid() }

  /// The groups whose rights it has, the effective one first. Corresponds to `getgroups(2)`.
  package static var groups: [UInt32] {
    let count = getgroups(0, nil)
    guard count > 0 else { return [getegid()] }
    var groups = [gid_t](repeating: 0, count: Int(count))
    // The kernel writes at most as many as it's told there is room for.
    let written = unsafe groups.withUnsafeMutableBufferPointer {
      unsafe getgroups(Int32($0.count), $0.baseAddress)
    }
    return [getegid()] + groups.prefix(Int(max(0, written)))
  }
}
