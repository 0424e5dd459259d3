import Foundation
import Guests
import TestSupport
import Testing

@Suite("kvmlite runs an image", .needsKVM, .limited)
struct ImageTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  @Test("the built-in hello where none is given, with its output alone on standard output")
  func hello() throws {
    for arguments in [[], ["run"], ["--memory", "1M"]] {
      let result = try Kvmlite.end(of: Kvmlite.start(arguments))
      #expect(result.end == .exited(0))
      #expect(result.output == "Hello from real mode!\n")
      #expect(result.errors == "")
    }
  }

  @Test(
    "each built-in guest as its header says",
    arguments: Trials.cases(Guest.all.filter { !$0.isBenchmark && $0.name != "spin" }))
  func guests(guest: Guest) throws {
    var arguments = ["guest:\(guest.name)"] + guest.options
    let disk = try guest.diskSize.map(ScratchDisk.init)
    if let disk { arguments += ["--disk", "\(disk.path),format=raw,bus=ide"] }
    if guest.cpus > 1 { arguments += ["--cpus", "\(guest.cpus)"] }
    let result = try Kvmlite.end(of: Kvmlite.start(arguments, input: .bytes(guest.input)))
    #expect(result.end == .exited(Int32(guest.expectedStatus)), "\(result.errors)")
    #expect(guest.expectedOutput.matches(result.outputBytes), "\(result.output.debugDescription)")
    #expect(result.errors.isEmpty == (guest.expectedStatus != 70))
  }

  @Test("from a file: flat in each mode, a boot sector, ELF")
  func files() throws {
    let cases: [(name: String, options: [String])] = [
      ("hello-real", []), ("hello-protected", ["--mode", "protected"]),
      ("hello-long", ["--mode", "long"]), ("hello-boot", []), ("hello-elf32", []),
      ("hello-elf64", []),
    ]
    for (name, options) in cases {
      let path = scratch.path + "/\(name).bin"
      let export = try Kvmlite.run("guests", "export", name, "--output", path)
      #expect(export.end == .exited(0) && export.output == "")
      let result = try Kvmlite.end(of: Kvmlite.start(options + [path]))
      #expect(result.end == .exited(0), "\(result.errors)")
      #expect(try #require(Guest.named(name)).expectedOutput.matches(result.outputBytes))
    }
  }

  @Test("whose value at the exit port becomes the status")
  func exitStatus() throws {
    let result = try Kvmlite.run(scratch.file("exit.bin", Image.exit))
    #expect(result.end == .exited(0x21 << 1 | 1))
    #expect(result.output == "" && result.errors == "")
  }

  @Test("that crashes: 70, and the account on standard error")
  func crash() throws {
    let result = try Kvmlite.run(
      "--mode", "protected", scratch.file("stray.bin", Image.stray))
    #expect(result.end == .exited(70))
    #expect(result.output == "!")
    let words = [
      "could not emulate", "Registers:", "00000000d0000000", "Last exits", "What to try",
    ]
    for words in words { #expect(result.errors.contains(words), "\(words)") }
  }

  @Test("that resets: it starts again, keeps what was typed, and ends with --no-reboot")
  func reset() throws {
    let path = try scratch.file("reset.bin", Image.resetByInput)
    let again = try Kvmlite.run(path, input: .bytes(Array("rrx".utf8)))
    #expect(again.end == .exited(0))
    #expect(again.output == "rrx")
    let once = try Kvmlite.run("--no-reboot", path, input: .bytes(Array("rrx".utf8)))
    #expect(once.end == .exited(0))
    #expect(once.output == "r")
  }

  @Test("on as many CPUs and with as much memory as is asked for")
  func sizes() throws {
    let result = try Kvmlite.run("guest:smp", "-c", "3", "-m", "64M")
    #expect(result.output == "3 CPUs\n")
    let clock = try Kvmlite.run("guest:rtc", "--memory", "1G")
    #expect(clock.output.hasPrefix("Memory: 1024 MiB\n"))
    #expect(try Kvmlite.run("--memory", "64G").end == .exited(0))
  }

  @Test("and writes its console elsewhere where that is asked for")
  func console() throws {
    let path = scratch.path + "/console"
    let result = try Kvmlite.run("--console", "file=\(path)")
    #expect(result.end == .exited(0) && result.output == "")
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "Hello from real mode!\n")
    let none = try Kvmlite.run("--console", "none")
    #expect(none.end == .exited(0) && none.output == "")
    let missing = try Kvmlite.run("--console", "file=\(scratch.path)/no/such")
    #expect(missing.end == .exited(71))
    #expect(missing.errors.contains("ENOENT"))
  }
}

