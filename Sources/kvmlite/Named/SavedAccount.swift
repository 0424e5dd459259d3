import Devices
import Host
import Machine

extension MachineStore {
  /// Whether it has no machine called `text`.
  func lacks(_ text: String) -> Bool { MachineName(text).map { !knows($0) } ?? true }
}

/// All that can be told of a saved machine.
struct SavedAccount {
  private let chain: SavedChain
  private let saved: SavedLink
  private let spec: VMConfiguration
  private let disks: [SavedDisk]

  /// Whether `folder` is one that somebody may take for a saved machine.
  static func isThere(_ folder: String) -> Bool {
    FileDescriptor.exists("\(folder)/\(SavedFolder.state)")
  }

  /// Tells of the one in `folder`: what is known of it, even where a save is missing that it needs.
  static func tell(_ folder: String, isJSON: Bool, verifies: Bool) throws(Failure) -> Int32 {
    var chain = SavedChain()
    var trouble: RestoreError?
    do throws(RestoreError) {
      do throws(RestoreError) { try chain.open(folder) } catch {
        guard !chain.links.isEmpty else { throw error }
        trouble = error
      }
      let account = try SavedAccount(chain)
      do { try Message.output(isJSON ? account.json.text : account.text) } catch { return 71 }
      if let trouble { throw trouble }
      guard verifies else { return 0 }
      var progress = LateProgress()
      defer { progress.end() }
      try chain.memory.verify { progress.show($0, of: $1) }
    } catch { throw Failure(error, folder) }
    return 0
  }

  private init(_ chain: SavedChain) throws(RestoreError) {
    self.chain = chain
    saved = chain.links[0]
    spec = try saved.machine.spec()
    disks = try saved.machine.savedDisks()
  }

  private static func condition(_ disk: SavedDisk) -> String {
    do throws(Errno) {
      return switch try disk.stamp.isCurrent() {
      case true?: "as it was"
      case false?: "changed since"
      case nil: "a device, of which nothing is known"
      }
    } catch { return "can't be looked at: \(error)" }
  }

  /// What has to be there besides disks, by the id of what needs it.
  private var needs: [(id: String, what: String)] {
    var needs: [(String, String)] = []
    for console in spec.consoles {
      if let number = console.descriptor { needs.append((console.id, "open file \(number)")) }
      if let path = console.path { needs.append((console.id, path)) }
    }
    for device in spec.devices { if let what = device.need { needs.append((device.id, what)) } }
    return needs
  }

  // MARK: For people

  var text: String {
    var table = TextTable([saved.path, "saved " + (time(saved) ?? "at an unknown time")])
    table.add(["image", printable(spec.firmware ?? spec.image ?? "guest:hello-real")])
    table.add(["memory", byteCount(spec.memorySize)])
    table.add(["VCPUs", "\(spec.vcpuCount)"])
    let (length, allocated) = saved.sizes
    table.add(["memory file", "\(byteCount(length)), of which \(byteCount(allocated)) on disk"])
    if let base = saved.base {
      table.add(["written pages", "\(base.pages.count) of \(length / 4096)"])
    }
    if let end = saved.machine.end {
      table.add(["its run", printable("had ended: \(end.text("end"))")])
    }
    for disk in disks {
      table.add([disk.id, "\(printable(disk.stamp.path)): \(Self.condition(disk))"])
    }
    for (id, what) in needs { table.add([id, "needs \(printable(what))"]) }
    for (link, newer) in zip(chain.links.dropFirst(), chain.links) {
      let size = byteCount(link.sizes.allocated)
      let when = time(link).map { ", saved \($0)" } ?? ""
      table.add(["onto", "\(printable(newer.base?.path ?? link.path)): \(size) on disk\(when)"])
    }
    var sections = TextTable(["SECTION", "VERSION", "SIZE"])
    for section in saved.machine.sections {
      sections.add([
        printable(section.name), "\(section.version)", byteCount(UInt64(section.bytes.count)),
      ])
    }
    return table.text + "\n" + sections.text
  }

  private func printable(_ text: String) -> String { DiskCommand.printable(text) }

  private func time(_ link: SavedLink) -> String? {
    guard let origin = link.origin else { return nil }
    let time = CivilTime(secondsSince1970: origin.time / 1_000_000_000)
    func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(time.year)-\(two(time.month))-\(two(time.day)) "
      + "\(two(time.hour)):\(two(time.minute)):\(two(time.second)) UTC"
  }

  // MARK: For machines

  var json: JSON {
    func text(_ text: String) -> JSON { JSON(.string(text)) }
    func number(_ number: UInt64) -> JSON { JSON(.unsigned(number)) }
    var members = Self.members(saved)
    members.append(
      JSON.Member(
        "disks",
        JSON(
          .array(
            disks.map { disk in
              JSON(
                .object([
                  JSON.Member("id", text(disk.id)), JSON.Member("path", text(disk.stamp.path)),
                  JSON.Member("condition", text(Self.condition(disk))),
                ]))
            }))))
    members.append(
      JSON.Member(
        "needs", JSON(.object(needs.map { JSON.Member($0.id, text($0.what)) }))))
    members.append(
      JSON.Member(
        "onto", JSON(.array(chain.links.dropFirst().map { JSON(.object(Self.members($0))) })))
    )
    members.append(
      JSON.Member(
        "sections",
        JSON(
          .array(
            saved.machine.sections.map { section in
              JSON(
                .object([
                  JSON.Member("name", text(section.name)),
                  JSON.Member("version", number(UInt64(section.version))),
                  JSON.Member("bytes", number(UInt64(section.bytes.count))),
                ]))
            }))))
    if let end = saved.machine.end { members.append(JSON.Member("end", end)) }
    members.append(JSON.Member("spec", spec.json))
    return JSON(.object(members))
  }

  private static func members(_ link: SavedLink) -> [JSON.Member] {
    let (length, allocated) = link.sizes
    var members = [JSON.Member("folder", JSON(.string(link.path)))]
    if let origin = link.origin, let time = UInt64(exactly: origin.time) {
      members.append(JSON.Member("saved_ns", JSON(.unsigned(time))))
    }
    members.append(JSON.Member("memory_bytes", JSON(.unsigned(length))))
    members.append(JSON.Member("memory_on_disk", JSON(.unsigned(allocated))))
    if let base = link.base {
      members.append(JSON.Member("pages", JSON(.unsigned(UInt64(base.pages.count)))))
    }
    return members
  }
}

extension VMConfiguration.Device {
  /// What has to be there for it, besides a disk's files.
  fileprivate var need: String? {
    switch kind {
    case .disk(let disk): disk.descriptor.map { "open file \($0)" } ?? disk.socket
    case .net(let net):
      net.isUser
        ? "passt"
        : net.tap.map { "TAP interface \($0)" }
          ?? net.descriptor.map { "open file \($0)" }
    case .vsock(let vsock): vsock.descriptor.map { "open file \($0)" } ?? vsock.socket
    default: nil
    }
  }
}
