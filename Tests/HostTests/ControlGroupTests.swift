import Host
import TestSupport
import Testing

@Suite("Where a process's cgroup is", .limited)
struct ControlGroupTests {
  private static let proc = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"

  @Test(
    "is found by what the kernel says of mounts and groups",
    arguments: [
      // systemd's way
      (
        "35 22 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate",
        "0::/user.slice/user-1000.slice/session-2.scope", "/sys/fs/cgroup",
        "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"
      ),
      // Both versions, and a process that is in the root.
      (
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
          + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        "1:cpu:/a\n0::/", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"
      ),
      // A part of the tree, and a name with a space.
      (
        "35 22 0:29 /a/b /my\\040groups ro - cgroup2 none rw", "0::/a/b/c d", "/my groups",
        "/my groups/c d"
      ),
      ("35 22 0:29 /a/b /g rw - cgroup2 none rw", "0::/a/b", "/g", "/g"),
    ])
  func found(mounts: String, groups: String, top: String, own: String) {
    let tree = ControlGroupTree(mounts: Self.proc + mounts + "\n", groups: groups + "\n")
    #expect(tree?.top == top && tree?.own == own)
  }

  @Test(
    "is nowhere where no tree is mounted that has it",
    arguments: [
      ("", "0::/"), ("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "0::/"),
      ("35 22 0:29 / /sys/fs/cgroup rw - cgroup2 none rw", "4:memory:/a"),
      ("35 22 0:29 /a/b /sys/fs/cgroup rw - cgroup2 none rw", "0::/a/bc"),
      // Outside of what a container sees.
      ("35 22 0:29 / /sys/fs/cgroup rw - cgroup2 none rw", "0::/../other"),
      ("35 22 0:29 / - cgroup2", "0::/"), ("- - - - - - - cgroup2 - -", "0::/x"), ("\\", "0::"),
    ])
  func nowhere(mounts: String, groups: String) {
    #expect(ControlGroupTree(mounts: mounts, groups: groups) == nil)
  }
}
