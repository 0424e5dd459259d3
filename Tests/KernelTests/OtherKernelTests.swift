import Testing
import TestSupport

/// Kernels that aren't Linux, and firmware, as far as they come without a disk.
@Suite("Other kernels and firmware", .needsKVM, .needsKernels, .serialized, .limited)
struct OtherKernelTests {
  private func expect(_ text: String, _ arguments: [String]) throws {
    let run = try ChildProcess(Kvmlite.path, arguments, deadline: Deadline(seconds: 200))
    try run.waitForOutput(text)
    run.send(15)
    #expect(try run.waitForEnd() == .exited(143))
  }

  @Test("SeaBIOS finds no bootable device")
  func seaBIOS() throws {
    try expect("No bootable device", ["--firmware", Kernels.path("bios.bin")])
  }

  @Test("memtest86+ draws its screen", .needsRingZero)
  func memtest() throws {
    try expect(
      "Memtest86+", ["--append", "console=ttyS0,115200", Kernels.path("memtest.bin")])
  }

  @Test("Xen asks for its domain 0", .needsRingZero)
  func xen() throws {
    try expect(
      "Bootloader: kvmlite",
      ["--memory", "512M", "--append", "com1=115200,8n1 console=com1", Kernels.path("xen")])
  }

  @Test("GNU Mach asks for its bootstrap", .needsRingZero)
  func mach() throws {
    try expect("bootstrap", ["--append", "console=com0", Kernels.path("gnumach")])
  }
}
