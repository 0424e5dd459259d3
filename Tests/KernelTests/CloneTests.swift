import Machine
import Memory
import TestSupport
import Testing

/// Debian's kernel (the cloud one has no driver for it), taken out once, in two machines that go on from there.
@Suite("Clones of a stock Linux kernel", .needsKVM, .needsRingZero, .needsKernels, .limited)
struct CloneTests {
  /// Draws random numbers once the kernel has said why it has drawn new ones itself.
  private static let work =
    "dmesg -c >/dev/null; echo REA''DY; until dmesg | grep fork; do sleep 0.1; done; "
    + "head -c 16 /dev/urandom | md5sum"

  @Test("learn of it by the generation ID, and draw other random numbers")
  func reseeding() throws {
    var spec = VMConfiguration()
    spec.image = Kernels.path("generic/vmlinuz")
    spec.initrds = [Kernels.path("generic/initrd.cpio.gz")]
    spec.append = "quiet RUN=\"\(Self.work)\""
    spec.memorySize = 160 << 20
    let options = RunOptions(timeLimit: 100 * Deadline.patience)
    let console = WaitingSink()
    let first = try Machine(
      spec, Resources(opening: spec, besides: Resources(console: console)), options)
    let mover = try Mover(first.commands, after: 0) {
      var count = 1
      while console.wait(forBytes: count), !console.text.contains("READY\r\n") { count += 1 }
    }
    _ = first.run()
    let saved = try #require(try mover.result(), "\(console.text)")

    let lines = try (0..<2).map { _ in
      let console = ConsoleBuffer()
      let memory = RestoredMemory.copied(try SavedMemory(copying: first.memory))
      let resources = try Resources(opening: spec, besides: Resources(console: console))
      let outcome = try Machine(restoring: saved, memory, resources, options).run()
      if case .poweredOff = outcome {} else { Issue.record("\(outcome): \(console.text)") }
      return console.text.split(whereSeparator: \.isNewline).map(String.init)
    }

    for lines in lines {
      let reason = "crng reseeded due to virtual machine fork"
      #expect(lines.contains { $0.hasSuffix(reason) }, "\(lines)")
    }
    let sums = lines.map { $0.first { $0.hasSuffix("  -") } }
    #expect(sums[0] != nil && sums[1] != nil && sums[0] != sums[1], "\(lines)")
  }
}
