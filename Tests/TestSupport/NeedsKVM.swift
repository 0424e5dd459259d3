import Foundation
import KVM
import Testing

/// Whether tests can run on this host's KVM.
public enum HostKVM {
  /// What keeps /dev/kvm from being used here; nil where nothing does.
  public static let trouble: String? = {
    do throws(KVMError) {
      let system = try System()
      _ = try system.makeVM()
      return nil
    } catch { return "\(error)" }
  }()

  /// Whether a test that needs KVM must run, and so fail, even where there is none.
  public static let isRequired =
    ProcessInfo.processInfo.environment["KVMLITE_REQUIRE_KVM"] != nil

  /// Whether the back end is kvm_pvm, which emulates ring 0 and lacks some instructions.
  public static let isPVM = FileManager.default.fileExists(atPath: "/sys/module/kvm_pvm")
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where /dev/kvm can't be used, unless KVMLITE_REQUIRE_KVM is set.
  public static var needsKVM: Self {
    .enabled(
      if: HostKVM.trouble == nil || HostKVM.isRequired,
      "needs a usable /dev/kvm: \(HostKVM.trouble ?? "there is one")")
  }

  /// Skips a test where this process is not root, which it needs to take rights away from others.
  public static var needsRoot: Self {
    .enabled(if: geteuid() == 0, "needs root, to drop its rights or to mount")
  }
}
