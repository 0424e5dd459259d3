import Foundation
import KVM
import Testing

/// Whether tests can run on this host's KVM.
package enum HostKVM {
  /// What keeps /dev/kvm from being used here; nil where nothing does.
  package static let trouble: String? = {
    do throws(KVMError) {
      let system = try System()
      _ = try system.makeVM()
      return nil
    } catch { return "\(error)" }
  }()

  /// Whether a test that needs KVM must run, and so fail, even where there is none.
  package static let isRequired =
    ProcessInfo.processInfo.environment["KVMLITE_REQUIRE_KVM"] != nil

  /// Whether mounts in a namespace of one's own are allowed, which not all containers do.
  static let canMount: Bool = {
    let mount = try? ChildProcess("unshare", ["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
    return (try? mount?.waitForEnd()) == .exited(0)
  }()

  /// Whether this machine is Bochs, as the vt-x host of scripts/host is.
  package static let isBochs =
    (try? String(contentsOfFile: "/sys/class/dmi/id/bios_vendor", encoding: .utf8))?
    .contains("Bochs") == true

  /// Whether the processor has XSAVE, and so extended control registers.
  static let hasXSAVE =
    (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.contains(" xsave ") != false

  /// Whether the back end is kvm_pvm, which emulates ring 0 and lacks some instructions.
  package static let isPVM = FileManager.default.fileExists(atPath: "/sys/module/kvm_pvm")
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where /dev/kvm can't be used, unless KVMLITE_REQUIRE_KVM is set.
  package static var needsKVM: Self {
    .enabled(
      if: HostKVM.trouble == nil || HostKVM.isRequired,
      "needs a usable /dev/kvm: \(HostKVM.trouble ?? "there is one")")
  }

  /// Skips a test whose guest runs without exits and with its interrupts off where nothing can end
  /// such a guest.
  package static var needsExitsByInterrupts: Self {
    .enabled(
      if: !HostKVM.isBochs,
      "Bochs 2.7 does not leave a guest for the host's interrupts while the guest has its own off")
  }

  /// Skips a test of the registers that only a processor with XSAVE has.
  package static var needsXSAVE: Self {
    .enabled(if: HostKVM.hasXSAVE, "the host's processor has no XSAVE")
  }

  /// Skips a test where this process is not root, which it needs to take rights away from others.
  package static var needsRoot: Self {
    .enabled(if: geteuid() == 0, "needs root, to drop its rights")
  }

  /// Skips a test where this process can't mount what only it and its children see.
  package static var needsMounts: Self {
    .enabled(if: HostKVM.canMount, "needs root that may mount in a namespace of its own")
  }
}
