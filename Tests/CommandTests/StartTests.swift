import Foundation
import TestSupport
import Testing

@Suite("kvmlite knows its arguments", .limited, .sameOnEachHost)
struct StartTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  @Test("where /proc isn't there", .needsMounts)
  func noProcesses() throws {
    let hide = "mount -t tmpfs none /proc && exec \"$@\""
    let disk = scratch.path + "/disk.raw"
    let result = try Kvmlite.run(
      ["disk", "create", "--size", "1M", disk], by: ["unshare", "-m", "sh", "-c", hide, "sh"])
    #expect(result.end == .exited(0), "\(result.errors)")
    #expect(!result.output.contains("Hello"))
    #expect(scratch.names == ["disk.raw"])
  }

  @Test("and says so where it has none, not even a name")
  func noName() throws {
    // Linux before 5.18 gives such a program no word at all, newer ones an empty one.
    let result = try Kvmlite.end(
      of: ChildProcess("bash", ["-c", "exec -a '' \"$0\"", Kvmlite.path]))
    #expect(result.end == .exited(64))
    #expect(result.errors.contains("not even a name"))
    #expect(result.output.isEmpty)
  }
}
