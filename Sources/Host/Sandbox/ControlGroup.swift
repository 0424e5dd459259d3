import Glibc

/// A cgroup of a process's own: what it and the programs that it starts may have of the host.
///
/// Who does its errands stays outside, and removes it when all in it have ended, however that was.
package struct ControlGroup: Sendable {
  /// What limits something, by the kernel's name.
  package enum Controller: String, CaseIterable, Sendable {
    case memory, cpu, pids, io
  }

  /// How much there is at most; nil for any amount.
  package struct Limits: Sendable {
    /// Bytes of memory, swapped or not.
    package var memory: UInt64?
    /// So many processors' time, from 0.01 on.
    package var cpus: Double?
    /// How many threads there are.
    package var threads: Int?
    /// Bytes a second that are read from each disk.
    package var readRate: UInt64?
    /// Bytes a second that are written to it.
    package var writeRate: UInt64?

    package init() {}

    /// What takes it to keep them.
    package var controllers: [Controller] {
      Controller.allCases.filter { controller in
        switch controller {
        case .memory: memory != nil
        case .cpu: cpus != nil
        case .pids: threads != nil
        case .io: readRate != nil || writeRate != nil
        }
      }
    }

    /// The same, and what else it takes: whose a page is that is written later only `memory` knows.
    fileprivate var needed: Set<Controller> {
      Set(controllers).union(writeRate == nil ? [] : [.memory])
    }
  }

  private let limits: Limits
  /// Where it is; nil where nothing can be limited.
  private var directory: String?
  private var lacks: [Controller: String] = [:]

  /// Makes one that keeps `limits` as far as the host can, and moves this process there, which has
  /// neither threads nor programs yet, and has taken no memory for its work. `broker` removes it. If it
  /// runs out of memory, that says `words`, to `error` among others.
  package init(
    _ limits: Limits, _ broker: Broker, words: ControlGroupEnd.Words, error: Int32?
  ) {
    self.limits = limits
    let wanted = limits.needed
    guard let tree = ControlGroupTree() else {
      for controller in wanted {
        lacks[controller] =
          "no cgroups of version 2 are mounted here: mount -t cgroup2 none /sys/fs/cgroup"
      }
      return
    }
    let place = ControlGroupPlace(for: wanted, in: tree)
    for controller in wanted where place?.controllers.contains(controller) != true {
      lacks[controller] = ControlGroupPlace.lack(of: controller, in: tree)
    }
    if let place { enter(place, broker, words, error) }
  }

  private mutating func enter(
    _ place: ControlGroupPlace, _ broker: Broker, _ words: ControlGroupEnd.Words, _ error: Int32?
  ) {
    let directory = place.parent + "/kvmlite-\(getpid())"
    self.directory = directory
    do throws(Errno) {
      // Before there is anything to be removed.
      let end = ControlGroupEnd(directory, place, words)
      try broker.add(end, error: error)
      if let helpers = end.helpers { try Self.move(place.leaving, to: helpers) }
      handOn(place)
      try ControlGroupTree.make(directory)
      configure(directory)
      try ControlGroupTree.write("0", to: directory + "/cgroup.procs")
    } catch let lack {
      for controller in limits.needed where lacks[controller] == nil {
        lacks[controller] = "\(directory) can't be made, or entered: \(lack)"
      }
    }
  }

  private static func move(_ processes: [Int32], to helpers: String) throws(Errno) {
    try ControlGroupTree.make(helpers)
    for process in processes {
      try ControlGroupTree.write("\(process)", to: helpers + "/cgroup.procs")
    }
  }

  private mutating func handOn(_ place: ControlGroupPlace) {
    let there = ControlGroupTree.handedOn(by: place.parent)
    for controller in place.controllers.subtracting(there) {
      let path = place.parent + "/cgroup.subtree_control"
      do throws(Errno) { try ControlGroupTree.write("+\(controller.rawValue)", to: path) } catch {
        lacks[controller] = "\(path) can't be written: \(error)"
      }
    }
  }

  private mutating func configure(_ directory: String) {
    func write(_ controller: Controller, _ file: String, _ value: String) {
      guard lacks[controller] == nil else { return }
      let path = directory + "/" + file
      do throws(Errno) { try ControlGroupTree.write(value, to: path) } catch {
        lacks[controller] = "\(path) can't be written: \(error)"
      }
    }
    if let bytes = limits.memory {
      write(.memory, "memory.max", "\(bytes)")
      // What isn't in memory would be on a disk instead; and what is left of a machine that has lost one
      // of its processes is none. Kernels without swap, and those before 4.19, don't have these.
      try? ControlGroupTree.write("0", to: directory + "/memory.swap.max")
      try? ControlGroupTree.write("1", to: directory + "/memory.oom.group")
    }
    if let cpus = limits.cpus {
      write(.cpu, "cpu.max", "\(Int((cpus * 100_000).rounded())) 100000")
    }
    if let threads = limits.threads { write(.pids, "pids.max", "\(threads)") }
    if limits.controllers.contains(.io), lacks[.io] == nil,
      !FileDescriptor.exists(directory + "/io.max")
    {
      lacks[.io] = "the kernel was made without io.max (BLK_DEV_THROTTLING)"
    }
  }

  /// Limits what goes from and to the disks on which all lies that this process has open: what it needs,
  /// and `files` by their names. Returns what came of all limits.
  package func finish(files: [String]) -> [Confinement.Layer] {
    limits.controllers.map { controller in
      let lack = lacks[controller] ?? (controller == .io ? limitDisks(files) : nil)
      return Confinement.Layer(controller.layer, lack: lack)
    }
  }

  /// Returns why not; nil if it could.
  private func limitDisks(_ files: [String]) -> String? {
    guard let directory else { return nil }
    let rates = [("rbps", limits.readRate), ("wbps", limits.writeRate)]
    let words = rates.compactMap { name, rate in rate.map { " \(name)=\($0)" } }.joined()
    for disk in HostDisk.all() {
      let path = directory + "/io.max"
      do throws(Errno) { try ControlGroupTree.write("\(disk)\(words)", to: path) } catch {
        return "\(path) can't be written for the disk \(disk): \(error)"
      }
    }
    if limits.writeRate != nil, let lack = lacks[.memory] {
      return "what is written by the page cache takes the controller 'memory', too: \(lack)"
    }
    let others = files.filter { HostDisk(of: $0) == nil }
    return others.isEmpty
      ? nil
      : others.joined(separator: ", ") + " lies on no disk of the host's own, but on a file system "
        + "such as tmpfs, overlayfs or btrfs: put it on one such as ext4 or XFS"
  }
}

extension ControlGroup.Controller {
  /// What it is for.
  var layer: Confinement.Layer.Kind {
    switch self {
    case .memory: .memoryLimit
    case .cpu: .processorLimit
    case .pids: .threadLimit
    case .io: .diskLimit
    }
  }
}
