import ArgumentParser
import Machine
import Storage

/// What `--disk` takes: a path, or vhost-user=SOCKET, and settings behind commas. A comma of the
/// path's own is doubled, as for QEMU.
struct DiskOption: ExpressibleByArgument {
  let path: String
  /// Whether the path is a socket's, at which another process serves the disk.
  private(set) var isVhostUser = false
  private(set) var open = DiskImage.Options()
  private(set) var bus = Configuration.Disk.Bus.virtio
  private(set) var serial = ""

  init?(argument: String) {
    var parts = Self.parts(of: argument)[...]
    guard let path = parts.popFirst(), !path.isEmpty else { return nil }
    let prefix = "vhost-user="
    isVhostUser = path.hasPrefix(prefix)
    self.path = isVhostUser ? String(path.dropFirst(prefix.count)) : path
    guard !self.path.isEmpty else { return nil }
    for part in parts {
      let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard set(String(words[0]), words.count == 2 ? String(words[1]) : nil) else { return nil }
    }
  }

  private mutating func set(_ name: String, _ value: String?) -> Bool {
    // What is the other process's to say.
    if isVhostUser && name != "bus" { return false }
    switch (name, value) {
    case ("readonly", nil): open.isReadOnly = true
    case ("snapshot", nil): open.isSnapshot = true
    case ("format", let value?):
      guard let format = DiskFormat(rawValue: value) else { return false }
      open.format = format
    case ("bus", let value?):
      guard let bus = Configuration.Disk.Bus(rawValue: value) else { return false }
      self.bus = bus
    case ("serial", let value?):
      // virtio and ATA have room for twenty characters.
      guard value.utf8.count <= 20, value.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) else {
        return false
      }
      serial = value
    default: return false
    }
    return true
  }

  /// `text` cut at single commas, each pair of them made one.
  private static func parts(of text: String) -> [String] {
    var parts = [""]
    var characters = Array(text.unicodeScalars)[...]
    while let character = characters.popFirst() {
      if character != "," {
        parts[parts.count - 1].unicodeScalars.append(character)
      } else if characters.first == "," {
        characters.removeFirst()
        parts[parts.count - 1] += ","
      } else {
        parts.append("")
      }
    }
    return parts
  }

  /// The disk, opened and locked.
  func disk() throws(Failure) -> Configuration.Disk {
    if isVhostUser { return Configuration.Disk(vhostUser: path, bus: bus) }
    do throws(DiskError) {
      let opened = try DiskImage.open(path, open)
      for warning in opened.warnings { Message.note(warning) }
      let store = ReportingDisk(opened, name: path) { Message.note($0) }
      return Configuration.Disk(store, bus: bus, serial: serial)
    } catch { throw Failure(status: error.exitStatus, message: error.description) }
  }
}
