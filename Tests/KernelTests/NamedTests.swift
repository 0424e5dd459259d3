import Foundation
import TestSupport
import Testing

private let tmuxPath = "/usr/bin/tmux"

/// A stock kernel as a machine with a name, whose console is looked at in a terminal's window.
@Suite(
  "A named machine under a stock Linux kernel", .needsKVM, .needsRingZero, .needsKernels, .limited)
struct NamedTests {
  /// Says what the disk has, writes to it, and waits for the power button, an input event of 24 bytes.
  private static let work =
    "head -c 5 /dev/vda; echo again >/dev/vda; sync; echo READY; read me; echo hello $me; "
    + "head -c 24 /dev/input/event0 >/tmp/event; echo BUTTON"

  private func tmux(_ machines: NamedMachines, _ arguments: String...) throws -> String {
    // Its server stays, and must not hold what the test waits for the end of.
    let process = try ChildProcess(
      "/bin/bash",
      [
        "-c", "exec \"$0\" \"$@\" 199>&-", tmuxPath, "-S", machines.path + "/tmux", "-f",
        "/dev/null",
      ]
        + arguments, environment: machines.environment, deadline: Deadline(seconds: 100))
    #expect(try process.waitForEnd() == .exited(0), "\(process.errorText)")
    return process.outputText
  }

  @Test(
    "is started, typed to, ended by its power button, and has its disk when it comes again",
    .enabled(if: FileManager.default.isExecutableFile(atPath: tmuxPath), "needs tmux"))
  func powerButton() throws {
    let machines = try NamedMachines()
    let disk = try machines.file("disk.raw", [UInt8](repeating: 0, count: 1 << 20))
    let up = try machines.start(
      ["up", "--name", "box", "--memory", "160M", "--disk", disk]
        + Kernels.linux("devices", append: "quiet RUN=\"\(Self.work)\""))
    #expect(try up.waitForEnd() == .exited(0), "\(up.errorText)")
    #expect(try machines.run("wait", "box", "--for", "text=READY").end == .exited(0))

    _ = try tmux(machines, "new-session", "-d", "\(Kvmlite.path) attach box")
    _ = try tmux(machines, "send-keys", "world", "Enter")
    #expect(try machines.run("wait", "box", "--for", "text=hello world").end == .exited(0))
    #expect(try tmux(machines, "capture-pane", "-p").contains("READY"))
    // With its one window tmux ends, too.
    _ = try tmux(machines, "send-keys", "C-a", "q")
    let stop = try machines.run("stop", "box", "--grace", "600")
    #expect(stop.end == .exited(0) && stop.errors.isEmpty, "\(stop.errors)")
    let log = try machines.run("logs", "box").output
    #expect(log.contains("BUTTON") && !log.contains("again"))
    let outcome = try machines.list()["box"]?["outcome"] as? [String: Any]
    #expect(outcome?["end"] as? String == "powered-off")

    #expect(try machines.run("up", "box").end == .exited(0))
    #expect(try machines.run("wait", "box", "--for", "text=again").end == .exited(0))
    #expect(try machines.run("kill", "box").end == .exited(0))
  }
}
