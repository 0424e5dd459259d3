import Foundation
import TestSupport
import Testing

@Suite("kvmlite lab", .needsKVM, .limited)
struct LabTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  @Test("lists the experiments")
  func list() throws {
    let result = try Kvmlite.run("lab")
    #expect(result.end == .exited(0))
    #expect(result.output.contains("\n  modes "))
  }

  @Test("tells an experiment's findings, and writes them as a page and as JSON")
  func modes() throws {
    let page = scratch.path + "/modes.html"
    let result = try Kvmlite.run("lab", "modes", "--html", page)
    #expect(result.end == .exited(0))
    #expect(result.errors == "")
    #expect(result.output.hasPrefix("modes: ") && result.output.contains("back end  kvm_"))
    #expect(try String(contentsOfFile: page, encoding: .utf8).contains("<svg"))
    let json = try Kvmlite.run("lab", "modes", "--json")
    let object = try JSONSerialization.jsonObject(with: Data(json.outputBytes)) as? [String: Any]
    #expect(object?["lab"] as? String == "modes")
  }

  @Test("grades a sheet: status 0 when all is right, else 1")
  func check() throws {
    let blank = try Kvmlite.run("lab", "modes", "--sheet").output
    let empty = try scratch.file("empty", Array(blank.utf8))
    let wrong = try Kvmlite.run(
      "lab", "modes", "--check", empty, "--format", "tap", "--show-answers")
    #expect(wrong.end == .exited(1))
    #expect(wrong.output.contains("not ok 1"))
    let answers = wrong.output.split(separator: "\n")
    // What TAP says was expected is right.
    let ids = answers.filter { $0.hasPrefix("not ok") }.map { $0.split(separator: " ").last ?? "" }
    let expected = answers.filter { $0.hasPrefix("  expected: ") }.map {
      $0.dropFirst("  expected: ".count).dropFirst().dropLast()
    }
    let sheet = zip(ids, expected).map { "\($0): \($1)\n" }.joined()
    let right = try scratch.file("right", Array(sheet.utf8))
    let result = try Kvmlite.run("lab", "modes", "--check", right)
    #expect(result.end == .exited(0), "\(result.output)")
    // Several against one run, each by its name; what would be right is not told.
    let both = try Kvmlite.run("lab", "modes", "--check", right, empty)
    #expect(both.end == .exited(1))
    #expect(both.output.contains("right: modes: ") && both.output.contains("empty: modes: 0 of"))
    #expect(!both.output.contains("expected"))
  }

  @Test(
    "gives each student own numbers, and grades many sheets, each by its own run", .sameOnEachHost)
  func seeds() throws {
    var sheets: [String] = []
    for name in ["ada", "bob"] {
      let blank = try Kvmlite.run("lab", "cow", "--seed", name, "--sheet").output
      #expect(blank.contains("\nstudent: \(name)\n") && blank.contains("\nseed: \(name)\n"))
      let empty = try scratch.file(name + "-empty", Array(blank.utf8))
      let tap = try Kvmlite.run(
        "lab", "cow", "--check", empty, "--format", "tap", "--show-answers"
      ).output.split(separator: "\n")
      let ids = tap.filter { $0.hasPrefix("not ok") }.map { $0.split(separator: " ").last ?? "" }
      let right = tap.filter { $0.hasPrefix("  expected: ") }.map { $0.dropFirst(13).dropLast() }
      sheets.append(
        "student: \(name)\nseed: \(name)\n" + zip(ids, right).map { "\($0): \($1)\n" }.joined())
    }
    let answers = try sheets.map { sheet in
      try scratch.file("s\(sheet.count)\(sheet.hashValue)", Array(sheet.utf8))
    }
    let both = try Kvmlite.run("lab", "cow", "--check", answers[0], answers[1])
    #expect(both.end == .exited(0), "\(both.output)")
    // One student's answers are of no use to another.
    let copied = sheets[0].replacing("seed: ada", with: "seed: bob")
    let cheat = try Kvmlite.run(
      "lab", "cow", "--check", scratch.file("cheat", Array(copied.utf8)))
    #expect(cheat.end == .exited(1))
  }

  @Test("runs variants, and says what there is to vary")
  func variants() throws {
    let result = try Kvmlite.run("lab", "shadow", "--vary", "pages=128", "--vary", "steps=200")
    #expect(result.end == .exited(0))
    #expect(result.output.contains("protects 128 pages"))
    for (value, words) in [
      ("page=1", "did you mean 'pages'?"), ("pages=9999", "from 8 to 256"), ("pages", "wanted"),
    ] {
      let wrong = try Kvmlite.run("lab", "shadow", "--vary", value)
      #expect(wrong.end == .exited(64) && wrong.errors.contains(words), "\(wrong.errors)")
    }
  }

  @Test("takes a prediction before the run and shows it beside what came")
  func predict() throws {
    let guess = try scratch.file("guess", Array("ring3-faults: 3\nhlt-host: #GP(0)\n".utf8))
    let result = try Kvmlite.run("lab", "modes", "--predict", guess)
    #expect(result.end == .exited(0))
    #expect(result.output.contains("Predicted, and what came"))
    #expect(result.output.contains("why-ring3-faults: ..."))
    let json = try Kvmlite.run("lab", "modes", "--predict", guess, "--json")
    #expect(json.output.contains("Predicted, and what came"))
    let none = try Kvmlite.run("lab", "modes", "--predict", "/nowhere")
    #expect(none.end == .exited(66))
  }

  @Test("grades a program: status 1 unless all is right, in each format")
  func program() throws {
    let program = try scratch.file("mine.c", Array("int main(void) { return 2; }\n".utf8))
    let text = try Kvmlite.run("lab", "build", "--program", program)
    #expect(text.end == .exited(1) && text.errors == "")
    #expect(text.output.contains("no  1-run") && text.output.contains("build: 0 of 11 points"))
    #expect(text.output.contains("ended with status 2"))
    let json = try Kvmlite.run("lab", "build", "--program", program, "--format", "json")
    let grades = try JSONSerialization.jsonObject(with: Data(json.outputBytes)) as? [[String: Any]]
    #expect(json.end == .exited(1) && grades?.first?["possible_points"] as? Int == 11)
    for format in ["tap", "junit"] {
      let other = try Kvmlite.run("lab", "build", "--program", program, "--format", format)
      #expect(other.end == .exited(1) && other.output.contains("1-run"))
    }
    #expect(try Kvmlite.run("lab", "modes", "--program", program).end == .exited(64))
    #expect(try Kvmlite.run("lab", "build", "--guest", program).end == .exited(64))
    #expect(try Kvmlite.run("lab", "build", "--program", "/nowhere.c").end == .exited(66))
    for options in [["--json"], ["--seed", "ada"], ["--html", "x"], ["--guest", program]] {
      #expect(
        try Kvmlite.end(of: Kvmlite.start(["lab", "build", "--program", program] + options)).end
          == .exited(64), "\(options)")
    }
    // Without a compiler nothing is graded, and it is said what to install.
    let none = try Kvmlite.end(
      of: ChildProcess(
        Kvmlite.path, ["lab", "build", "--program", program], environment: ["PATH": "/nowhere"]))
    #expect(none.end == .exited(69) && none.errors.contains("apt-get install gcc"))
  }

  @Test("ends the program that it grades when a signal ends it")
  func programAndSignal() throws {
    let pipe = Pipe()
    // Who holds the pipe open still runs.
    let path =
      "/proc/\(ProcessInfo.processInfo.processIdentifier)/fd/"
      + "\(pipe.fileHandleForWriting.fileDescriptor)"
    let source = """
      #include <fcntl.h>
      #include <unistd.h>
      int main(void) {
        int file = open("\(path)", O_WRONLY);
        if (write(file, "x", 1) != 1) return 1;
        for (;;) pause();
      }
      """
    let program = try scratch.file("sleeps.c", Array(source.utf8))
    let process = try ChildProcess(
      Kvmlite.path, ["lab", "build", "--program", program], environment: ["TMPDIR": scratch.path])
    #expect(try pipe.fileHandleForReading.read(upToCount: 1) == Data("x".utf8))
    process.send(SIGTERM)
    #expect(try Kvmlite.end(of: process).end == .killed(SIGTERM))
    try pipe.fileHandleForWriting.close()
    #expect(try pipe.fileHandleForReading.readToEnd() == nil)
    #expect(scratch.names == ["sleeps.c"])
  }

  @Test("refuses what it doesn't know, and sheets that are none", .sameOnEachHost)
  func refusals() throws {
    #expect(try Kvmlite.run("lab", "nothing").end == .exited(64))
    #expect(try Kvmlite.run("lab", "--json").end == .exited(64))
    #expect(try Kvmlite.run("lab", "modes", "--check", "/nowhere").end == .exited(66))
    let bad = try scratch.file("bad", Array("no colon\n".utf8))
    #expect(try Kvmlite.run("lab", "modes", "--check", bad).end == .exited(65))
    let large = try scratch.file("large", Array(repeating: UInt8(ascii: "#"), count: 1 << 20 + 1))
    #expect(try Kvmlite.run("lab", "modes", "--check", large).end == .exited(65))
    #expect(try Kvmlite.run("lab", "exits", "--guest", large).end == .exited(65))
    for options in [["--json", "--sheet"], ["--check", bad, "--json"], ["--format", "tap"]] {
      #expect(
        try Kvmlite.end(of: Kvmlite.start(["lab", "modes"] + options)).end == .exited(64),
        "\(options)")
    }
  }

  @Test("finds room for its files in a directory of any name, and says which it lacks")
  func temporaryDirectory() throws {
    let odd = scratch.path + "/a, b,readonly"
    try FileManager.default.createDirectory(atPath: odd, withIntermediateDirectories: false)
    let split = try Kvmlite.end(
      of: ChildProcess(Kvmlite.path, ["lab", "split"], environment: ["TMPDIR": odd]))
    #expect(split.end == .exited(0), "\(split.errors)")
    let nowhere = try Kvmlite.end(
      of: ChildProcess(Kvmlite.path, ["lab", "cow"], environment: ["TMPDIR": "/no/such"]))
    #expect(nowhere.end == .exited(69))
    #expect(nowhere.errors.contains("$TMPDIR"))
  }

  @Test("leaves nothing behind when a signal ends it", arguments: [SIGINT, SIGTERM, SIGHUP])
  func signals(signal: Int32) throws {
    let process = try ChildProcess(
      Kvmlite.path, ["lab", "io-models"], environment: ["TMPDIR": scratch.path])
    while scratch.names.isEmpty { sched_yield() }
    process.send(signal)
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .killed(signal))
    #expect(scratch.names == [])
    #expect(!result.leftProcesses)
  }
}

