import Foundation
import Testing
import TestSupport

/// The third-party kernels that scripts/kernels fetches.
enum Kernels {
  private static let folder = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: ".cache/kernels").path

  /// The file called `name`.
  static func path(_ name: String) -> String { folder + "/" + name }

  /// Whether they have been fetched.
  static var areThere: Bool { FileManager.default.fileExists(atPath: path("gnumach")) }

  /// The arguments that boot Debian's `kernel` with the small initramfs.
  static func linux(_ kernel: String, append: String) -> [String] {
    ["--append", append, "--initrd", path(kernel + "/initrd.cpio.gz"), path(kernel + "/vmlinuz")]
  }
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where the kernels have not been fetched.
  static var needsKernels: Self {
    .enabled(if: Kernels.areThere, "needs the kernels that scripts/kernels fetches")
  }

  /// Skips a test where ring 0 is emulated: KVM's emulator lacks instructions that kernels use, as
  /// kvmlite doctor says there.
  static var needsRingZero: Self {
    .disabled(if: HostKVM.isPVM, "kvm_pvm emulates ring 0, and lacks what stock kernels need")
  }
}
