import Foundation
import FoundationXML
import TestSupport
import Testing

@Suite("kvmlite shows", .needsKVM, .limited)
struct SeeingTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func json(_ bytes: Data) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: bytes) as? [String: Any])
  }

  @Test("a line an exit with --trace, in columns, and only on standard error")
  func trace() throws {
    let result = try Kvmlite.run("guest:mmio", "--trace")
    #expect(result.output.hasSuffix("string: ok\n"))
    let lines = result.errors.split(separator: "\n").map(Array.init)
    let heading = String(try #require(lines.first))
    #expect(lines.count > 50)
    let columns = ["vcpu", "rip", "exit", "address", "size", "dir", "data", "device"]
    for name in columns {
      let range = try #require(heading.range(of: name), "\(name)")
      let start = heading.distance(from: heading.startIndex, to: range.lowerBound)
      for line in lines.dropFirst() {
        // A kick has a sentence where others have an address and more.
        if ["size", "dir", "data"].contains(name), String(line).contains("intr") { continue }
        #expect(line[start] != " " && line[start - 1] == " ", "\(name) in \(String(line))")
      }
    }
    for line in lines { #expect(line.count == lines[0].count) }
  }

  @Test("only the kinds of exits that were asked for")
  func kinds() throws {
    let result = try Kvmlite.run("guest:mmio", "--trace=io")
    #expect(result.errors.contains(" io  "))
    #expect(!result.errors.contains(" mmio  "))
    // The image isn't taken for the option's value.
    #expect(try Kvmlite.run("--trace", "guest:mmio").output == result.output)
  }

  @Test("all exits as trace events in a file, as many as the statistics count")
  func traceFile() throws {
    let path = scratch.path + "/trace.json"
    let result = try Kvmlite.run("guest:string-io", "--trace-file", path, "--stats=json")
    #expect(result.end == .exited(0))
    let trace = try json(Data(contentsOf: URL(filePath: path)))
    let events = try #require(trace["traceEvents"] as? [[String: Any]])
    let statistics = try json(Data(result.errors.utf8))
    let counts = try #require(statistics["exits"] as? [String: [String: Any]])
    let total = counts.values.compactMap { $0["count"] as? Int }.reduce(0, +)
    #expect(total > 50)
    #expect(events.count { $0["cat"] as? String == "exit" } == total)
    #expect(events.count { $0["cat"] as? String == "guest" } == total)
    for event in events where event["ph"] as? String == "X" {
      #expect(event["ts"] is Double && event["dur"] is Double && event["tid"] is Int)
    }
    #expect(scratch.names == ["trace.json"])
  }

  @Test("one trace of a run with resets, whose time goes on")
  func traceAcrossReset() throws {
    let path = scratch.path + "/trace.json"
    let result = try Kvmlite.run(
      "--trace-file", path, try scratch.file("reset.bin", Image.resetByInput),
      input: .bytes(Array("rx".utf8)))
    #expect(result.end == .exited(0), "\(result.errors)")
    #expect(result.output == "rx")
    let trace = try json(Data(contentsOf: URL(filePath: path)))
    let events = try #require(trace["traceEvents"] as? [[String: Any]])
    let shown = events.filter { $0["name"] as? String == "out 0xe9" }
    #expect(shown.count == 2)
    let times = events.compactMap { $0["ts"] as? Double }
    #expect(times == times.sorted())
  }

  @Test("a trace that can't be written: 71, and leaves nothing behind")
  func traceTrouble() throws {
    let missing = try Kvmlite.run("--trace-file", scratch.path + "/no/such.json")
    #expect(missing.end == .exited(71))
    #expect(missing.output == "", "the guest doesn't run without its trace")
    let full = try Kvmlite.run("--trace-file", "/dev/full")
    #expect(full.end == .exited(71))
    #expect(full.output == "Hello from real mode!\n")
    #expect(full.errors.contains("ENOSPC"))
    // Nor does a guest that can't start.
    let bad = try Kvmlite.run(
      "--trace-file", scratch.path + "/trace.json", try scratch.file("empty.bin", []))
    #expect(bad.end == .exited(65))
    let elf = try scratch.file("bad.elf", [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1])
    #expect(try Kvmlite.run("--trace-file", scratch.path + "/trace.json", elf).end == .exited(65))
    #expect(scratch.names == ["bad.elf", "empty.bin"])
  }

  @Test("a trace on a disk that fills up: 71, and leaves nothing behind", .needsMounts)
  func fullDisk() throws {
    // In a mount namespace of its own: 64 KiB of disk, of which the trace needs more.
    let script = """
      mount -t tmpfs -o size=64k none "$1" || exit 99
      "$2" guest:cost-pio --trace-file "$1/trace.json"; status=$?
      ls -A "$1"
      exit $status
      """
    let process = try ChildProcess(
      "unshare", ["-m", "sh", "-c", script, "sh", scratch.path, Kvmlite.path])
    #expect(try process.waitForEnd() == .exited(71))
    #expect(process.errorText.contains("ENOSPC"))
    #expect(process.outputText == "")
  }

  /// Runs `guest` on a disk of 64 KiB and returns what it wrote to the trace file.
  private func traced(_ guest: String, bus: String) throws -> (path: String, [[String: Any]]) {
    let path = scratch.path + "/\(bus).json"
    let disk = try scratch.file("disk-\(bus)", [UInt8](repeating: 0, count: 65536))
    let result = try Kvmlite.run(
      "--disk", "\(disk),bus=\(bus)", "--trace-file", path, "guest:\(guest)")
    #expect(!result.output.isEmpty)
    let trace = try json(Data(contentsOf: URL(filePath: path)))
    return (path, try #require(trace["traceEvents"] as? [[String: Any]]))
  }

  @Test("each request as an event of a thread of its ring's, among the exits")
  func requestsInTrace() throws {
    let (path, events) = try traced("virtio-block", bus: "mmio")
    let requests = events.filter { $0["cat"] as? String == "request" }
    #expect(requests.count { $0["name"] as? String == "write" } == 128)
    #expect(requests.count { $0["name"] as? String == "read" } == 128)
    let threads = Set(requests.compactMap { $0["tid"] as? Int })
    let thread = try #require(threads.first)
    #expect(threads.count == 1 && thread > 1000)
    let names = events.filter { $0["ph"] as? String == "M" && $0["tid"] as? Int == thread }
      .compactMap { ($0["args"] as? [String: Any])?["name"] as? String }
    #expect(names == ["virtio-block 0xc0100000 ring 0 requestq"])
    let sectors = requests.compactMap { ($0["args"] as? [String: Any])?["sector"] as? Int }
    #expect(Set(sectors) == Set(0..<128))
    #expect(events.contains { $0["name"] as? String == "doorbell" && $0["tid"] as? Int == thread })
    // On a thread of its own one ends before the next begins.
    var end = 0.0
    for request in requests {
      let start = try #require(request["ts"] as? Double)
      #expect(start >= end - 0.001)
      end = start + (request["dur"] as? Double ?? 0)
    }
    #expect(events.contains { $0["cat"] as? String == "exit" })

    let picture = try Kvmlite.run("timeline", path)
    #expect(picture.end == .exited(0))
    #expect(picture.output.contains("virtio-block 0xc0100000 ring 0 requestq"))
    #expect(picture.output.contains("257 requests"))
    #expect(picture.output.contains("1 VCPU(s)"))
  }

  @Test(
    "a picture of any file, whatever it says of times and names", .sameOnEachHost,
    arguments: [
      "0,\"dur\":0", "1e300,\"dur\":0", "1e308,\"dur\":1.7e308", "1e15,\"dur\":1e15",
      "1e-320,\"dur\":0",
    ])
  func hostileTrace(times: String) throws {
    let event = "{\"ph\":\"X\",\"cat\":\"exit\",\"ts\":"
    let name = "\"args\":{\"device\":\"a<\\u0001\\uffff&\"}}"
    let json = "{\"traceEvents\":[\(event)5,\"dur\":1},\(event)\(times),\(name)]}"
    let picture = try Kvmlite.run("timeline", scratch.file("trace", Array(json.utf8)))
    #expect(picture.end == .exited(0))
    #expect(XMLParser(data: Data(picture.outputBytes)).parse())
    let alone = "{\"traceEvents\":[\(event)\(times),\(name)]}"
    let end = try Kvmlite.run("timeline", scratch.file("trace", Array(alone.utf8))).end
    #expect(end == .exited(0) || end == .exited(65))
  }

  @Test("no picture where its output can't be written: 71")
  func pictureToNowhere() throws {
    let json = "{\"traceEvents\":[{\"ph\":\"X\",\"cat\":\"exit\",\"ts\":5,\"dur\":1}]}"
    let path = try scratch.file("trace", Array(json.utf8))
    let script = ["-c", "exec \"$0\" timeline \"$1\" >/dev/full", Kvmlite.path, path]
    #expect(try Kvmlite.end(of: ChildProcess("sh", script)).end == .exited(71))
    #expect(try Kvmlite.run("timeline", "/no/such").errors.ranges(of: "/no/such").count == 1)
  }

  @Test("the commands of an IDE drive in the same way, also as text")
  func commandsInTrace() throws {
    let (_, events) = try traced("ide-dma", bus: "ide")
    let names = events.filter { $0["cat"] as? String == "request" }.compactMap {
      $0["name"] as? String
    }
    #expect(names == ["write DMA", "write DMA", "read DMA", "read DMA"])
    let text = try Kvmlite.run(
      "--disk", scratch.path + "/disk-ide,bus=ide", "--trace=requests", "guest:ide-dma")
    #expect(text.errors.contains(" request   write DMA sector 64, 32768 bytes: ok "))
    #expect(text.errors.contains(" ide0 drive 0 "))
    #expect(!text.errors.contains(" io  "))
  }

  @Test("disks of all kinds in one table with --stats")
  func deviceTable() throws {
    let path = try scratch.file("disk", [UInt8](repeating: 0, count: 65536))
    let other = try scratch.file("other", [UInt8](repeating: 0, count: 65536))
    let disks = ["--disk", path + ",bus=mmio", "--disk", other + ",bus=ide", "guest:virtio-block"]
    let text = try Kvmlite.run(["--stats", "--device", "rng"] + disks, by: ["env"]).errors
    let lines = text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
    let virtio = try #require(lines.first { $0.starts(with: ["virtio-block", "0xc0100000"]) })
    #expect(virtio[2...7] == ["ring", "0", "requestq", "257", "65536", "65536"])
    let ide = try #require(lines.first { $0.starts(with: ["ide0", "drive", "0"]) })
    #expect(ide[3...6] == ["0", "0", "0", "n/a"])
    #expect(ide.suffix(3) == ["n/a", "n/a", "n/a"])
    #expect(text.contains("virtio-rng 00:02.0 ") && text.contains("no driver uses it"))

    let report = try json(Data(Kvmlite.run(["--stats=json"] + disks, by: ["env"]).errors.utf8))
    let devices = try #require(report["devices"] as? [[String: Any]])
    #expect(
      devices.compactMap { $0["name"] as? String } == [
        "ide0 drive 0", "virtio-block 0xc0100000",
      ])
    let rings = devices.compactMap { ($0["rings"] as? [[String: Any]])?.first }
    #expect(rings[0]["doorbells"] is NSNull && rings[0]["p50_ns"] is NSNull)
    #expect(rings[1]["bytes_written"] as? Int == 65536)
    #expect(try #require(rings[1]["p99_ns"] as? Int) <= #require(rings[1]["max_ns"] as? Int))
  }

  @Test("counts and times with --stats")
  func statistics() throws {
    let result = try Kvmlite.run("--stats")
    #expect(result.output == "Hello from real mode!\n")
    for words in ["count", "io ", "in kvmlite", "memory touched", "KVM's own counters"] {
      #expect(result.errors.contains(words), "\(words)")
    }
    let statistics = try json(Data(Kvmlite.run("--stats=json").errors.utf8))
    let exits = try #require(statistics["exits"] as? [String: [String: Any]])
    #expect(exits["io"]?["count"] as? Int == "Hello from real mode!\n".count)
    #expect(statistics["vcpus"] as? Int == 1)
    #expect(statistics["memory_bytes"] as? Int == 128 << 20)
    #expect((statistics["kvm"] as? [String: Any])?["exits"] != nil)
  }
}
