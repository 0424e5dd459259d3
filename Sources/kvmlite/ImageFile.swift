import Boot
import Guests
import Machine

/// Finds the image that the command line names.
enum ImageFile {
  /// What stands before the name of a built-in guest.
  static let guestPrefix = "guest:"

  /// The image at `path`, of which no more than `limit` bytes make sense; the hello guest for nil.
  static func read(_ path: String?, limit: UInt64) throws(Failure) -> Configuration.Image {
    guard let path else { return try builtIn("hello-real") }
    if path.hasPrefix(guestPrefix) { return try builtIn(String(path.dropFirst(6))) }
    let bytes = try InputFile.contents(
      of: path, limit: limit, hint: "the guest's memory; give it more with --memory")
    return Configuration.Image(bytes, name: path)
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
}
