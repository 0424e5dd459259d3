import Machine
import TestSupport
import Testing

@Suite("A machine beside others of the same", .limited)
struct CloneSpecTests {
  private func spec(_ devices: VMConfiguration.Device...) -> VMConfiguration {
    var spec = VMConfiguration()
    spec.devices = devices
    return spec.completed()
  }

  private func clones(
    _ spec: VMConfiguration, _ count: Int = 2
  ) throws -> [VMConfiguration] {
    let store = MachineStore(state: "/state", runtime: "/run")
    return try (1...count).map { number in
      let name = try #require(MachineName("web-\(number)"))
      return try spec.clone(number, at: store.places(name))
    }
  }

  @Test("has images, addresses and sockets of its own, and all else in common")
  func own() throws {
    var net = VMConfiguration.Net()
    net.isUser = true
    net.mac = .init("52:54:00:12:34:56")
    var readOnly = VMConfiguration.Disk(path: "/c.iso")
    readOnly.isReadOnly = true
    // A name may be any text.
    var disk = VMConfiguration.Disk(path: "/a.raw")
    (disk.format, disk.serial) = (.raw, "S1")
    let saved = spec(
      .init(.disk(disk), id: "../../etc"), .init(.disk(readOnly)), .init(.net(net)),
      .init(.vsock(.init(cid: 0xFFFF_FFFE, socket: "/v"))), .init(.rng))
    let clones = try clones(saved)
    #expect(saved.unclonable(2) == nil)
    #expect(
      clones.map(\.devices[0].disk.path) == [
        "/state/web-1/disk-0.qcow2", "/state/web-2/disk-0.qcow2",
      ])
    #expect(clones.allSatisfy { $0.devices[0].disk.format == .qcow2 })
    #expect(clones.allSatisfy { $0.devices[0].disk.serial == "S1" })
    #expect(clones.allSatisfy { $0.devices[1] == saved.devices[1] })
    #expect(clones.allSatisfy { $0.devices[4] == saved.devices[4] })
    #expect(Set(clones.map(\.devices[2].net.mac) + [net.mac]).count == 3)
    #expect(clones.map(\.devices[3].vsock.cid) == [4, 5])
    #expect(
      clones.map(\.devices[3].vsock.socket) == ["/run/web-1/vsock.sock", "/run/web-2/vsock.sock"])
    for clone in clones { try clone.check() }
  }

  @Test("isn't there where something is for one alone")
  func single() throws {
    var tap = VMConfiguration.Net()
    tap.tap = "tap0"
    #expect(spec(.init(.net(tap))).unclonable(1) == nil)
    #expect(
      spec(.init(.net(tap))).unclonable(2) == "net0: only one machine can have the interface tap0")
    var open = VMConfiguration.Disk()
    open.descriptor = 5
    #expect(spec(.init(.disk(open))).unclonable(1)?.hasPrefix("disk0: ") == true)
    var printing = VMConfiguration()
    printing.consoles = [.init()]
    printing.consoles[0].path = "/out"
    #expect(printing.unclonable(1) == nil)
    #expect(printing.unclonable(2) == "console0: only one machine can print to /out")
  }
}
