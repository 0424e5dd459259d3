import Host

/// The part of KVM that runs guests on this processor: what serves /dev/kvm, and how it is set up.
package struct BackEnd: Sendable, Equatable {
  /// The module's name, such as `kvm_intel`.
  package let name: String
  /// Its parameters, as /sys/module has them.
  package let parameters: [String: String]

  /// A back end with these parameters.
  package init(name: String, parameters: [String: String] = [:]) {
    self.name = name
    self.parameters = parameters
  }

  /// Finds the back end of this host; nil where /sys/module shows none.
  package static func read(_ facts: HostFacts) -> BackEnd? {
    guard let name = facts.backEnd else { return nil }
    var parameters: [String: String] = [:]
    for parameter in switches(of: name) {
      let path = "/sys/module/\(name)/parameters/\(parameter.name)"
      let text = HostText.contents(of: path, limit: 64).split(separator: "\n").first
      if let text { parameters[parameter.name] = String(text) }
    }
    return BackEnd(name: name, parameters: parameters)
  }

  /// What runs the guest, in a few words.
  package var summary: String {
    switch name {
    case "kvm_intel": "VT-x of an Intel processor"
    case "kvm_amd": "AMD-V (SVM) of an AMD processor"
    case "kvm_pvm": "KVM without VT-x or AMD-V, for hosts in a virtual machine"
    default: "a back end that kvmlite has no experience with"
    }
  }

  /// What a user should know of it, a sentence a line.
  package var notes: [String] {
    guard name == "kvm_pvm" else { return [] }
    return [
      "Ring 0 is emulated, instruction by instruction; ring 3 runs natively.",
      "A few ring-0 instructions can't be emulated and end the run, such as INT n.",
      "A stock Linux kernel does not boot here: use kvm_intel or kvm_amd for it.",
      "Times and counts of exits are not those of VT-x or AMD-V.",
    ]
  }

  /// What the user of a stock Linux kernel should know before it starts; nil where such kernels run.
  package var warningForLinux: String? {
    guard name == "kvm_pvm" else { return nil }
    return "this host's KVM is kvm_pvm, on which a stock Linux kernel does not boot: it needs "
      + "kvm_intel or kvm_amd (see: kvmlite doctor)"
  }

  /// What to tell the user of a stock kernel that came to nothing here, a sentence a line; none where
  /// such kernels run.
  package var adviceForKernels: [String] {
    guard name == "kvm_pvm" else { return [] }
    return [
      "This host's KVM is kvm_pvm, which emulates ring 0 and lacks some of its instructions: stock",
      "kernels don't get far on it, and what they do takes long. Run this one where the processor",
      "does the work:",
      "  on a machine with kvm_intel or kvm_amd (kvmlite doctor names the back end), or",
      "  on a host with AMD-V made of software, by kvmlite's scripts: scripts/host -- kvmlite ...",
    ]
  }

  /// One thing the processor may do for guests, and whether it is turned on.
  package struct Switch: Sendable, Equatable {
    /// The module's parameter.
    package let name: String
    /// What it is called.
    package let title: String
    /// What it's good for, if it's on.
    package let use: String
    /// Whether it's on; nil if the module doesn't say.
    package let isOn: Bool?
    /// What is so because it's off.
    package let without: String

    /// What its state means for guests.
    package var meaning: String { isOn == false ? without : use }
  }

  /// Whether the processor walks the guest's tables and the host's itself, or KVM keeps shadow tables;
  /// nil where the module doesn't say.
  package var hasNestedPaging: Bool? {
    if name == "kvm_pvm" { return false }
    return switches.first { $0.name == "npt" || $0.name == "ept" }?.isOn
  }

  /// What the back end lets be turned on and off, with how it is now.
  package var switches: [Switch] {
    Self.switches(of: name).map { known in
      Switch(
        name: known.name, title: known.title, use: known.use,
        isOn: parameters[known.name].flatMap(Self.isOn), without: known.without)
    }
  }

  /// Parameters are Y and N, or numbers where older kernels or levels are concerned.
  private static func isOn(_ value: String) -> Bool? {
    switch value {
    case "Y", "y": true
    case "N", "n": false
    default: Int(value).map { $0 != 0 }
    }
  }

  private typealias Known = (name: String, title: String, use: String, without: String)

  private static let nested: Known = (
    "nested", "nested virtualization", "a guest can be a hypervisor itself",
    "a guest can't be a hypervisor itself"
  )

  private static let shadowing = "KVM shadows the guest's page tables: their changes cost exits"
  private static let interrupting = "an interrupt for a guest that runs costs an exit"

  private static func switches(of name: String) -> [Known] {
    switch name {
    case "kvm_intel":
      [
        ("ept", "nested paging (EPT)", "the guest's page tables cost no exits", shadowing),
        (
          "unrestricted_guest", "unrestricted guest", "real mode runs on the processor itself",
          "KVM emulates real mode"
        ),
        (
          "vpid", "tagged TLB (VPID)", "an exit leaves the guest's TLB entries alone",
          "each exit empties the TLB"
        ),
        ("enable_apicv", "APICv", "interrupts reach the guest without an exit", interrupting),
        nested,
      ]
    case "kvm_amd":
      [
        ("npt", "nested paging (NPT)", "the guest's page tables cost no exits", shadowing),
        ("avic", "AVIC", "interrupts reach the guest without an exit", interrupting),
        nested,
      ]
    default: []
    }
  }
}
