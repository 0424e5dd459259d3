import Host

/// /dev/kvm as a file: who owns it, who may open it, and who asks.
package struct DeviceFile: Sendable, Equatable {
  /// Owner, group and permissions.
  package let ownership: Ownership
  /// The owner's name, or number where it has none.
  package let owner: String
  /// The group's name, or number where it has none.
  package let group: String
  /// Who asks.
  package let asker: Asker

  /// The user of this process.
  package struct Asker: Sendable, Equatable {
    /// Whether it's root.
    package var isRoot = false
    /// Whether this process has the rights of the device's group.
    package var isInGroup = false
    /// Whether the list of groups has the user in it, which counts from the next login on.
    package var isListedInGroup = false
    /// Whether it runs in a container.
    package var isContainer = false

    /// Somebody without any rights.
    package init() {}
  }

  /// The numbers of KVM's device: 10 is that of miscellaneous devices.
  static let deviceNumber = Ownership.Device(major: 10, minor: 232)

  /// Takes all as it is.
  package init(_ ownership: Ownership, owner: String, group: String, asker: Asker) {
    self.ownership = ownership
    self.owner = owner
    self.group = group
    self.asker = asker
  }

  /// Looks at `path`; nil if there is no such file.
  package static func read(_ path: String = "/dev/kvm") -> DeviceFile? {
    guard let ownership = try? Ownership(of: path) else { return nil }
    let users = HostText.contents(of: "/etc/passwd", limit: 1 << 20)
    let groups = HostText.contents(of: "/etc/group", limit: 1 << 20)
    var asker = Asker()
    asker.isRoot = Identity.user == 0
    asker.isInGroup = Identity.groups.contains(ownership.group)
    if let name = HostText.name(of: Identity.user, in: users) {
      asker.isListedInGroup = HostText.members(ofGroup: ownership.group, in: groups).contains(name)
    }
    asker.isContainer = HostFacts.read().isContainer
    return DeviceFile(
      ownership,
      owner: HostText.name(of: ownership.user, in: users) ?? "\(ownership.user)",
      group: HostText.name(of: ownership.group, in: groups) ?? "\(ownership.group)", asker: asker)
  }

  /// Permissions, owner and group as `ls -l` shows them: `crw-rw---- root kvm`.
  package var description: String {
    let letters: [Character] = ["x", "w", "r"]
    var mode = ownership.device == nil ? "-" : "c"
    for bit in (0..<9).reversed() {
      mode.append(ownership.permissions >> UInt32(bit) & 1 == 1 ? letters[bit % 3] : "-")
    }
    return "\(mode) \(owner) \(group)"
  }

  /// Whether the group may read and write, and isn't root's own.
  private var isForGroup: Bool { ownership.permissions & 0o060 == 0o060 && ownership.group != 0 }

  /// What lets this user open it: one step a line, the likeliest first.
  var remedies: [String] {
    if asker.isRoot {
      return [
        "root is refused too, so it isn't the file's permissions:",
        "in a container: start it with --device /dev/kvm; its engine allows devices one by one",
        "otherwise a security module forbids it: sudo dmesg | grep -i denied | tail",
      ]
    }
    var steps: [String] = []
    if isForGroup {
      if asker.isListedInGroup && !asker.isInGroup {
        steps.append("you are in group \(group), but since after this login: log out and in again")
        steps.append("(a new window is not enough; id -nG shows what counts)")
      } else if !asker.isInGroup {
        steps.append("join the group that may open it: sudo usermod -aG \(group) $USER")
        steps.append("then log out and in again (a new window is not enough; id -nG shows it)")
      }
      if asker.isContainer {
        steps.append("in a container: start it with --group-add \(ownership.group)")
      }
    } else {
      steps.append("only \(owner) may open it; give it to the group kvm, as most distributions do:")
      steps.append("sudo groupadd -f kvm; sudo chgrp kvm /dev/kvm; sudo chmod 660 /dev/kvm")
      steps.append("then join that group: sudo usermod -aG kvm $USER, and log out and in again")
    }
    steps.append("for this once: run kvmlite with sudo")
    return steps
  }
}
