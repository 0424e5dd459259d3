import Glibc

/// Where this process can make a cgroup of its own, and what that can limit.
struct ControlGroupPlace {
  /// The directory of the group that it is made in.
  let parent: String
  /// What it can limit there.
  let controllers: Set<ControlGroup.Controller>
  /// The processes that have to leave `parent`: but for the root, a group that hands controllers on has
  /// no processes.
  let leaving: [Int32]

  /// The place where most of `wanted` can be limited; nil if nothing can.
  ///
  /// That is below the group that this process is in, if nobody else is there, for then somebody made it
  /// for this one; or beside it.
  init?(for wanted: Set<ControlGroup.Controller>, in tree: ControlGroupTree) {
    let below = Self.mayHandOn(tree) ? ControlGroupTree.controllers(of: tree.own) : []
    let beside = tree.parent.map {
      ControlGroupTree.isOpen($0) ? ControlGroupTree.handedOn(by: $0) : []
    }
    let (inner, outer) = (below.intersection(wanted), beside?.intersection(wanted) ?? [])
    if let parent = tree.parent, outer.count > inner.count {
      (self.parent, controllers, leaving) = (parent, outer, [])
    } else {
      guard !inner.isEmpty else { return nil }
      (parent, controllers) = (tree.own, inner)
      leaving = tree.ownIsRoot ? [] : ControlGroupTree.processes(in: tree.own)
    }
  }

  /// Whether groups with limits can be made in the group that this process is in.
  private static func mayHandOn(_ tree: ControlGroupTree) -> Bool {
    ControlGroupTree.isOpen(tree.own)
      && (tree.ownIsRoot || ControlGroupTree.processes(in: tree.own).allSatisfy(isOurs))
  }

  /// Whether `process` is this one, one that it has started, or the same program waiting for it.
  private static func isOurs(_ process: Int32) -> Bool {
    var ancestor = process
    while ancestor > 1 {
      if ancestor == getpid() { return true }
      ancestor = parent(of: ancestor)
    }
    let program = FileName.target(of: "/proc/\(process)/exe")
    return process == getppid() && program != nil
      && program == FileName.target(of: "/proc/self/exe")
  }

  private static func parent(of process: Int32) -> Int32 {
    // The name before it may have anything in it but comes in brackets (proc(5)).
    let words = ControlGroupTree.text(of: "/proc/\(process)/stat").split(separator: ")").last?
      .split(separator: " ")
    return words?.dropFirst().first.flatMap { Int32($0) } ?? 0
  }

  /// Why `controller` can limit nothing here, and what to do.
  static func lack(of controller: ControlGroup.Controller, in tree: ControlGroupTree) -> String {
    guard ControlGroupTree.controllers(of: tree.top).contains(controller) else {
      return "cgroup version 2 has no controller '\(controller.rawValue)' at \(tree.top): boot the "
        + "host with cgroup_no_v1=all"
    }
    let why =
      if !ControlGroupTree.isOpen(tree.own) {
        "you may make no cgroup in \(tree.own)"
      } else if !ControlGroupTree.controllers(of: tree.own).contains(controller) {
        "\(tree.own) has not been given the controller '\(controller.rawValue)'"
      } else {
        "there are other processes in \(tree.own)"
      }
    let user = geteuid() == 0 ? "" : "--user "
    return "\(why): start kvmlite by systemd-run \(user)--scope -p Delegate=yes"
  }
}
