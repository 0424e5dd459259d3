import Glibc
import Host
import Sandbox
import TestSupport
import Testing

@Suite("Another program, run for what it prints", .limited)
struct SubprocessTests {
  private func output(
    _ script: String, limit: Int = 1 << 16, within milliseconds: UInt64 = 60_000
  ) throws -> String? {
    let file = try Subprocess.makeTemporaryFile(Array("what it is given".utf8))
    return Subprocess.output(
      of: "/bin/sh", ["-c", script], inheriting: file, limit: limit, within: milliseconds)
  }

  @Test("says what it says of its file, which alone it inherits")
  func inherits() throws {
    // Open, and inherited by whoever doesn't see to it.
    let stray = try Subprocess.makeTemporaryFile([])
    _ = fcntl(stray.number, F_SETFD, 0)
    #expect(stray.number > ChildProgram.inheritedNumber)
    #expect(try output("cat /dev/fd/3") == "what it is given")
    for number in [ChildProgram.inheritedNumber + 1, stray.number] {
      #expect(try output("test -e /proc/$$/fd/\(number) || echo none") == "none\n")
    }
    #expect(try output("read line; echo \"$?$line\"") == "1\n")
  }

  @Test("knows nothing of who started it")
  func environment() throws {
    let names = try #require(try output("env")).split(separator: "\n").map {
      $0.prefix { $0 != "=" }
    }
    #expect(Set(names).subtracting(["LC_ALL", "PWD", "OLDPWD", "_", "SHLVL"]).isEmpty, "\(names)")
  }

  @Test("is nothing where it fails, prints without end, or doesn't come to one")
  func bounds() throws {
    #expect(try output("echo some; exit 3") == nil)
    #expect(try output("echo some; kill $$") == nil)
    #expect(try output("yes", limit: 10_000) == nil)
    #expect(try output("trap '' TERM; while :; do :; done", within: 50) == nil)
    #expect(try output("exec >&-; while :; do :; done", within: 50) == nil)
    let file = try Subprocess.makeTemporaryFile([])
    #expect(Subprocess.output(of: "/no/such", [], inheriting: file) == nil)
    #expect(Subprocess.output(of: "sh", ["-c", "echo"], inheriting: file) == nil)
  }

  @Test("a confined program has no rights, and reads files without writing any")
  func confined() throws {
    let helper = ChildProgram.Confinement(
      SystemCalls.helperFilter, user: geteuid() == 0 ? 0x7000_4711 : nil)
    func output(_ program: String, _ arguments: [String]) throws -> String? {
      let file = try Subprocess.makeTemporaryFile(Array("the file".utf8))
      return Subprocess.output(of: program, arguments, inheriting: file, helper)
    }
    let status = try #require(try output("/bin/cat", ["/proc/self/status"]))
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
      #expect(status.contains(line), "\(status)")
    }
    if geteuid() == 0 { #expect(status.contains("Uid:\t\(0x7000_4711)\t")) }
    #expect(try output("/bin/cat", ["/dev/fd/3"]) == "the file")
    #expect(try output("/bin/cat", ["/dev/fd/4"]) == nil)
    // Their exit status tells that they can't.
    #expect(try output("/usr/bin/touch", ["/dev/shm/kvmlite-confined"]) == nil)
    #expect(try output("/bin/sh", ["-c", "cat /dev/fd/3; exit 0"]) == nil)
    #expect(try output("/bin/ln", ["/dev/null", "/dev/shm/kvmlite-confined"]) == nil)
  }
}
