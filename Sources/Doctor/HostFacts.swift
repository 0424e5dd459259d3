import Host

/// What the host's kernel says of its processor and its modules, for a KVM that isn't there.
package struct HostFacts: Sendable, Equatable {
  /// The processor says that it has VT-x.
  package var hasVTx = false
  /// The processor says that it has AMD-V.
  package var hasAMDV = false
  /// The host is a virtual machine itself.
  package var isVirtual = false
  /// This process runs in a container.
  package var isContainer = false
  /// This process can't read what the kernel says of the processor.
  package var isBlind = false
  /// KVM's modules that the kernel has, such as `kvm` and `kvm_intel`.
  package var modules: [String] = []
  /// Modules of other hypervisors that are loaded, such as `vboxdrv`.
  package var otherHypervisors: [String] = []

  /// Facts that are all negative.
  package init() {}

  /// Takes the facts from a text like /proc/cpuinfo's and the names in /sys/module.
  package init(cpuinfo: String, modules: [String], isContainer: Bool = false) {
    let line = cpuinfo.split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
    let flags = Set(line.split(separator: " "))
    hasVTx = flags.contains("vmx")
    hasAMDV = flags.contains("svm")
    isVirtual = flags.contains("hypervisor")
    self.isContainer = isContainer
    self.modules = modules.filter { $0 == "kvm" || $0.hasPrefix("kvm_") }.sorted()
    otherHypervisors = modules.filter { ["vboxdrv", "vmmon"].contains($0) }.sorted()
  }

  /// Reads /proc/cpuinfo, /sys/module and what container engines leave behind.
  package static func read() -> HostFacts {
    let cpuinfo = HostText.contents(of: "/proc/cpuinfo")
    var facts = HostFacts(
      cpuinfo: cpuinfo, modules: Directory.names(in: "/sys/module"),
      isContainer: FileDescriptor.exists("/.dockerenv")
        || FileDescriptor.exists("/run/.containerenv"))
    facts.isBlind = cpuinfo.isEmpty
    return facts
  }

  /// The module that serves, or would serve, /dev/kvm; nil if there is none that fits.
  package var backEnd: String? {
    let fitting = modules.filter { $0 != "kvm" }
    // A kernel with both built in shows both.
    if hasVTx && fitting.contains("kvm_intel") { return "kvm_intel" }
    if hasAMDV && fitting.contains("kvm_amd") { return "kvm_amd" }
    let others = fitting.filter { $0 != "kvm_intel" && $0 != "kvm_amd" }
    return others.first ?? fitting.first
  }

  /// What brings a /dev/kvm about: one step a line, the likeliest first.
  ///
  /// A line that starts with spaces belongs to the one before it.
  var remedies: [String] {
    var steps: [String] = []
    if isContainer {
      steps.append("in a container: start it with --device /dev/kvm (its host must have it)")
    }
    if isBlind && backEnd == nil {
      // Nothing is known of the processor: advice about it would be a guess.
      steps.append(
        "in a chroot or a sandbox, as /proc can't be read: whoever made it adds /dev/kvm")
      return steps
    }
    if let backEnd {
      steps.append("\(backEnd) is loaded: its device file alone is missing or wrong")
      steps.append("make it anew: sudo rm -f /dev/kvm; sudo mknod -m 600 /dev/kvm c 10 232")
      return steps
    }
    if !otherHypervisors.isEmpty {
      let names = otherHypervisors.joined(separator: ", ")
      steps.append("another hypervisor (\(names)) may hold the processor: unload it first")
    }
    if hasVTx || hasAMDV {
      let module = hasVTx ? "kvm_intel" : "kvm_amd"
      steps.append("load the module: sudo modprobe \(module)")
      steps.append("if that fails, see why: sudo dmesg | grep -i kvm | tail")
    }
    if isVirtual && !(hasVTx || hasAMDV) {
      steps.append("this machine is virtual: turn on nested virtualization in its hypervisor")
      steps.append("  on Linux with KVM: load kvm_intel or kvm_amd with nested=1, and -cpu host")
      steps.append("  on VMware: \"Virtualize Intel VT-x/EPT or AMD-V/RVI\" in its settings")
      steps.append("  on Hyper-V: Set-VMProcessor NAME -ExposeVirtualizationExtensions $true")
      steps.append("  in a cloud: take a kind of machine that offers it, or a bare-metal one")
    } else if hasVTx || hasAMDV {
      steps.append("\"disabled by bios\" there: turn on VT-x or SVM in the firmware's settings")
    } else {
      steps.append("turn on VT-x (Intel) or SVM (AMD) in the firmware's (BIOS, UEFI) settings")
      steps.append("then load the module: sudo modprobe kvm_intel, or kvm_amd")
    }
    return steps
  }
}
