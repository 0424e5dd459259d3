import Foundation
import Testing
import TestSupport

/// Debian's cloud kernel on virtio's entropy device, balloon and console.
@Suite(
  "Linux on small virtio devices", .needsKVM, .needsRingZero, .needsKernels, .serialized, .limited)
struct SmallDeviceTests {
  private func boot(_ options: [String], run command: String) throws -> ChildProcess {
    try ChildProcess(
      Kvmlite.path,
      options + ["--stats=json"] + Kernels.linux("devices", append: "quiet RUN=\"\(command)\""),
      input: .pipe, deadline: Deadline(seconds: 200))
  }

  /// The device called `name` of what `--stats=json` printed.
  private func device(_ name: String, _ run: ChildProcess) throws -> [String: Any] {
    let report = try #require(
      JSONSerialization.jsonObject(with: Data(run.errorText.utf8)) as? [String: Any])
    let devices = try #require(report["devices"] as? [[String: Any]])
    return try #require(devices.first { ($0["name"] as? String)?.hasPrefix(name + " ") == true })
  }

  private func ring(_ index: Int, _ device: [String: Any], _ key: String) throws -> Int {
    let rings = try #require(device["rings"] as? [[String: Any]])
    return try #require(rings[index][key] as? Int)
  }

  @Test("seeds itself from the entropy device, which gives other bytes each time")
  func entropy() throws {
    let run = try boot(
      ["--device", "rng"],
      run: "cat /sys/class/misc/hw_random/rng_current; "
        + "for n in 1 2; do dd if=/dev/hwrng bs=32 count=1 2>/dev/null | sha256sum; done")
    #expect(try run.waitForEnd() == .exited(0))
    #expect(run.outputText.contains("virtio_rng.0"))
    let hashes = run.outputText.split(separator: "\r\n").filter { $0.hasSuffix("  -") }
    #expect(hashes.count == 2 && Set(hashes).count == 2)
    #expect(try ring(0, device("virtio-rng", run), "bytes_read") >= 64)
  }

  @Test("gives memory back through the balloon, which the host has again")
  func balloon() throws {
    // 160 of 256 MiB are used and freed before the balloon comes and takes half of all.
    let run = try boot(
      ["--memory", "256M", "--balloon", "128M"],
      run: "rmmod virtio_balloon; dd if=/dev/zero of=/tmp/f bs=1M count=160; rm /tmp/f; "
        + "grep MemFree /proc/meminfo; modprobe virtio_balloon; n=0; "
        + "while [ $n -lt 100 ] && "
        + "[ $(awk '/MemFree/{print $2}' /proc/meminfo) -gt 80000 ]; do n=$((n+1)); sleep 1; done; "
        + "grep MemFree /proc/meminfo")
    #expect(try run.waitForEnd() == .exited(0))
    let free = run.outputText.split(separator: "\r\n").filter { $0.hasPrefix("MemFree:") }
      .compactMap { Int($0.split(separator: " ")[1]) }
    try #require(free.count == 2)
    #expect(free[0] - free[1] > 100 << 10, "KiB")
    let balloon = try device("virtio-balloon", run)
    let counters = try #require(balloon["counters"] as? [String: Int])
    #expect(try #require(counters["inflated_bytes"]) >= 110 << 20)
    #expect(try ring(0, balloon, "requests") > 100)
    #expect(try #require(counters["guest_total_bytes"]) > 200 << 20)
    let report = try #require(
      JSONSerialization.jsonObject(with: Data(run.errorText.utf8)) as? [String: Any])
    #expect(try #require(report["touched_bytes"] as? Int) < 128 << 20)
  }

  @Test("has a shell on hvc0, with input and output")
  func console() throws {
    let run = try boot(
      ["--console", "stdio,input=virtio"],
      run: "setsid sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1'")
    try run.waitForOutput("# ")
    run.type("tty; echo answer=$((6*7))\r")
    try run.waitForOutput("answer=42")
    #expect(run.outputText.contains("\n/dev/hvc0\r"))
    // More than the device holds: what the guest doesn't take waits outside.
    run.type("stty -echo; head -c 20000 >/tmp/paste; wc -c </tmp/paste\r")
    let line = String(repeating: "x", count: 79) + "\n"
    run.type(String(repeating: line, count: 250))
    try run.waitForOutput("\r\n20000")
    run.type("exit\r")
    #expect(try run.waitForEnd() == .exited(0))
    #expect(try ring(0, device("virtio-console", run), "bytes_read") > 20000)
  }
}
