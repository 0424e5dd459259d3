import Boot
import Machine
import Memory
import TestSupport
import Testing

@Suite("A machine's description", .limited)
struct SpecTests {
  private func read(_ text: String) throws(SpecError) -> VMConfiguration {
    try VMConfiguration(json: Array(text.utf8))
  }

  /// A machine with `devices`, each on a line of its own from the third on.
  private func read(devices: String...) throws(SpecError) -> VMConfiguration {
    try read("{ \"version\": 1,\n\"devices\": [\n" + devices.joined(separator: ",\n") + "] }")
  }

  private func refusal(_ text: String) -> String {
    do throws(SpecError) { _ = try read(text) } catch { return error.description }
    return "no refusal"
  }

  @Test("that says nothing is the hello guest's")
  func least() throws {
    #expect(try read("{\"version\": 1}") == VMConfiguration().completed())
    #expect(VMConfiguration().completed().image == "guest:hello-real")
  }

  @Test("that says everything is read, printed and read as the same")
  func everything() throws {
    var spec = VMConfiguration()
    spec.image = "dir/kernel"
    (spec.mode, spec.loadAddress) = (.long, 0x20000)
    (spec.initrds, spec.append) = (["a", "b,c"], "quiet \"x\"")
    (spec.memorySize, spec.vcpuCount, spec.cpu) = (1536 << 20, 7, .baseline)
    spec.consoles[0] = .init()
    spec.consoles[0].path = "log"
    spec.consoles[0].input = .virtio
    var disk = VMConfiguration.Disk(path: "d.qcow2", bus: .ide)
    (disk.format, disk.isReadOnly, disk.isSnapshot, disk.serial) = (.qcow2, true, true, "S 1")
    var remote = VMConfiguration.Disk(bus: .mmio)
    remote.socket = "s"
    var user = VMConfiguration.Net()
    (user.isUser, user.mac, user.mtu) = (true, .init("52:54:00:00:00:01"), 1400)
    var tap = VMConfiguration.Net()
    (tap.tap, tap.queueCount) = ("tap0", 4)
    spec.devices = [
      .init(.disk(disk), id: "root", place: .ide(0)), .init(.disk(remote), place: .mmio(1)),
      .init(.net(user), place: .pci(.init(device: 5))), .init(.net(tap)),
      .init(.vsock(.init(cid: 3, socket: "v"))), .init(.rng), .init(.balloon(.init(target: 4096))),
      .init(.testDevice),
    ]
    spec = spec.completed()
    #expect(
      spec.devices.map(\.id) == [
        "root", "disk0", "net0", "net1", "vsock0", "rng0", "balloon0", "testdev0",
        "virtio-console0",
      ])
    let again = try read(spec.json.text)
    #expect(again == spec)
    #expect(again.json.text == spec.json.text)
  }

  @Test(
    "is refused with line, column and what is meant",
    arguments: [
      ("{\"version\":1,\n \"memroy\":\"1G\"}", "2:2: unknown key 'memroy': did you mean 'memory'?"),
      (
        "{\"version\":1,\n \"memory\":512}",
        "2:11: memory: 512 bytes is impossible: did you mean 512M?"
      ),
      (
        "{\"version\":1,\n \"memory\":\"512\"}",
        "2:11: memory: 512 bytes is impossible: did you mean 512M?"
      ),
      (
        "{\"version\":1,\"cpus\":\"2\"}",
        "1:21: cpus: a number from 1 to 1000000 is possible here, not '2'"
      ),
      (
        "{\"version\":1,\"cpus\":0}",
        "1:21: cpus: a number from 1 to 1000000 is possible here, not a number"
      ),
      (
        "{\"version\":1,\"cpu\":\"bsaeline\"}",
        "1:20: cpu: host or baseline is possible here, not 'bsaeline': did you mean 'baseline'?"
      ),
      ("{\"version\":2}", "1:12: version: 1 is possible here, and nothing else"),
      ("{}", "1:1: the key 'version' is missing: 1"),
      ("[]", "1:1: an object is possible here, not a list"),
      (
        "{\"version\":1,\"devices\":[{}]}",
        "1:25: the key 'type' is missing: one of disk, net, vsock, rng, balloon, virtio-console, testdev"
      ),
      (
        "{\"version\":1,\"image\":\"a\",\"firmware\":\"b\"}",
        "1:37: firmware starts from a disk, not from an image: give only one of both"
      ),
      (
        "{\"version\":1,\"memory\":\"1M\",\n\"devices\":[{\"type\":\"balloon\",\"target\":\"2M\"}]}",
        "2:39: balloon0: a balloon of 2M is more than the memory of 1M"
      ),
    ])
  func refused(text: String, message: String) { #expect(refusal(text) == message) }

  @Test(
    "is refused for devices that can't be",
    arguments: [
      ("{\"type\":\"dsk\"}", "did you mean 'disk'?"),
      (
        "{\"type\":\"disk\",\"backend\":{\"path\":\"a\",\"redonly\":true}}",
        "did you mean 'readonly'?"
      ),
      (
        "{\"type\":\"disk\",\"backend\":{\"path\":\"a\",\"socket\":\"b\"}}",
        "one of path, fd and socket"
      ),
      ("{\"type\":\"disk\",\"bus\":\"ide\",\"backend\":{\"socket\":\"b\"}}", "virtio's alone"),
      (
        "{\"type\":\"disk\",\"backend\":{\"socket\":\"b\",\"readonly\":true}}",
        "the other process's"
      ),
      ("{\"type\":\"disk\",\"serial\":\"123456789012345678901\"}", "up to 20"),
      ("{\"type\":\"disk\",\"place\":\"00:01.0\"}", "there are 00:02.0 to 00:1f.0"),
      ("{\"type\":\"disk\",\"place\":\"ide0\"}", "ide0 is no place for it"),
      ("{\"type\":\"disk\",\"bus\":\"ide\",\"place\":\"ide1\"}", "there are ide0 to ide0"),
      ("{\"type\":\"disk\",\"place\":\"ide4\",\"bus\":\"ide\"}", "a place such as"),
      ("{\"type\":\"disk\",\"backend\":{\"path\":\"a\\u0000b\"}}", "a path"),
      ("{\"type\":\"net\",\"backend\":{\"user\":true,\"tap\":\"a\"}}", "one end"),
      ("{\"type\":\"net\",\"backend\":{\"user\":true,\"queues\":2}}", "for tap alone"),
      ("{\"type\":\"net\",\"backend\":{\"tap\":\"a/b\"}}", "an interface's name"),
      ("{\"type\":\"net\",\"mac\":\"03:00:00:00:00:01\"}", "a card's address"),
      ("{\"type\":\"net\",\"mtu\":67}", "from 68 to 65535"),
      ("{\"type\":\"vsock\",\"cid\":2}", "from 3 to 4294967294"),
      ("{\"type\":\"vsock\"}", "'cid' is missing"),
      ("{\"type\":\"testdev\",\"place\":\"00:02.0\"}", "unknown key 'place'"),
      ("{\"type\":\"rng\",\"id\":\"a b\"}", "an id"), ("{\"type\":\"rng\",\"id\":\"\"}", "an id"),
      ("{\"type\":\"rng\"},{\"type\":\"rng\"}", "no more than one rng"),
      ("{\"type\":\"rng\",\"id\":\"console0\"}", "'console0' is the id of the console already"),
      (
        "{\"type\":\"disk\",\"id\":\"rng0\"},{\"type\":\"rng\",\"id\":\"rng0\"}",
        "'rng0' is the id of device 0 already"
      ),
      (
        "{\"type\":\"rng\",\"place\":\"00:02.0\"},{\"type\":\"disk\",\"place\":\"00:02.0\"}",
        "rng0 is at that place already"
      ),
    ])
  func refusedDevices(device: String, words: String) {
    let message = refusal("{\"version\":1,\n\"devices\":[\n\(device)]}")
    #expect(message.hasPrefix("3:") && message.contains(words), "\(message)")
  }

  @Test("is refused in words that leave a terminal alone")
  func hostileWords() {
    let key = "\\u001b]0;x\\u009b" + String(repeating: "a", count: 1000)
    for text in [
      "{\"version\":1,\"\(key)\":1}", "{\"version\":1,\"cpu\":\"\(key)\"}",
      "{\"version\":1,\"\(key)\":1,\"\(key)\":1}",
    ] {
      let message = refusal(text)
      #expect(message.count < 400 && message.contains("\\u001b"), "\(message)")
      #expect(!message.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x9B })
    }
  }

  @Test("has paths that can be seen from elsewhere, but for built-in guests")
  func paths() throws {
    var spec = try read(
      devices: "{\"type\":\"disk\",\"backend\":{\"path\":\"d\"}}",
      "{\"type\":\"disk\",\"backend\":{\"socket\":\"s\"}}",
      "{\"type\":\"vsock\",\"cid\":3,\"backend\":{\"socket\":\"v\"}}")
    spec.initrds = ["i"]
    spec.changePaths { "dir/" + $0 }
    #expect(spec.image == "guest:hello-real" && spec.initrds == ["dir/i"])
    let text = spec.json.text
    for path in ["\"dir/d\"", "\"dir/s\"", "\"dir/v\""] { #expect(text.contains(path)) }
  }

  @Test("gives devices without an id one that is free")
  func ids() throws {
    let spec = try read(
      devices: "{\"type\":\"disk\"}", "{\"type\":\"disk\",\"id\":\"disk0\"}", "{\"type\":\"disk\"}")
    #expect(spec.devices.map(\.id) == ["disk1", "disk0", "disk2"])
  }

  @Test(
    "has sizes as people write them",
    arguments: [
      ("512M", 512 << 20), ("1.5G", 1536 << 20), ("4k", 4096), ("4KiB", 4096), ("4kb", 4096),
      ("4KB", 4096), ("1T", 1 << 40), ("0.3M", 311_296), ("1.5K", 1536), ("17", 17),
      ("16777215T", 16_777_215 << 40), ("", nil), ("M", nil), ("1.5", nil), ("1.M", nil),
      (".5M", nil),
      ("-1M", nil), ("+1M", nil), ("1 M", nil), ("1Q", nil), ("1MM", nil), ("1.2.3M", nil),
      ("16777216T", nil), ("99999999999999999999", nil), ("1e3", nil), ("0x10", nil), ("٣M", nil),
      ("1.0000000001M", nil),
    ] as [(String, UInt64?)])
  func sizes(text: String, bytes: UInt64?) { #expect(ByteCount.parse(text) == bytes) }

  @Test("has sizes printed that read as the same")
  func printedSizes() {
    for bytes: UInt64 in [0, 1, 1023, 1024, 1 << 20, 1536 << 20, 3 << 40, .max, 1 << 63] {
      #expect(ByteCount.parse(ByteCount.text(bytes)) == bytes)
    }
  }

  @Test("knows which name is meant")
  func spelling() {
    let names = ["memory", "mode", "image", "cpus", "cpu"]
    let meant = ["memroy", "Memory", "imgae", "cpuz", "mod", "kernel", ""].map {
      Spelling.nearest(to: $0, among: names)
    }
    #expect(meant == ["memory", "memory", "image", "cpus", "mode", nil, nil])
    #expect(Spelling.nearest(to: String(repeating: "x", count: 1_000_000), among: names) == nil)
  }
}
