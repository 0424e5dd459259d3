import ArgumentParser
import Machine

/// What options that describe the machine take, read by the spec's tables of keys.
enum DeviceOptions {
  /// `--disk`: a path, or vhost-user=SOCKET, and settings behind commas. A comma of the path's own is
  /// doubled, as for QEMU.
  static func disk(_ text: String) throws -> VMConfiguration.Device {
    var settings = settings(parts(of: text))
    let first = settings.removeFirst()
    let socket = first.name == "vhost-user" ? first.value : nil
    // A path may have an equals sign.
    let path = parts(of: text)[0]
    settings.insert(socket.map { ("socket", $0) } ?? ("path", path), at: 0)
    if let again = settings.dropFirst().first(where: { ["path", "socket"].contains($0.name) }) {
      throw ValidationError("there is no setting '\(again.name)'")
    }
    return try device("disk", settings)
  }

  /// `--net`: none, user, tap=NAME or fd=N, and settings behind commas; nil for none.
  static func net(_ text: String) throws -> VMConfiguration.Device? {
    if text == "none" { return nil }
    let settings = settings(
      text.split(separator: ",", omittingEmptySubsequences: false).map(String.init))
    let first = settings[0].name
    guard ["user", "tap", "fd"].contains(first) else {
      throw ValidationError(
        "frames go nowhere by '\(first)': give none, user, tap=NAME or fd=N"
          + Spelling.hint(first, among: ["none", "user", "tap", "fd"]))
    }
    if first != "tap", settings.contains(where: { $0.name == "queues" }) {
      throw ValidationError("queues are for tap=NAME alone")
    }
    return try device("net", settings)
  }

  /// `--vsock`: cid=N,socket=PATH. The path comes last and may have commas.
  static func vsock(_ text: String) throws -> VMConfiguration.Device {
    let parts = text.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
    let settings = settings(parts.map(String.init))
    guard settings.map(\.name) == ["cid", "socket"] else {
      let wrong = settings.map(\.name).first { !["cid", "socket"].contains($0) } ?? ""
      throw ValidationError(
        "give cid=N,socket=PATH" + Spelling.hint(wrong, among: ["cid", "socket"]))
    }
    return try device("vsock", settings)
  }

  /// The devices that have an option of their own.
  static let own = ["disk", "net", "vsock"]

  /// `--device`: the name of a type, and settings behind commas.
  static func other(_ text: String) throws -> VMConfiguration.Device {
    var settings = settings(
      text.split(separator: ",", omittingEmptySubsequences: false).map(String.init))
    let name = settings.removeFirst().name
    let names = VMConfiguration.Device.types.filter { !own.contains($0) }
    guard names.contains(name) else {
      let own = own.contains(name) ? ": there is an option --\(name)" : ""
      throw ValidationError(
        "the devices are \(names.joined(separator: ", "))\(own)" + Spelling.hint(name, among: names)
      )
    }
    return try device(name, settings)
  }

  /// `--console`: stdio, pty or pty,wait, none or file=PATH, and ,input=virtio or serial at the end.
  static func console(_ text: String) throws -> VMConfiguration.Console {
    var console = VMConfiguration.Console()
    var words = text[...]
    for device in ConsoleInputDevice.allCases where words.hasSuffix(",input=\(device.rawValue)") {
      console.input = device
      words.removeLast(",input=\(device.rawValue)".count)
      break
    }
    switch words {
    case "stdio": console.isStandard = true
    case "pty": console.isTerminal = true
    case "pty,wait": (console.isTerminal, console.waits) = (true, true)
    case "none": break
    default:
      guard words.hasPrefix("file="), words.count > 5 else {
        throw ValidationError(
          "a console is at stdio, pty, none or file=PATH, with ,input=virtio or ,input=serial behind"
            + consoleHint(words.split(separator: ",").last ?? ""))
      }
      console.path = String(words.dropFirst(5))
    }
    return console
  }

  /// What the last part of a console's words may have been.
  private static func consoleHint(_ part: Substring) -> String {
    if part.hasPrefix("input=") {
      return Spelling.hint(
        String(part.dropFirst(6)), among: ConsoleInputDevice.allCases.map(\.rawValue))
    }
    let word = String(part.prefix { $0 != "=" })
    let names = ["stdio", "pty", "wait", "none", "file=PATH", "input"]
    return Spelling.hint(word == "file" ? "" : word, among: names)
  }

  /// `--limit`: names of limits and their values, with commas between them.
  static func limits(_ text: String) throws -> VMConfiguration.Limits {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    do throws(SpecError) { return try VMConfiguration.Limits(settings: settings(parts)) } catch {
      throw ValidationError(error.message)
    }
  }

  /// What a key of the machine itself takes.
  static func set(
    _ key: String, _ text: String, in spec: inout VMConfiguration
  ) throws {
    do throws(SpecError) { try spec.set(key, text) } catch { throw ValidationError(error.message) }
  }

  private typealias Setting = (name: String, value: String?)

  private static func device(_ type: String, _ settings: [Setting]) throws -> VMConfiguration.Device
  {
    do throws(SpecError) {
      if let device = try VMConfiguration.Device(type: type, settings: settings) { return device }
    } catch { throw ValidationError(error.message) }
    throw ValidationError("there is no device \(type)")
  }

  /// `NAME=VALUE` or `NAME`, each.
  private static func settings(_ parts: [String]) -> [Setting] {
    parts.map { part in
      let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return (String(words.first ?? ""), words.count == 2 ? String(words[1]) : nil)
    }
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
}
