import Host
import KVM

/// Why KVM can't be used, in a user's words, with what mends it.
package enum KVMTrouble: Sendable, Equatable {
  /// There is no /dev/kvm.
  case missing(HostFacts)
  /// There is one, but no hypervisor behind it.
  case noDriver(HostFacts)
  /// There is a file of that name, but it isn't KVM's device.
  case impostor
  /// This user may not open it; how the file is, if that can be seen.
  case forbidden(DeviceFile?)
  /// Another hypervisor has the processor's virtualization; its modules, if any are known.
  case busy([String])
  /// This KVM lacks something.
  case tooOld(String)
  /// Anything else the kernel said.
  case other(KVMError)

  /// What a request that failed means.
  package init(_ error: KVMError) {
    let isOpen = error.operation == "open"
    let makesVM = error.operation == "KVM_CREATE_VM"
    switch error.errno {
    case .noSuchFile where isOpen: self = .missing(HostFacts.read())
    case .noSuchDevice where isOpen, .noSuchAddress where isOpen:
      self = .noDriver(HostFacts.read())
    case .accessDenied where isOpen, .notPermitted where isOpen:
      self = .forbidden(DeviceFile.read())
    // A file of a read-only file system can't be written, but a device there could be.
    case .isDirectory where isOpen, .readOnlyFileSystem where isOpen,
      .noSuchRequest where error.operation == "KVM_GET_API_VERSION":
      self = .impostor
    // EBUSY, or EIO from newer kernels: the processor would not start its virtualization.
    case .busy where isOpen || makesVM, .inputOutput where makesVM:
      self = .busy(HostFacts.read().otherHypervisors)
    case .invalidArgument where error.operation == "KVM_GET_API_VERSION":
      self = .tooOld("version \(System.apiVersion) of the KVM API")
    default: self = .other(error)
    }
  }

  /// One word for machines: `missing`, `no-driver`, `impostor`, `forbidden`, `busy`, `too-old` or
  /// `other`.
  package var kind: String {
    switch self {
    case .missing: "missing"
    case .noDriver: "no-driver"
    case .impostor: "impostor"
    case .forbidden: "forbidden"
    case .busy: "busy"
    case .tooOld: "too-old"
    case .other: "other"
    }
  }

  /// What is wrong, in one line.
  package var summary: String {
    switch self {
    case .missing: "there is no /dev/kvm on this machine"
    case .noDriver: "/dev/kvm is there, but no KVM module serves it"
    case .impostor: "there is a /dev/kvm, but it is not KVM's device"
    case .forbidden(let file):
      "this user may not open /dev/kvm" + (file.map { " (\($0.description))" } ?? "")
    case .busy(let others):
      "another hypervisor is using the processor's virtualization"
        + (others.isEmpty ? "" : ": " + others.joined(separator: ", ") + " is loaded")
    case .tooOld(let what): "this machine's KVM is too old: it lacks \(what)"
    case .other(let error): "KVM refused: \(error)"
    }
  }

  /// What mends it: one step a line, the likeliest first. A line that starts with spaces belongs to
  /// the one before it.
  package var remedies: [String] {
    switch self {
    case .missing(let facts), .noDriver(let facts): return facts.remedies
    case .impostor:
      return [
        "in a container: start it with --device /dev/kvm (its host must have it)",
        "look at it: ls -l /dev/kvm; KVM's is a character device, 10, 232",
        "if it was made by mistake: remove it and load kvm_intel or kvm_amd anew, which makes it",
      ]
    case .forbidden(let file): return file?.remedies ?? ["for this once: run kvmlite with sudo"]
    case .busy(let others):
      let module = others.isEmpty ? "vboxdrv, for VirtualBox" : others.joined(separator: " ")
      return [
        "stop the other hypervisor's virtual machines: VirtualBox, VMware and the like",
        "if that isn't enough, unload its module: sudo modprobe -r \(module)",
        "what the kernel says: sudo dmesg | grep -i kvm | tail",
      ]
    case .tooOld: return ["boot a newer Linux, 5.14 or later; what runs now: uname -r"]
    case .other: return ["see what the kernel says: sudo dmesg | grep -i kvm | tail"]
    }
  }
}

extension KVMTrouble: CustomStringConvertible {
  /// The summary, below it what mends it, and where to learn more.
  package var description: String {
    let steps = remedies.map { ($0.hasPrefix(" ") ? "    " : "  - ") + $0 }
    return ([summary] + steps + ["kvmlite doctor says more of this machine"])
      .joined(separator: "\n")
  }
}
