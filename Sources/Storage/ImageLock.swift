import Host

/// The locks by which programs that use one disk image keep out of each other's way: QEMU's, so that
/// QEMU and kvmlite refuse each other too.
///
/// Each permission of QEMU's block layer has a bit. A lock on byte 100 + bit says that its holder
/// uses the permission, one on byte 200 + bit that it allows nobody else to (block/file-posix.c).
enum ImageLock {
  private enum Permission: Int64, CaseIterable {
    case consistentRead = 0
    case write = 1
    case resize = 3
  }

  /// Locks an open image for a reader or for a writer. Readers share it; a writer shares it with
  /// nobody.
  static func take(_ file: HostDiskFile, isReadOnly: Bool) throws(DiskError) {
    let used: [Permission] = isReadOnly ? [.consistentRead] : Permission.allCases
    let denied: [Permission] = [.write, .resize]
    do throws(Errno) {
      // First lock, then look: of two that do so at once, at least one sees the other.
      for permission in used { try file.descriptor.lockShared(100 + permission.rawValue) }
      for permission in denied { try file.descriptor.lockShared(200 + permission.rawValue) }
      for permission in used {
        if try file.descriptor.isLockedByAnother(200 + permission.rawValue) { throw .busy }
      }
      for permission in denied {
        if try file.descriptor.isLockedByAnother(100 + permission.rawValue) { throw .busy }
      }
    } catch {
      // Some network file systems have no locks; there an image is used without, as by QEMU.
      guard error == .busy || error == .tryAgain || error == .accessDenied else { return }
      throw inUse(file, isReadOnly: isReadOnly)
    }
  }

  private static func inUse(_ file: HostDiskFile, isReadOnly: Bool) -> DiskError {
    let others = LockHolder.all(of: file.facts.identity)
      .filter { $0.process != LockHolder.currentProcess }
      .map(\.description)
    let who = others.isEmpty ? "this or another user's program" : others.joined(separator: ", ")
    let hint: Advice =
      isReadOnly
      ? "it may change at any moment; wait until that has ended"
      : "a disk has one writer and then no reader; on a base that nobody writes, each machine can "
        + "have an overlay of its own: \(.overlay)"
    return DiskError(.unusable, file.path, "in use by \(who): \(hint)")
  }
}
