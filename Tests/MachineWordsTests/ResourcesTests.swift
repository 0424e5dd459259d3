import Foundation
import Host
import Machine
import Memory
import Storage
import TestSupport
import Testing

@Suite("Opening what a machine's description names", .limited)
struct ResourcesTests {
  private let directory: URL
  private let path: (String) -> String

  init() throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "kvmlite-\(UUID())")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    self.directory = directory
    path = { directory.appending(path: $0).path }
    for name in ["a", "b"] { try Data(count: 4096).write(to: URL(filePath: path(name))) }
  }

  private func refusal(_ spec: VMConfiguration) -> ResourceError? {
    defer { try? FileManager.default.removeItem(at: directory) }
    do throws(ResourceError) {
      _ = try Resources(opening: spec)
      return nil
    } catch { return error }
  }

  private func disk(_ name: String, isReadOnly: Bool = false) -> VMConfiguration.Device {
    var disk = VMConfiguration.Disk(path: path(name))
    disk.format = .raw
    disk.isReadOnly = isReadOnly
    return .init(.disk(disk))
  }

  @Test("gives everything by its id")
  func byID() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    var spec = VMConfiguration()
    spec.devices = [disk("a"), disk("b")]
    let resources = try Resources(opening: spec)
    #expect(resources.disks.mapValues(\.size) == ["disk0": 4096, "disk1": 4096])
    #expect(resources.image?.name == "guest:hello-real")
    #expect(resources.user(of: path("b")) == "disk1")
  }

  @Test("gives a module what stands behind its path, unless a file has that for its name")
  func moduleArguments() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    try Data([1]).write(to: URL(filePath: path("c d")))
    var spec = VMConfiguration()
    spec.initrds = [path("a x=1  y"), path("b"), path("c d")]
    let files = try #require(try Resources(opening: spec).initrds)
    #expect(files.map(\.name) == [path("a"), path("b"), path("c d")])
    #expect(files.map(\.arguments) == ["x=1  y", "", ""])
    // What is missing is called by all of its name.
    spec.initrds = [path("e f")]
    #expect("\(try #require(refusal(spec)))".contains("e f"))
  }

  @Test("leaves alone what the caller has")
  func given() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    var spec = VMConfiguration()
    spec.image = "/no/such/image"
    spec.devices = [.init(.disk(.init(path: "/no/such/disk"))), disk("a")]
    spec.consoles[0] = .init()
    spec.consoles[0].path = "/no/such/folder/console"
    var own = DiskImage.Options()
    own.format = .raw
    var given = Resources(image: .init([0xF4]))
    given.disks["disk0"] = try DiskImage.open(path("b"), own).store
    given.console = .init()
    let resources = try Resources(opening: spec, besides: given)
    #expect(resources.image?.bytes == [0xF4])
    #expect(resources.disks["disk0"] === given.disks["disk0"] && resources.disks["disk1"] != nil)
  }

  @Test("says that nobody serves a disk before there is a machine")
  func unservedDisk() throws {
    var disk = VMConfiguration.Disk()
    disk.socket = path("socket")
    var spec = VMConfiguration()
    spec.devices = [.init(.disk(disk))]
    let error = try #require(refusal(spec))
    #expect(error.id == "disk0")
    let words = "\(path("socket")): no disk is served there by vhost-user: "
    #expect(error.description.hasPrefix(words))
  }

  @Test(
    "refuses one file for a disk and the console, and leaves it as it is", arguments: [true, false])
  func diskAndConsole(isReadOnly: Bool) throws {
    var spec = VMConfiguration()
    spec.devices = [disk("a", isReadOnly: isReadOnly)]
    // Another name of the same file.
    try FileManager.default.linkItem(atPath: path("a"), toPath: path("link"))
    spec.consoles[0] = .init()
    spec.consoles[0].path = path("link")
    defer { try? FileManager.default.removeItem(at: directory) }
    do throws(ResourceError) {
      _ = try Resources(opening: spec)
      Issue.record("opened")
    } catch {
      guard case .sameFile(_, let other) = error.cause else { throw error }
      #expect(error.id == "console0" && other == "disk0")
    }
    #expect(try Data(contentsOf: URL(filePath: path("a"))).count == 4096)
  }

  @Test("refuses the image for the console")
  func imageAndConsole() throws {
    var spec = VMConfiguration()
    spec.image = path("a")
    spec.consoles[0] = .init()
    spec.consoles[0].path = path("a")
    guard case .sameFile = refusal(spec)?.cause else {
      Issue.record("opened")
      return
    }
  }

  @Test("refuses two disks in one file, unless both are only read")
  func twoDisks() throws {
    var spec = VMConfiguration()
    spec.devices = [disk("a"), disk("a", isReadOnly: true)]
    guard case .sameFile = refusal(spec)?.cause else {
      Issue.record("opened")
      return
    }
    let both = try ResourcesTests()
    spec.devices = [both.disk("a", isReadOnly: true), both.disk("a", isReadOnly: true)]
    #expect(both.refusal(spec) == nil)
  }

  @Test("says which device has nothing behind it")
  func noBackEnd() {
    for kind: VMConfiguration.Kind in [.disk(.init()), .net(.init()), .vsock(.init(cid: 3))] {
      var spec = VMConfiguration()
      spec.devices = [.init(kind, id: "it")]
      let error = refusal(spec)
      guard case .noBackEnd = error?.cause else {
        Issue.record("\(kind): \(String(describing: error))")
        continue
      }
      #expect(error?.id == "it")
    }
  }

  @Test("says which guest may be meant")
  func guest() {
    var spec = VMConfiguration()
    spec.image = "guest:tik"
    guard case .noGuest("tik", near: "tick") = refusal(spec)?.cause else {
      Issue.record("no hint")
      return
    }
  }
}
