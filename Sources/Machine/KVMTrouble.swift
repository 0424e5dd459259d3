import Host
import KVM

/// Why KVM can't be used, in a user's words, with what mends it.
public enum KVMTrouble: Sendable, Equatable {
  /// There is no /dev/kvm.
  case missing(HostFacts)
  /// There is one, but no hypervisor behind it.
  case noDriver(HostFacts)
  /// This user may not open it.
  case forbidden
  /// Another hypervisor has the processor's virtualization.
  case busy
  /// This KVM lacks something.
  case tooOld(String)
  /// Anything else the kernel said.
  case other(KVMError)

  /// What a request that failed means.
  public init(_ error: KVMError) {
    switch error.errno {
    case .noSuchFile where error.operation == "open": self = .missing(HostFacts.read())
    case .noSuchDevice where error.operation == "open",
      .noSuchAddress where error.operation == "open":
      self = .noDriver(HostFacts.read())
    case .accessDenied, .notPermitted: self = .forbidden
    case .busy: self = .busy
    case .invalidArgument where error.operation == "KVM_GET_API_VERSION":
      self = .tooOld("version \(System.apiVersion) of the KVM API")
    default: self = .other(error)
    }
  }

  /// 77 (EX_NOPERM) for a lack of permission, 71 (EX_OSERR) for a failed request, else 69
  /// (EX_UNAVAILABLE).
  public var exitStatus: Int32 {
    switch self {
    case .forbidden: 77
    case .other: 71
    default: 69
    }
  }

  /// What is wrong, in one line.
  public var summary: String {
    switch self {
    case .missing: "there is no /dev/kvm on this machine"
    case .noDriver: "/dev/kvm is there, but no KVM module serves it"
    case .forbidden: "this user may not open /dev/kvm"
    case .busy: "another hypervisor is using the processor's virtualization"
    case .tooOld(let what): "this machine's KVM is too old: it lacks \(what)"
    case .other(let error): "KVM refused: \(error)"
    }
  }

  /// What mends it: one step a line, the likeliest first.
  public var remedies: [String] {
    switch self {
    case .missing(let facts), .noDriver(let facts): facts.remedies
    case .forbidden:
      [
        "be in the group that owns it: sudo usermod -aG kvm $USER",
        "then log out and in again (a new login; a new window is not enough), and check with: id -nG",
        "for this once: run kvmlite with sudo",
        "in a container: give the device to it and to its user, as with --group-add",
      ]
    case .busy:
      [
        "stop VirtualBox, VMware or another hypervisor that runs now",
        "or unload its module, such as: sudo modprobe -r vboxdrv",
      ]
    case .tooOld: ["boot Linux 5.14 or newer; what runs now: uname -r"]
    case .other: ["see what the kernel says: sudo dmesg | grep -i kvm | tail"]
    }
  }
}

extension KVMTrouble: CustomStringConvertible {
  /// The summary, and below it what mends it.
  public var description: String {
    ([summary] + remedies.map { "  - " + $0 }).joined(separator: "\n")
  }
}

/// What the host's kernel says of its processor and its modules.
public struct HostFacts: Sendable, Equatable {
  /// The processor says that it has VT-x.
  public var hasVTx = false
  /// The processor says that it has AMD-V.
  public var hasAMDV = false
  /// The host is a virtual machine itself.
  public var isVirtual = false
  /// This process runs in a container.
  public var isContainer = false

  /// Reads /proc/cpuinfo and what container engines leave behind.
  public static func read() -> HostFacts {
    var facts = HostFacts()
    let flags = flagWords()
    facts.hasVTx = flags.contains("vmx")
    facts.hasAMDV = flags.contains("svm")
    facts.isVirtual = flags.contains("hypervisor")
    facts.isContainer =
      FileDescriptor.exists("/.dockerenv") || FileDescriptor.exists("/run/.containerenv")
    return facts
  }

  private static func flagWords() -> Set<Substring> {
    guard let file = try? FileDescriptor(opening: "/proc/cpuinfo", [.readOnly]),
      let bytes = try? file.read(atMost: 16384)
    else { return [] }
    let text = String(decoding: bytes, as: UTF8.self)
    let line = text.split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
    return Set(line.split(separator: " "))
  }

  var remedies: [String] {
    var steps: [String] = []
    if isContainer {
      steps.append("in a container: start it with --device /dev/kvm (the host must have it)")
    }
    if hasVTx { steps.append("load the module: sudo modprobe kvm_intel") }
    if hasAMDV { steps.append("load the module: sudo modprobe kvm_amd") }
    if isVirtual {
      steps.append(
        "this machine is a virtual one: turn on nested virtualization for it in its hypervisor")
    } else if hasVTx || hasAMDV {
      steps.append("if that fails: turn on VT-x or SVM in the firmware's (BIOS, UEFI) settings")
    } else {
      steps.append("turn on VT-x (Intel) or SVM (AMD) in the firmware's (BIOS, UEFI) settings")
      steps.append("then load the module: sudo modprobe kvm_intel, or kvm_amd")
    }
    return steps
  }
}