@Suite("kvmlite refuses", .limited, .sameOnEachHost)
struct RefusalTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// Runs kvmlite, which must end with `status`, print nothing to standard output, and say `words`.
  private func expect(
    _ status: Int32, _ words: String, _ arguments: [String],
    _ location: SourceLocation = #_sourceLocation
  ) throws {
    let result = try Kvmlite.end(of: Kvmlite.start(arguments))
    #expect(
      result.end == .exited(status), "\(arguments): \(result.errors)", sourceLocation: location)
    #expect(result.output == "", sourceLocation: location)
    #expect(
      result.errors.contains(words), "\(arguments): \(result.errors)", sourceLocation: location)
  }

  @Test(
    "values that no option takes: 64",
    arguments: [
      (["--memory", "12Q"], "12Q"), (["--memory", "99999999999999999999T"], "invalid"),
      (["--memory", "0"], "0 bytes is impossible"), (["--memory", "1000"], "impossible"),
      (["--memory", "-5"], "--memory"), (["--cpus", "0"], "at least 1 VCPU"),
      (["--cpus", "x"], "invalid"), (["--timeout", "0"], "impossible"),
      (["--timeout", "nan"], "impossible"), (["--mode", "virtual"], "real"),
      (["--trace=foo"], "foo"), (["--stats=xml"], "xml"), (["--nope"], "--nope"),
      (["one", "two"], "two"), (["--console", "file="], "file="),
    ])
  func options(arguments: [String], words: String) throws { try expect(64, words, arguments) }

  @Test("more CPUs than KVM has: 64", .needsKVM)
  func cpus() throws { try expect(64, "99999 VCPUs are too many", ["--cpus", "99999"]) }

  @Test("an image that can't be read: 66, and says why")
  func unreadable() throws {
    try expect(66, "/no/such.bin: no such file", ["/no/such.bin"])
    try expect(66, "a directory", [scratch.path])
    try expect(66, "no built-in guest 'nope'", ["guest:nope"])
    try expect(66, "no built-in guest 'nope'", ["guests", "export", "nope"])
  }

  @Test("an image that this user may not read: 66", .needsRoot)
  func forbidden() throws {
    let path = try scratch.file("secret.bin", Image.exit)
    unsafe chmod(path, 0)
    let result = try Kvmlite.run([path], by: ["setpriv", "--reuid", "65534", "--clear-groups"])
    #expect(result.end == .exited(66))
    #expect(result.errors.contains("EACCES"), "\(result.errors)")
  }

  @Test("an image that is empty or larger than the memory: 65, and names the remedy")
  func size() throws {
    try expect(65, "is empty", [scratch.file("empty.bin", [])])
    let large = try scratch.file("large.bin", Array(repeating: 0x90, count: 2 << 20))
    try expect(65, "give it more with --memory", ["--memory", "1M", large])
    // Endless, and not even a regular file.
    try expect(65, "give it more with --memory", ["--memory", "1M", "/dev/zero"])
  }

  @Test("a damaged ELF, or one for another machine: 65, and says what is wrong")
  func elf() throws {
    let image = try #require(Guest.named("hello-elf64")).image
    try expect(65, "cut short", [scratch.file("short.elf", Array(image.prefix(150)))])
    var arm = image
    arm[18] = 183  // e_machine: EM_AARCH64
    try expect(65, "AArch64", [scratch.file("arm.elf", arm)])
    // The only program header is at 64; its p_paddr at 24 in it (System V gABI, 5).
    var outside = image
    outside[64 + 24 + 3] = 0x40
    try expect(65, "memory", [scratch.file("outside.elf", outside)])
    // A second program header of the same kind behind the file: both want the same memory.
    var double = image
    let header = Array(image[64..<120])
    let offset = image.count
    for index in 0..<8 { double[32 + index] = UInt8(truncatingIfNeeded: offset >> (index * 8)) }
    double[56] = 2  // e_phnum
    double += header + header
    try expect(65, "overlap", [scratch.file("double.elf", double)])
  }

  @Test("not to export to a link: what it leads to is written, and it stays")
  func exportToLink() throws {
    let link = scratch.path + "/link"
    for target in ["there", "new"] {
      if target == "there" { _ = try scratch.file("there", [1]) }
      try? FileManager.default.removeItem(atPath: link)
      try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: target)
      let end = try Kvmlite.run("guests", "export", "hello-real", "--output", link).end
      #expect(end == .exited(0))
      guard target == "there" else { continue }
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == target)
      #expect(try Data(contentsOf: URL(filePath: scratch.path + "/there")).count > 1)
    }
    #expect(scratch.names == ["link", "there"])
  }

  @Test("to export to where nothing can be written: 71, and leaves nothing")
  func export() throws {
    let result = try Kvmlite.run(
      "guests", "export", "hello-real", "--output", scratch.path + "/no/such")
    #expect(result.end == .exited(71))
    let full = try Kvmlite.run("guests", "export", "hello-real", "--output", "/dev/full")
    #expect(full.end == .exited(71))
    #expect(full.errors.contains("ENOSPC"))
    #expect(scratch.names.isEmpty)
  }
}
