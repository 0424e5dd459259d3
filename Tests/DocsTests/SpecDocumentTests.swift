import Machine
import TestSupport
import Testing

@Suite("docs/spec.md agrees with the code", .limited)
struct SpecDocumentTests {
  private let text: String

  init() throws { text = try Documents.text("docs/spec.md") }

  @Test("each object's table has its keys, with what they take and mean, and no other")
  func keys() throws {
    let objects = SpecKeys.rows.map(\.object).reduce(into: [String]()) { objects, name in
      if objects.last != name { objects.append(name) }
    }
    #expect(text.matches(of: /\n## `([a-z-]+)`/).map { String($0.1) } == objects)
    for object in objects {
      let told = Documents.rows(try Documents.section("## `\(object)`", of: text))
      let real = SpecKeys.rows.filter { $0.object == object }.map { row in
        ["`\(row.key)`", row.takes + (row.isRequired ? "; required" : ""), row.words]
      }
      #expect(told == real, "\(object)")
    }
  }

  @Test("each example is a machine, and each type of device has one")
  func examples() throws {
    let examples = text.matches(of: /```json\n((?s).*?)```/).map { String($0.1) }
    var types: Set<String> = []
    for example in examples {
      do throws(SpecError) {
        let spec = try VMConfiguration(json: Array(example.utf8))
        types.formUnion(spec.devices.map { $0.json["type"]?.text ?? "" })
      } catch { Issue.record("\(example): \(error)") }
    }
    #expect(types.count == VMConfiguration.Device.types.count)
  }
}
