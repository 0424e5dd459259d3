import Foundation
import TestSupport
import Testing

/// Debian's cloud kernel, saved once and restored twice.
@Suite("Clones of a stock Linux kernel", .needsKVM, .needsRingZero, .needsKernels, .limited)
struct CloneTests {
  /// Draws random numbers for each line that it is given, and tells what the kernel said since.
  private static let work =
    "dmesg -c >/dev/null; echo REA''DY; while read line; do "
    + "head -c 16 /dev/urandom | md5sum; dmesg; echo DO''NE; done"

  @Test("learn of it by the generation ID, and draw other random numbers")
  func reseeding() throws {
    let machines = try NamedMachines()
    let folder = machines.path + "/saved"
    let up = try machines.start(
      ["up", "--name", "box", "--memory", "160M"]
        + Kernels.linux("cloud", append: "quiet RUN=\"\(Self.work)\""))
    #expect(try up.waitForEnd() == .exited(0), "\(up.errorText)")
    #expect(try machines.run("wait", "box", "--for", "text=READY").end == .exited(0))
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))

    #expect(try machines.run("restore", folder, "-n", "2").output == "saved-1\nsaved-2\n")
    var sums: [String] = []
    for name in ["saved-1", "saved-2"] {
      let viewer = try machines.start(["attach", name], input: .pipe)
      viewer.type("\n")
      #expect(try machines.run("wait", name, "--for", "text=DONE").end == .exited(0))
      let log = try machines.run("logs", name).output
      #expect(log.contains("crng reseeded due to virtual machine fork"), "\(log)")
      sums += log.split(separator: "\r\n").map(String.init).filter { $0.hasSuffix("  -") }
    }
    #expect(sums.count == 2 && sums.first != sums.last)
  }
}
