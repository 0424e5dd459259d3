import Foundation

/// A raw disk image full of zeros, which is removed when nobody holds it any longer.
package final class ScratchDisk: Sendable {
  /// Where it is.
  package let path: String

  /// Makes one of `size` bytes.
  package init(size: Int) throws {
    path =
      FileManager.default.temporaryDirectory
      .appending(path: "kvmlite-disk-\(UUID().uuidString)").path
    guard FileManager.default.createFile(atPath: path, contents: Data(count: size)) else {
      throw Overdue("\(path) can't be made")
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// What is in it.
  package var contents: [UInt8] { FileManager.default.contents(atPath: path).map(Array.init) ?? [] }
}
