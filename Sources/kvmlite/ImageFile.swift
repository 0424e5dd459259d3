import Boot
import Guests
import Host
import Machine

/// Finds the image that the command line names.
enum ImageFile {
  /// What stands before the name of a built-in guest.
  static let guestPrefix = "guest:"

  /// The image at `path`, of which no more than `limit` bytes make sense; the hello guest for nil.
  static func read(_ path: String?, limit: UInt64) throws(Failure) -> Configuration.Image {
    guard let path else { return try builtIn("hello-real") }
    if path.hasPrefix(guestPrefix) { return try builtIn(String(path.dropFirst(6))) }
    return Configuration.Image(try contents(of: path, limit: limit), name: path)
  }

  private static func builtIn(_ name: String) throws(Failure) -> Configuration.Image {
    guard let guest = Guest.named(name) else {
      throw Failure(
        status: 66, message: "there is no built-in guest '\(name)'; see: kvmlite guests")
    }
    let isFlat = guest.format == .flat
    return Configuration.Image(
      guest.image, name: guestPrefix + guest.name, mode: isFlat ? guest.mode : nil)
  }

  private static func contents(of path: String, limit: UInt64) throws(Failure) -> [UInt8] {
    do throws(Errno) {
      let file = try FileDescriptor(opening: path, [.readOnly])
      let (kind, size) = try file.status()
      guard kind != .directory else { throw .isDirectory }
      if kind == .regular && UInt64(size) > limit { throw .fileTooLarge }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(kind == .regular ? size : 0)
      while true {
        let more = try file.read(atMost: 1 << 20)
        if more.isEmpty { return bytes }
        bytes += more
        if UInt64(bytes.count) > limit { throw .fileTooLarge }
      }
    } catch .fileTooLarge {
      throw Failure(
        status: 65,
        message: "\(path): larger than the guest's memory (\(limit >> 20) MiB); "
          + "give it more with --memory")
    } catch .noSuchFile {
      throw Failure(status: 66, message: "\(path): no such file; see kvmlite --help for usage")
    } catch .isDirectory {
      throw Failure(status: 66, message: "\(path): a directory, not an image")
    } catch {
      throw Failure(status: 66, message: "\(path): can't be read: \(error)")
    }
  }
}
