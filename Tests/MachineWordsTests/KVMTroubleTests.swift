import Doctor
import Host
import KVM
import TestSupport
import Testing

@Suite("What is said where KVM can't be used", .limited)
struct KVMTroubleTests {
  private static let allTroubles: [KVMTrouble] = [
    .missing(HostFacts(cpuinfo: "flags\t\t: fpu vmx", modules: [])),
    .missing(HostFacts(cpuinfo: "flags\t\t: fpu hypervisor", modules: [], isContainer: true)),
    .noDriver(HostFacts(cpuinfo: "", modules: ["kvm"])),
    .impostor,
    .forbidden(nil),
    .forbidden(device(permissions: 0o600, group: 0, "root")),
    .forbidden(device(permissions: 0o660, group: 108, "kvm")),
    .busy([]),
    .tooOld("memory slots (KVM_CAP_USER_MEMORY)"),
    .other(KVMError("KVM_CREATE_VM", .noMemory)),
  ]

  @Test(
    "each trouble says what mends it, and none that everybody may use KVM", arguments: allTroubles)
  func remedies(trouble: KVMTrouble) {
    #expect(!trouble.summary.isEmpty)
    #expect(!trouble.remedies.isEmpty)
    for line in trouble.description.split(separator: "\n") {
      #expect(line.count <= 100)
      #expect(!line.contains("666") && !line.contains("777"))
    }
  }

  @Test("an error number means what the request makes of it")
  func errors() {
    #expect(KVMTrouble(KVMError("open", .noSuchFile)).kind == "missing")
    #expect(KVMTrouble(KVMError("open", .noSuchDevice)).kind == "no-driver")
    #expect(KVMTrouble(KVMError("open", .noSuchAddress)).kind == "no-driver")
    #expect(KVMTrouble(KVMError("open", .accessDenied)).kind == "forbidden")
    #expect(KVMTrouble(KVMError("open", .notPermitted)).kind == "forbidden")
    #expect(KVMTrouble(KVMError("open", .isDirectory)).kind == "impostor")
    #expect(KVMTrouble(KVMError("KVM_GET_API_VERSION", .noSuchRequest)).kind == "impostor")
    #expect(KVMTrouble(KVMError("KVM_CREATE_VM", .busy)).kind == "busy")
    #expect(KVMTrouble(KVMError("KVM_CREATE_VM", .inputOutput)).kind == "busy")
    #expect(KVMTrouble(KVMError("KVM_CREATE_VCPU", .busy)).kind == "other")
    #expect(KVMTrouble(KVMError("KVM_CREATE_VM", .noMemory)).kind == "other")
  }

  @Test("no advice about a processor that can't be looked at")
  func blind() {
    var facts = HostFacts(cpuinfo: "", modules: [])
    #expect(KVMTrouble.missing(facts).description.contains("VT-x"))
    facts.isBlind = true
    #expect(!KVMTrouble.missing(facts).description.contains("VT-x"))
    #expect(KVMTrouble.missing(facts).description.contains("chroot"))
    #expect(!HostFacts.read().isBlind)
  }

  @Test("the processor decides which module is to be loaded")
  func modules() {
    let intel = KVMTrouble.missing(HostFacts(cpuinfo: "flags\t\t: fpu vmx", modules: []))
    #expect(intel.description.contains("modprobe kvm_intel"))
    let amd = KVMTrouble.missing(HostFacts(cpuinfo: "flags\t\t: fpu svm", modules: []))
    #expect(amd.description.contains("modprobe kvm_amd"))
    let neither = KVMTrouble.missing(HostFacts(cpuinfo: "flags\t\t: fpu", modules: []))
    #expect(neither.description.contains("firmware"))
  }

  @Test("a virtual machine without VT-x is told of nested virtualization, not of firmware")
  func nested() {
    let facts = HostFacts(cpuinfo: "flags\t\t: fpu hypervisor", modules: [])
    let words = KVMTrouble.missing(facts).description
    #expect(words.contains("nested virtualization"))
    #expect(!words.contains("firmware"))
  }

  @Test("in a container the first advice is to give it the device")
  func container() {
    let facts = HostFacts(cpuinfo: "flags\t\t: fpu vmx", modules: [], isContainer: true)
    #expect(KVMTrouble.missing(facts).remedies.first?.contains("--device /dev/kvm") == true)
  }

  @Test("a loaded module of another hypervisor is named")
  func otherHypervisor() {
    let facts = HostFacts(cpuinfo: "flags\t\t: fpu vmx", modules: ["kvm", "vboxdrv"])
    #expect(KVMTrouble.missing(facts).description.contains("vboxdrv"))
    #expect(KVMTrouble.busy(["vmmon"]).summary.contains("vmmon"))
  }

  @Test("with the module there, only the device file is missing")
  func deviceFileOnly() {
    let facts = HostFacts(cpuinfo: "flags\t\t: fpu vmx", modules: ["kvm", "kvm_intel"])
    #expect(facts.backEnd == "kvm_intel")
    #expect(KVMTrouble.missing(facts).description.contains("mknod"))
    #expect(!KVMTrouble.missing(facts).description.contains("modprobe"))
  }

  // MARK: Permission

  private static func device(
    permissions: UInt32, group: UInt32, _ name: String, asker: DeviceFile.Asker = .init()
  ) -> DeviceFile {
    DeviceFile(
      Ownership(
        user: 0, group: group, permissions: permissions, device: .init(major: 10, minor: 232)),
      owner: "root", group: name, asker: asker)
  }

  @Test("owner and permissions are shown as ls shows them")
  func ownership() {
    let file = Self.device(permissions: 0o660, group: 108, "kvm")
    #expect(file.description == "crw-rw---- root kvm")
    #expect(KVMTrouble.forbidden(file).summary.contains("(crw-rw---- root kvm)"))
  }

  @Test("who isn't in the device's group is told to join it, by its name, and to log in anew")
  func joinGroup() {
    let words = KVMTrouble.forbidden(Self.device(permissions: 0o660, group: 36, "libvirt"))
      .description
    #expect(words.contains("usermod -aG libvirt $USER"))
    #expect(words.contains("log out and in again"))
    #expect(!words.contains("chmod"))
  }

  @Test("who joined the group after this login is told to log in anew, and nothing else")
  func newLogin() {
    var asker = DeviceFile.Asker()
    asker.isListedInGroup = true
    let file = Self.device(permissions: 0o660, group: 108, "kvm", asker: asker)
    let words = KVMTrouble.forbidden(file).description
    #expect(words.contains("since after this login"))
    #expect(!words.contains("usermod"))
  }

  @Test("a device that is root's alone is given to the group kvm")
  func rootOnly() {
    let words = KVMTrouble.forbidden(Self.device(permissions: 0o600, group: 0, "root")).description
    #expect(words.contains("chgrp kvm /dev/kvm"))
    #expect(words.contains("chmod 660 /dev/kvm"))
    #expect(words.contains("sudo"))
  }

  @Test("root is not told to use sudo")
  func refusedRoot() {
    var asker = DeviceFile.Asker()
    asker.isRoot = true
    let file = Self.device(permissions: 0o600, group: 0, "root", asker: asker)
    let words = KVMTrouble.forbidden(file).description
    #expect(words.contains("container"))
    #expect(!words.contains("usermod"))
    #expect(!words.contains("run kvmlite with sudo"))
  }
}
