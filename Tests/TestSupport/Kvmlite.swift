import Foundation

/// The built program, as a user runs it.
package enum Kvmlite {
  /// It is built beside the tests.
  package static let path: String = {
    let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return URL(filePath: tests ?? CommandLine.arguments[0])
      .deletingLastPathComponent().appending(path: "kvmlite").path
  }()

  /// What became of a run.
  package struct Result {
    /// How it ended.
    package let end: ChildProcess.End
    /// Its standard output.
    package let output: String
    /// The same as bytes.
    package let outputBytes: [UInt8]
    /// Its standard error.
    package let errors: String
    /// Whether it left processes behind.
    package let leftProcesses: Bool
  }

  /// Starts it.
  package static func start(
    _ arguments: [String], input: ChildProcess.Input = .null
  ) throws -> ChildProcess {
    try ChildProcess(path, arguments, input: input)
  }

  /// Runs it to its end.
  package static func run(_ arguments: String..., input: ChildProcess.Input = .null) throws
    -> Result
  {
    try end(of: start(arguments, input: input))
  }

  /// Runs it to its end, started by `wrapper`, a command that takes another.
  package static func run(_ arguments: [String], by wrapper: [String]) throws -> Result {
    try end(of: ChildProcess(wrapper[0], wrapper.dropFirst() + [path] + arguments))
  }

  /// Runs `command`, which is to become it.
  package static func run(_ arguments: [String], of command: String) throws -> Result {
    try end(of: ChildProcess(command, arguments))
  }

  /// Waits for the end of `process`.
  package static func end(of process: ChildProcess) throws -> Result {
    let end = try process.waitForEnd()
    return Result(
      end: end, output: process.outputText, outputBytes: process.output,
      errors: process.errorText, leftProcesses: process.hasLeftProcesses)
  }
}