@Suite("kvmlite --walk", .needsKVM, .limited)
struct WalkTests {
  @Test("tells each entry of the ended guest's tables, and where they lead")
  func walk() throws {
    let result = try Kvmlite.run("guest:hello-long", "--walk", "0x212345", "--walk", "0x1000000000")
    #expect(result.end == .exited(0))
    #expect(result.errors.contains("0x212345: 4-level paging, CR3 = 0x1000\n"))
    #expect(result.errors.contains("\n  PDPT     0  at 0x2000 "))
    #expect(result.errors.contains("guest-physical 0x212345, in a page of 2 MiB; slot 0, offset"))
    #expect(result.errors.contains("not present: a page fault"))
    let real = try Kvmlite.run("guest:hello-real", "--walk", "0x1234")
    #expect(real.errors.contains("0x1234: no paging"))
    // Without RAM at 0xA0000 what is above it has a slot of its own.
    let hole = try Kvmlite.run(
      "guest:hello-real", "--device", "testdev", "--walk", "0x1234", "--walk", "0xA0000", "--walk",
      "0x123456")
    #expect(hole.errors.contains("guest-physical 0x1234; slot 0, offset 0x1234; "))
    #expect(hole.errors.contains("guest-physical 0xa0000: no memory there"))
    #expect(hole.errors.contains("guest-physical 0x123456; slot 1, offset 0x63456; "))
  }

  @Test("makes a running guest stand still at SIGUSR1, walks, and lets it go on")
  func walkPaused() throws {
    let process = try Kvmlite.start(["guest:echo", "--walk", "0x1234"], input: .pipe)
    try process.waitForOutput("Type")
    for count in 1...2 {
      process.send(SIGUSR1)
      try process.waitForErrors("0x1234: no paging", times: count)
    }
    process.type("hello\nq")
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(0))
    #expect(result.output.hasSuffix("hello\n\nBye.\n"))
    // Twice while it ran, and at the end.
    #expect(result.errors.ranges(of: "0x1234: no paging").count == 3)
  }
}
