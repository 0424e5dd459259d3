extension VMConfiguration {
  /// The machine that `text` describes as JSON; paths are as they stand there. What it leaves out is
  /// completed.
  package init(json text: [UInt8]) throws(SpecError) {
    let json: JSON
    do throws(JSON.Malformed) { json = try JSON(parsing: text) } catch {
      throw SpecError(error.message, at: error.position)
    }
    try self.init(json)
  }

  /// The machine that `json` describes.
  package init(_ json: JSON) throws(SpecError) {
    self.init()
    try SpecKeys.machine.read(json, into: &self)
    self = completed()
    do throws(SpecError) { try check() } catch {
      throw SpecError(error.message, at: json.position(of: error.path), path: error.path)
    }
  }

  /// Takes what an option says of the machine itself, such as its memory, by the name of the key.
  package mutating func set(_ key: String, _ text: String) throws(SpecError) {
    try SpecKeys.machine.read(setting: key, text, into: &self)
  }

  /// The machine as JSON.
  package var json: JSON { JSON(.object(SpecKeys.machine.print(self))) }
}

extension JSON {
  /// Where the value is that `path` leads to, or else the last one on the way there.
  fileprivate func position(of path: [String]) -> Position? {
    var json = self
    for step in path {
      switch json.value {
      case .object:
        guard let member = json[step] else { return json.position }
        json = member
      case .array(let items):
        guard let index = Int(step), items.indices.contains(index) else { return json.position }
        json = items[index]
      default: return json.position
      }
    }
    return json.position
  }
}

extension VMConfiguration.Device {
  /// A device of the type called `type` from the settings of an option, such as `format=raw`; nil if
  /// there is no such type.
  package init?(type: String, settings: [(name: String, value: String?)]) throws(SpecError) {
    guard let type = SpecKeys.type(type) else { return nil }
    self = type.start
    for setting in settings {
      try type.table.read(setting: setting.name, setting.value, into: &self)
    }
  }

  /// The device as JSON.
  package var json: JSON { SpecKeys.device.print(self) }

  /// The names of all types.
  package static var types: [String] { SpecKeys.devices.map(\.table.name) }
}
