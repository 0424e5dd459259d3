import Devices
import Foundation
import Host
import Memory
import TestSupport
import Testing

@testable import Machine

@Suite("A control socket", .needsKVM, .limited)
struct ControlTests {
  /// A machine that ticks, with a control socket, on a thread of its own.
  private final class Served: @unchecked Sendable {
    // Sound as Sendable: the outcome is written by the thread that is joined before it is read.
    let directory: TemporaryDirectory
    let path: String
    let machine: Machine
    let hub: ConsoleHub
    private let console = WaitingSink()
    private var thread: HostThread?
    private(set) var outcome: Outcome?

    init() throws {
      directory = try TemporaryDirectory()
      path = directory.path + "/control.sock"
      hub = try ConsoleHub(try ConsoleRecord(at: directory.path + "/console.log")) { _ in }
      var setup = Setup(
        TestGuest.ticker(divisor: 1193, count: .max), mode: .real, console: console)
      setup.control = try ControlSocket(at: path)
      setup.hub = hub
      setup.restartsAtReset = true
      machine = try setup.makeMachine()
      thread = try HostThread.start(name: "machine") { self.outcome = self.machine.run() }
      #expect(console.wait(forBytes: 1))
    }

    func connect() throws -> UnixSocket { try UnixSocket(connectingTo: path, .messages) }

    func end() {
      machine.control.stop(.user)
      thread?.join()
      thread = nil
    }
  }

  private func ask(_ socket: borrowing UnixSocket, _ text: String) throws -> String {
    try socket.send(Array(text.utf8).span)
    return try answer(socket)
  }

  private func answer(_ socket: borrowing UnixSocket) throws -> String {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    let deadline = Deadline()
    while !deadline.isOver {
      _ = socket.descriptor.isReadable(within: 1000)
      var span = buffer.mutableSpan
      var files: [SharedDescriptor] = []
      if let count = try socket.receive(into: &span, files: &files) {
        return String(decoding: buffer[..<count], as: UTF8.self)
      }
    }
    return "no answer"
  }

  @Test("pauses, shows, resumes, resets and ends the machine")
  func commands() throws {
    let served = try Served()
    let socket = try served.connect()
    let paused = try ask(socket, #"{"command": "pause"}"#)
    #expect(paused.contains("true") && paused.contains("paused"))
    #expect(served.machine.commands.state == .paused)
    let devices = try ask(socket, #"{"command": "inspect"}"#)
    #expect(devices.contains("serial0") && devices.contains("paused"))
    #expect(try ask(socket, #"{"command": "stats"}"#).contains("elapsed_ns"))
    #expect(try ask(socket, #"{"command": "resume"}"#).contains("running"))
    #expect(try ask(socket, #"{"command": "reset"}"#).contains("true"))
    #expect(try ask(socket, #"{"command": "power-button"}"#).contains("true"))
    #expect(try ask(socket, #"{"command": "stop"}"#).contains("true"))
    served.end()
    #expect(served.outcome?.kind == "stopped")
    #expect(throws: Errno.self) { _ = try served.connect() }
  }

  @Test(
    "refuses what is no command, and does nothing",
    arguments: [
      "pause", "[]", "{}", #"{"command": 1}"#, #"{"command": "paus"}"#,
      #"{"command": "pause", "x": 1}"#, #"{"command": "pause"}{}"#,
      String(repeating: "[", count: 1000), String(repeating: "x", count: 70_000),
    ])
  func refusals(message: String) throws {
    let served = try Served()
    defer { served.end() }
    let socket = try served.connect()
    let answer = try ask(socket, message)
    #expect(answer.contains("false") && answer.contains("error"), "\(answer)")
    if message.contains("paus\"") { #expect(answer.contains("pause")) }
    #expect(served.machine.commands.state == .running)
  }

  @Test("tells what the machine is, while it runs, and docs/control.md says what that means")
  func status() throws {
    let served = try Served()
    defer { served.end() }
    let answer = try JSON(parsing: Array(ask(served.connect(), #"{"command": "status"}"#).utf8))
    #expect(answer["state"] == JSON(.string("running")))
    #expect(answer["pid"] == JSON(.unsigned(UInt64(LockHolder.currentProcess))))
    let page = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appending(path: "docs/control.md")
    let text = try String(contentsOf: page, encoding: .utf8)
    for member in answer.members ?? [] { #expect(text.contains("`\(member.name)`")) }
  }

  @Test("shows the console at a stream, and nowhere else")
  func attach() throws {
    let served = try Served()
    defer { served.end() }
    let socket = try served.connect()
    let file = try FileDescriptor(opening: served.directory.path + "/file", [.readWrite, .create])
    let attach = Array(#"{"command": "attach", "from": "now"}"#.utf8)
    func ask(_ files: [Int32]) throws -> String {
      try socket.send(attach.span, descriptors: files)
      return try answer(socket)
    }
    #expect(try ask([]).contains("takes one file"))
    #expect(try ask([file.number, file.number]).contains("takes one file"))
    // What can't be a viewer goes, and takes nobody's place.
    for _ in 0..<300 { _ = try ask([file.number]) }
    var other: UnixSocket?
    let mine = try UnixSocket(pairedWith: &other)
    let deadline = Deadline()
    var isShown = false
    while !isShown, !deadline.isOver {
      isShown = try ask([other?.descriptor.number ?? -1]).contains("true")
    }
    #expect(isShown)
    let bytes: [UInt8] = Array("hello".utf8)
    served.hub.write(bytes.span)
    let isReadable = mine.descriptor.isReadable(within: 10_000)
    let shown = isReadable ? try mine.descriptor.read(atMost: 10) : []
    #expect(shown == bytes)
    for bad in [#""from": "here""#, #""input": 1"#, #""x": 1"#] {
      try socket.send(
        Array(("{\"command\": \"attach\", " + bad + "}").utf8).span,
        descriptors: [file.number])
      #expect(try answer(socket).contains("false"))
    }
  }

  @Test("bears clients that vanish, that don't read, and many at once")
  func clients() throws {
    let served = try Served()
    defer { served.end() }
    for _ in 0..<200 {
      let socket = try served.connect()
      try? socket.send(Array(#"{"command": "inspect"}"#.utf8).span)
    }
    let mute = try served.connect()
    for _ in 0..<2000 {
      do { try mute.send(Array(#"{"command": "inspect"}"#.utf8).span) } catch { break }
    }
    // Who went has given up his place once that was noticed; until then others may be sent away.
    let deadline = Deadline()
    var answer = ""
    while !answer.contains("paused"), !deadline.isOver {
      do {
        let socket = try served.connect()
        answer = try ask(socket, #"{"command": "pause"}"#)
      } catch {}
    }
    #expect(answer.contains("paused"), "\(answer)")
  }
}
