import Foundation
import TestSupport
import Testing

@Suite("kvmlite config and --config", .limited, .sameOnEachHost)
struct ConfigTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// The machine that `arguments` describe, as text.
  private func config(_ arguments: [String], input: ChildProcess.Input = .null) throws -> String {
    let result = try Kvmlite.end(of: Kvmlite.start(["config"] + arguments, input: input))
    #expect(result.end == .exited(0) && result.errors == "", "\(arguments): \(result.errors)")
    return result.output
  }

  private func file(_ name: String, _ text: String) throws -> String {
    try scratch.file(name, Array(text.utf8))
  }

  @Test(
    "what it prints for options is the machine that they describe: read again it prints the same",
    arguments: [
      [], ["guest:tick"], ["a b.bin", "--mode", "long", "--load-address", "0x20000"],
      ["--memory", "1.5G", "--cpus", "3", "--cpu", "baseline"],
      ["kernel", "--initrd", "a", "--initrd", "b,c", "--append", "x=\"ä\\\n\" y"],
      ["--firmware", "bios.bin", "--virtio-bus", "mmio"],
      [
        "--device", "rng", "--device", "balloon", "--device", "virtio-console", "--device",
        "testdev",
      ],
      ["--balloon", "16M"], ["--balloon", "16M", "--device", "balloon,id=b,place=00:07.0"],
      [
        "--disk", "a,,b.img,format=raw,readonly,serial=S 1", "--disk",
        "b,snapshot,bus=ide,place=ide0",
      ],
      ["--disk", "vhost-user=sock,bus=mmio", "--disk", "c=d,id=root"],
      ["--net", "none"],
      ["--net", "user,mac=52:54:00:00:00:01,mtu=1400", "--net", "tap=t0,queues=4"],
      ["--vsock", "cid=3,socket=a,b"], ["--console", "pty"],
      ["--console", "pty,wait,input=virtio"], ["--console", "none,input=virtio"],
      ["--console", "file=log,input=virtio"], ["--console", "stdio,input=serial"],
    ])
  func roundTrip(arguments: [String]) throws {
    let text = try config(arguments)
    #expect(try config(["--config", "-"], input: .bytes(Array(text.utf8))) == text)
    #expect(try config(["--config", file("vm.json", text)]) == text)
  }

  @Test("what says how to run it is no part of it")
  func processOptions() throws {
    let text = try config([])
    #expect(
      try config([
        "--timeout", "3", "--trace=io", "--stats=json", "--walk", "0", "--verbose", "--no-reboot",
        "--trace-file", "t",
      ]) == text)
    #expect(!scratch.names.contains("t"))
  }

  @Test("it runs as it was described", .needsKVM)
  func runs() throws {
    let disk = try ScratchDisk(size: 65536)
    let text = try config(["guest:smp", "-c", "3", "-m", "64M", "--disk", "\(disk.path),bus=ide"])
    let result = try Kvmlite.run("--config", "-", input: .bytes(Array(text.utf8)))
    #expect(result.output == "3 CPUs\n", "\(result.end) \(result.errors)")
    let more = try Kvmlite.run("--config", file("vm.json", text), "-c", "5", "--verbose")
    #expect(more.output == "5 CPUs\n" && more.errors.contains("ide0"))
  }

  @Test("a file's paths are relative to it, options' to the working directory")
  func paths() throws {
    let path = try file(
      "vm.json",
      "{\"version\":1,\"image\":\"image\",\"devices\":[{\"type\":\"disk\",\"backend\":{\"path\":\"d\"}}]}"
    )
    let text = try config(["--config", path, "--disk", "e"])
    #expect(text.contains("\"\(scratch.path)/image\"") && text.contains("\"\(scratch.path)/d\""))
    #expect(text.contains("\"\(FileManager.default.currentDirectoryPath)/e\""))
  }

  @Test("options change what a file says")
  func changes() throws {
    let path = try file(
      "vm.json",
      """
      {"version": 1, "firmware": "/bios", "memory": "64M", "append": "a", "initrds": ["/i"],
       "devices": [{"type": "disk", "place": "00:05.0", "backend": {"path": "/a", "readonly": true}},
                   {"type": "balloon", "target": "1M"}, {"type": "rng"}]}
      """)
    #expect(
      try config([
        "--config", path, "/kernel", "--memory", "1G", "--append", "b", "--disk", "/b,id=disk0",
        "--disk", "/c", "--balloon", "2M", "--device", "rng",
      ])
        == config([
          "--config",
          file(
            "other.json",
            """
            {"version": 1, "image": "/kernel", "memory": "1G", "append": "b", "initrds": ["/i"],
             "devices": [{"type": "disk", "place": "00:05.0", "backend": {"path": "/b"}},
                         {"type": "balloon", "target": "2M"}, {"type": "rng"},
                         {"type": "disk", "backend": {"path": "/c"}}]}
            """),
        ]))
  }

  @Test("another bus for all virtio devices gives them other places, and a replaced disk too")
  func otherBus() throws {
    let path = try file("vm.json", config(["--disk", "/a", "--device", "rng"]))
    let moved = try config([
      "--config", path, "--virtio-bus", "mmio", "--disk", "/b,id=disk0,bus=ide",
    ])
    #expect(moved.contains("\"ide0\"") && moved.contains("\"mmio0\"") && !moved.contains("00:0"))
  }

  @Test(
    "a file that is wrong: 64, with file, line, column and what is meant",
    arguments: [
      ("{\"version\":1,\n\"memroy\":1}", ":2:1: unknown key 'memroy': did you mean 'memory'?"),
      ("{\"version\":1,\n\"cpus\":\"x\"}", ":2:8: cpus: a number from 1"),
      (
        "{\"version\":1,\n\"devices\":[{\"type\":\"rng\",\"id\":\"a\"},\n{\"type\":\"disk\",\"id\":\"a\"}]}",
        ":3:21: 'a' is the id of device 0 already"
      ),
      ("{\"version\":1,", ":1:14: a name in double quotes is missing"),
      ("", ":1:1: a value is missing"),
    ])
  func wrong(text: String, words: String) throws {
    let path = try file("vm.json", text)
    for arguments in [["--config", path], ["config", "--config", path]] {
      let result = try Kvmlite.end(of: Kvmlite.start(arguments))
      #expect(result.end == .exited(64) && result.output == "")
      #expect(result.errors.contains("vm.json" + words), "\(result.errors)")
    }
  }

  @Test("a file that can't be read: 66; one without end: 65")
  func unreadable() throws {
    #expect(try Kvmlite.run("--config", "/no/such").end == .exited(66))
    #expect(try Kvmlite.run("--config", scratch.path).end == .exited(66))
    #expect(try Kvmlite.run("--config", "/dev/zero").end == .exited(65))
  }

  @Test(
    "names that there aren't are met with those that may be meant",
    arguments: [
      (["guest:tik"], 66, "did you mean 'tick'?"),
      (["guests", "export", "tik"], 66, "did you mean 'tick'?"),
      (["lab", "mods"], 64, "did you mean 'modes'?"),
      (["cnofig"], 66, "did you mean: kvmlite config"),
      (["--disk", "d,redonly"], 64, "did you mean 'readonly'?"),
      (["--disk", "d,format=qcow"], 64, "did you mean 'qcow2'?"),
      (["--disk", "d,bus=virtoi"], 64, "did you mean 'virtio'?"),
      (["--net", "usr"], 64, "did you mean 'user'?"),
      (["--net", "user,mtuu=1400"], 64, "did you mean 'mtu'?"),
      (["--net", "tap=a,qeues=2"], 64, "did you mean 'queues'?"),
      (["--console", "sdtio"], 64, "did you mean 'stdio'?"),
      (["--console", "stdio,inptu=virtio"], 64, "did you mean 'input'?"),
      (["--console", "stdio,input=virtoi"], 64, "did you mean 'virtio'?"),
      (["--disk", "d,readonly=ture"], 64, "not 'ture'"),
      (["--console", "pty,wiat"], 64, "did you mean 'wait'?"),
      (["disk", "crate", "d"], 64, "did you mean: kvmlite disk create"),
      (["guests", "exprt", "tick"], 64, "did you mean: kvmlite guests export"),
      (["backend", "blok", "s", "d"], 64, "did you mean: kvmlite backend block"),
      (["-m", "1G", "dsik", "info", "d"], 64, "did you mean: kvmlite disk"),
      (["help", "dsik"], 64, "did you mean: kvmlite disk"),
      (["help", "disk", "crate"], 64, "no command 'disk crate'"),
      (["--vsock", "cdi=3,socket=a"], 64, "did you mean 'cid'?"),
      (["--device", "rgn"], 64, "did you mean 'rng'?"),
      (["--device", "disk"], 64, "there is an option --disk"),
    ] as [([String], Int32, String)])
  func meant(arguments: [String], status: Int32, words: String) throws {
    let result = try Kvmlite.end(of: Kvmlite.start(arguments))
    #expect(result.end == .exited(status) && result.errors.contains(words), "\(result.errors)")
  }

  @Test("sizes that no machine has: 64, with what may be meant")
  func sizes() throws {
    for (size, words) in [
      ("512", "did you mean 512M?"), ("0", "did you mean 512M?"), ("8K", "no such file"),
    ] {
      let result = try Kvmlite.run("--memory", size, "--disk", "/no/such")
      #expect(result.end == .exited(size == "8K" ? 66 : 64), "\(size): \(result.errors)")
      #expect(result.errors.contains(words))
    }
    let balloon = try Kvmlite.run("--memory", "64M", "--balloon", "65M")
    #expect(balloon.end == .exited(64))
    #expect(balloon.errors.contains("a balloon of 65M is more than the memory of 64M"))
  }

  @Test("one file in two roles: 64, and it stays as it is")
  func roles() throws {
    let disk = try scratch.file("d.raw", Array(repeating: 7, count: 4096))
    let other = scratch.path + "/link"
    try FileManager.default.createSymbolicLink(atPath: other, withDestinationPath: disk)
    for arguments in [
      ["--disk", "\(disk),format=raw", "--console", "file=\(other)"],
      ["--disk", "\(disk),format=raw", "--disk", "\(other),format=raw"],
      ["--disk", "\(disk),format=raw", "--trace-file", other],
      [disk, "--console", "file=\(disk)"],
    ] {
      let result = try Kvmlite.end(of: Kvmlite.start(arguments))
      #expect(result.end == .exited(64), "\(arguments): \(result.errors)")
      #expect(result.errors.contains("at the same time"), "\(result.errors)")
      #expect(try Data(contentsOf: URL(filePath: disk)) == Data(repeating: 7, count: 4096))
    }
  }
}
