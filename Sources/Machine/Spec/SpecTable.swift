/// One key of an object in a spec.
struct SpecKey<Object>: Sendable {
  /// Its name.
  let name: String
  /// What it takes.
  let takes: String
  /// What it means.
  let words: String
  /// Whether it has to be there.
  let isRequired: Bool
  /// The keys of the object that it takes, if they are this object's too.
  var inner: [SpecKey] = []
  fileprivate let read: @Sendable (JSON, inout Object) throws(SpecError) -> Void
  /// What it prints; nil for nothing.
  fileprivate let print: @Sendable (Object) -> JSON?
  fileprivate let setting: @Sendable (String?) -> JSON

  /// A key that is always printed.
  init<Value>(
    _ name: String, _ property: any WritableKeyPath<Object, Value> & Sendable,
    _ type: SpecType<Value>, required: Bool = false, _ words: String
  ) {
    self.init(name, property, type, required: required, words, prints: { _ in true })
  }

  /// A key that is printed only where it isn't `usual`.
  init<Value: Equatable>(
    _ name: String, _ property: any WritableKeyPath<Object, Value> & Sendable,
    _ type: SpecType<Value>, usual: Value, _ words: String
  ) {
    self.init(name, property, type, required: false, words, prints: { $0 != usual })
  }

  /// A key that is printed only where there is something.
  init<Value>(
    _ name: String, _ property: any WritableKeyPath<Object, Value?> & Sendable,
    _ type: SpecType<Value>, required: Bool = false, _ words: String
  ) {
    self.init(
      name: name, takes: type.words, words: words, isRequired: required,
      read: { (json, object) throws(SpecError) in
        object[keyPath: property] = try type.value(of: json)
      },
      print: { $0[keyPath: property].map(type.print) }, setting: type.setting)
  }

  /// A key whose value is an object with keys for the same object; not printed where none of them is.
  init(_ name: String, _ inner: [SpecKey], _ words: String) {
    let table = SpecTable<Object>(name, words, inner)
    self.init(
      name: name, takes: "an object", words: words, isRequired: false, inner: inner,
      read: { (json, object) throws(SpecError) in try table.read(json, into: &object) },
      print: { object in
        let members = table.print(object)
        return members.isEmpty ? nil : JSON(.object(members))
      }, setting: { _ in JSON(.null) })
  }

  /// A key that says what is known already, and has to say it.
  init(_ name: String, constant: JSON.Value, _ words: String) {
    let text = JSON(constant).text.dropLast()
    self.init(
      name: name, takes: String(text), words: words, isRequired: true,
      read: { (json, _) throws(SpecError) in
        guard json.value == constant else {
          throw SpecError("\(text) is possible here, and nothing else", at: json.position)
        }
      }, print: { _ in JSON(constant) }, setting: { JSON(.string($0 ?? "")) })
  }

  private init<Value>(
    _ name: String, _ property: any WritableKeyPath<Object, Value> & Sendable,
    _ type: SpecType<Value>, required: Bool, _ words: String,
    prints: @escaping @Sendable (Value) -> Bool
  ) {
    self.init(
      name: name, takes: type.words, words: words, isRequired: required,
      read: { (json, object) throws(SpecError) in
        object[keyPath: property] = try type.value(of: json)
      },
      print: { object in
        let value = object[keyPath: property]
        return prints(value) ? type.print(value) : nil
      }, setting: type.setting)
  }

  private init(
    name: String, takes: String, words: String, isRequired: Bool, inner: [SpecKey] = [],
    read: @escaping @Sendable (JSON, inout Object) throws(SpecError) -> Void,
    print: @escaping @Sendable (Object) -> JSON?, setting: @escaping @Sendable (String?) -> JSON
  ) {
    self.name = name
    self.takes = takes
    self.words = words
    self.isRequired = isRequired
    self.inner = inner
    self.read = read
    self.print = print
    self.setting = setting
  }
}

extension SpecType {
  /// The value that `json` spells.
  fileprivate func value(of json: JSON) throws(SpecError) -> Value {
    if let value = try read(json) { return value }
    let found = if case .string(let text) = json.value { JSON.shown(text) } else { json.kind }
    throw SpecError("\(words) is possible here, not \(found)", at: json.position)
  }
}

/// An object in a spec: the table of its keys, from which it is read, printed and described.
struct SpecTable<Object>: Sendable {
  /// What the object is called.
  let name: String
  /// What it is.
  let words: String
  let keys: [SpecKey<Object>]

  init(_ name: String, _ words: String, _ keys: [SpecKey<Object>]) {
    self.name = name
    self.words = words
    self.keys = keys
  }

  /// Takes what `json`, an object, says into `object`.
  func read(_ json: JSON, into object: inout Object) throws(SpecError) {
    guard let members = json.members else {
      throw SpecError("an object is possible here, not \(json.kind)", at: json.position)
    }
    for member in members {
      guard let key = keys.first(where: { $0.name == member.name }) else {
        let names = keys.map(\.name)
        throw SpecError(
          "unknown key \(JSON.shown(member.name))"
            + (Spelling.nearest(to: member.name, among: names).map { ": did you mean '\($0)'?" }
              ?? "; there are: " + names.joined(separator: ", ")),
          at: member.position)
      }
      do throws(SpecError) { try key.read(member.value, &object) } catch {
        // What has a longer name is said by that.
        guard error.path.isEmpty, member.value.position == error.position else { throw error }
        throw SpecError("\(key.name): \(error.message)", at: error.position, path: [key.name])
      }
    }
    for key in keys where key.isRequired && !members.contains(where: { $0.name == key.name }) {
      throw SpecError("the key '\(key.name)' is missing: \(key.takes)", at: json.position)
    }
  }

  /// The object's members, in the table's order.
  func print(_ object: Object) -> [JSON.Member] {
    keys.compactMap { key in key.print(object).map { JSON.Member(key.name, $0) } }
  }

  /// Takes the setting of an option, such as `format=raw`, into `object`: keys of the object or of
  /// one in it. Required keys aren't asked for.
  func read(setting name: String, _ text: String?, into object: inout Object) throws(SpecError) {
    let all = keys.flatMap { $0.inner.isEmpty ? [$0] : $0.inner }
    guard let key = all.first(where: { $0.name == name }) else {
      let names = all.map(\.name)
      throw SpecError(
        "there is no setting \(JSON.shown(name))"
          + (Spelling.nearest(to: name, among: names).map { ": did you mean '\($0)'?" } ?? ""))
    }
    do throws(SpecError) { try key.read(key.setting(text), &object) } catch {
      throw SpecError("\(name): \(error.message)")
    }
  }
}

/// A row of the tables of keys, for the docs.
package struct SpecRow: Sendable {
  /// The object's name, the key, what it takes, and what it means.
  package let object, key, takes, words: String
  /// Whether it has to be there.
  package let isRequired: Bool
}

extension SpecTable {
  /// Its keys, each before those of the object that it takes.
  var rows: [SpecRow] {
    func rows(_ keys: [SpecKey<Object>], _ prefix: String) -> [SpecRow] {
      keys.flatMap { key in
        [
          SpecRow(
            object: name, key: prefix + key.name, takes: key.takes, words: key.words,
            isRequired: key.isRequired)
        ] + rows(key.inner, prefix + key.name + ".")
      }
    }
    return rows(keys, "")
  }
}
