import Glibc
import TestSupport
import Testing

/// Debian's qemu-img, the judge of what a qcow2 image is.
enum QEMUImage {
  /// Whether it is installed; must be where KVMLITE_REQUIRE_QEMU_IMG is set.
  static let isThere: Bool = {
    let found = unsafe access("/usr/bin/qemu-img", X_OK) == 0
    if !found, unsafe getenv("KVMLITE_REQUIRE_QEMU_IMG") != nil {
      Issue.record("qemu-img is required; install qemu-utils")
    }
    return found
  }()

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// Runs it; anything but status 0 is thrown.
  @discardableResult
  static func run(_ arguments: String...) throws -> String {
    try run("/usr/bin/qemu-img", arguments)
  }

  @discardableResult
  static func run(_ program: String, _ arguments: [String]) throws -> String {
    let process = try ChildProcess(program, arguments)
    let end = try process.waitForEnd()
    guard end == .exited(0) else {
      throw Failure(
        description: "\(arguments): \(end) \(process.outputText) \(process.errorText)")
    }
    return process.outputText
  }

  /// Runs qemu-io's commands on an image.
  static func io(_ image: String, format: String = "qcow2", _ commands: [String]) throws {
    let output = try run(
      "/usr/bin/qemu-io", ["-f", format] + commands.flatMap { ["-c", $0] } + [image])
    guard !output.contains("failed") else { throw Failure(description: output) }
  }
}
