import Foundation
import Testing
import TestSupport

/// Debian's cloud kernel on virtio-net and vsock, with real programs on both sides.
@Suite(
  "Linux with a network", .needsKVM, .needsRingZero, .needsKernels, .needsTap, .serialized, .limited
)
final class NetworkTests {
  private static let folder = URL(filePath: #filePath).deletingLastPathComponent().path
  private let scratch = NSTemporaryDirectory() + "kvmlite-network-\(UUID())"
  private var interfaces: [String] = []
  private var patience: Deadline { Deadline(seconds: 300) }

  init() throws {
    try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
  }

  deinit {
    for name in interfaces { _ = try? run("ip", "link", "del", name) }
    try? FileManager.default.removeItem(atPath: scratch)
  }

  // MARK: Programs of the host's

  @discardableResult
  private func run(_ words: String...) throws -> String {
    let process = try ChildProcess(words[0], Array(words.dropFirst()), deadline: patience)
    let end = try process.waitForEnd()
    #expect(end == .exited(0), "\(words): \(process.errorText)")
    return process.outputText
  }

  private func makeInterface(_ name: String, address: String, queues: Int = 1) throws {
    var words = ["tuntap", "add", name, "mode", "tap"]
    if queues > 1 { words.append("multi_queue") }
    let process = try ChildProcess("ip", words)
    try #require(try process.waitForEnd() == .exited(0), "\(process.errorText)")
    interfaces.append(name)
    try run("ip", "addr", "add", address, "dev", name)
    try run("ip", "link", "set", name, "up")
  }

  /// A file of random bytes and its hash.
  private func makeFile(_ name: String, count: Int) throws -> String {
    try run("dd", "if=/dev/urandom", "of=\(scratch)/\(name)", "bs=\(count)", "count=1")
    return String(try run("sha256sum", scratch + "/" + name).prefix(64))
  }

  private func serve(at address: String) throws -> ChildProcess {
    let server = try ChildProcess(
      "python3", ["-u", "-m", "http.server", "--directory", scratch, "--bind", address, "8000"],
      deadline: patience)
    try server.waitForOutput("Serving HTTP")
    return server
  }

  private func guest(
    _ options: [String], run command: String, environment: [String: String] = [:],
    by wrapper: [String] = []
  ) throws -> ChildProcess {
    let kernel = [
      "--append", "quiet RUN=\"\(command)\"", "--initrd", Kernels.path("devices/initrd.cpio.gz"),
      Kernels.path("devices/vmlinuz"),
    ]
    let words = wrapper + [Kvmlite.path] + options + kernel
    return try ChildProcess(
      words[0], Array(words.dropFirst()), input: .pipe, environment: environment,
      deadline: patience)
  }

  // MARK: Tests

  @Test(
    "has files from an HTTP server of the host, and serves them",
    arguments: [(1, "mmio", false), (2, "pci", false), (1, "pci", true)])
  func tap(queues: Int, bus: String, isOpen: Bool) throws {
    let name = "kvmlite\(queues)\(isOpen ? "o" : "")"
    try makeInterface(name, address: "192.168.77.1/24", queues: queues)
    let hash = try makeFile("file", count: 4_000_000)
    let server = try serve(at: "192.168.77.1")
    defer { server.send(9) }
    let guest = try guest(
      [
        "--cpus", "\(queues)", "--virtio-bus", bus, "--net",
        isOpen ? "fd=7" : "tap=\(name),queues=\(queues)",
      ],
      run: "ip addr add 192.168.77.2/24 dev eth0; ip link set eth0 up; "
        + "wget -q -O /tmp/file http://192.168.77.1:8000/file; sha256sum /tmp/file; "
        + "readlink -f /sys/class/net/eth0/device; ls -d /sys/class/net/eth0/queues/rx-*; httpd -p 80 -h /tmp; echo serving; read line",
      by: isOpen ? OpenFiles.tap(name, at: 7) : []
    )
    try guest.waitForOutput(hash)
    try guest.waitForOutput("serving")
    #expect(guest.outputText.contains("/rx-\(queues - 1)"))
    #expect(guest.outputText.contains("/pci0000:00/") == (bus == "pci"))

    let program =
      "import hashlib, urllib.request; "
      + "print(hashlib.sha256(urllib.request.urlopen('http://192.168.77.2/file').read()).hexdigest())"
    #expect(try run("python3", "-c", program) == hash + "\n")
    guest.type("\n")
    #expect(try guest.waitForEnd() == .exited(0))
  }

  @Test("has an address and files by passt")
  func user() throws {
    // passt gives the guest the addresses of the interface with the default route.
    try makeInterface("kvmlite-up", address: "10.77.0.2/24")
    try run("ip", "route", "add", "default", "via", "10.77.0.1")
    let hash = try makeFile("file", count: 1_000_000)
    let server = try serve(at: "0.0.0.0")
    defer { server.send(9) }
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin"
    let guest = try guest(
      ["--net", "user"],
      run: "ip link set eth0 up; udhcpc -i eth0 -n -q -s /bin/true; "
        + "ip addr add 10.77.0.2/24 dev eth0; ip route add default via 10.77.0.1; "
        + "wget -q -O /tmp/file http://10.77.0.1:8000/file; sha256sum /tmp/file",
      environment: ["PATH": Kernels.path("") + ":" + path])
    #expect(try guest.waitForEnd() == .exited(0))
    #expect(guest.outputText.contains("lease of 10.77.0.2 obtained"))
    #expect(guest.outputText.contains(hash))
  }

  @Test("talks with programs of the host over vsock, whoever calls", arguments: ["pci", "mmio"])
  func vsock(bus: String) throws {
    let socket = scratch + "/v"
    let helper = Self.folder + "/vsock-host"
    let listener = try ChildProcess(helper, ["listen", socket + "_5000"], deadline: patience)
    try listener.waitForOutput("listening")
    let guest = try guest(
      ["--virtio-bus", bus, "--vsock", "cid=3,socket=\(socket)"],
      run: "head -c 500000 /dev/urandom >/tmp/file; sha256sum /tmp/file; "
        + "vsock connect 5000 </tmp/file; vsock connect 5001 </dev/null; vsock listen 1234 21; "
        + "echo done")
    try guest.waitForOutput("vsock: listening")
    let lines = guest.outputText.split(whereSeparator: \.isNewline).map(String.init)
    let hash = try #require(lines.first { $0.hasSuffix("/tmp/file") }?.prefix(64))
    #expect(lines.contains(String(hash)), "the host got other bytes")
    #expect(guest.outputText.contains("Connection reset by peer"))

    #expect(
      try run(helper, "connect", socket, "1234", "1000000", "1")
        == "vsock-host: 1 times 1000000 bytes came back\n")
    let nobody = try ChildProcess(helper, ["connect", socket, "99", "10", "1"])
    #expect(try nobody.waitForEnd() == .exited(1))
    #expect(
      try run(helper, "connect", socket, "1234", "100", "20")
        == "vsock-host: 20 times 100 bytes came back\n")
    try guest.waitForOutput("done")
    #expect(try guest.waitForEnd() == .exited(0))
    #expect(!FileManager.default.fileExists(atPath: socket), "the socket is left")
  }
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where this process can't make tap interfaces.
  static var needsTap: Self {
    .enabled(
      if: unsafe geteuid() == 0 && access("/dev/net/tun", W_OK) == 0,
      "needs root and /dev/net/tun, for a network of its own")
  }
}
