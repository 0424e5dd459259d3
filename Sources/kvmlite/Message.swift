import ArgumentParser
import Host
import Machine
import Synchronization

/// kvmlite's own words, which all go to standard error.
enum Message {
  private static let file = FileDescriptor(borrowing: 2)
  private static let isColoured = file.isTerminal
  private static let isHurried = Atomic(false)
  /// How long a reader may take once there is a hurry, in milliseconds.
  private static let patience: Int32 = 1000

  /// Lets what nobody reads be lost from now on: the user wants an end.
  static func hurry() { isHurried.store(true, ordering: .relaxed) }

  /// Whether who reads standard error is no longer to be waited for.
  static var giveUp: @Sendable () -> Bool {
    get { giveUpBody.withLock { $0 } }
    set { giveUpBody.withLock { $0 = newValue } }
  }
  private static let giveUpBody = Mutex<@Sendable () -> Bool>({ false })

  /// Writes `text` and a line feed.
  static func line(_ text: String) {
    guard waitForReader() else { return }
    // With standard error closed there is nowhere left to complain to.
    try? file.writeAll(text + "\n")
  }

  /// Waits for room, but not for ever; returns whether there is some.
  private static func waitForReader() -> Bool {
    while !file.isWritable(within: step) {
      if isHurried.load(ordering: .relaxed) { return file.isWritable(within: patience) }
      if giveUp() { return false }
    }
    return true
  }

  /// How long a wait lasts before it is asked whether to go on, in milliseconds.
  private static let step: Int32 = 100

  /// Writes what a command was asked for to standard output; ends with 71 if that can't be. A reader
  /// who has seen enough is told nothing.
  static func output(_ text: String) throws {
    do throws(Errno) { try FileDescriptor(borrowing: 1).writeAll(text) } catch {
      if error != .brokenPipe { self.error("standard output can't be written: \(error)") }
      throw ExitCode(71)
    }
  }

  /// Writes `text` after the program's name.
  static func note(_ text: String) { line("kvmlite: " + text) }

  /// Writes `text` as an error, red on a terminal.
  static func error(_ text: String) {
    line(isColoured ? "\u{1B}[31mkvmlite:\u{1B}[0m \(text)" : "kvmlite: \(text)")
  }

  /// Writes a heading, bold on a terminal.
  static func heading(_ text: String) {
    line(isColoured ? "\u{1B}[1m\(text)\u{1B}[0m" : text)
  }
}

/// `text` with spaces behind it up to `width` characters.
func column(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(1, width - text.count))
}

/// `text` with spaces before it up to `width` characters.
func rightColumn(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}

/// `text` as a JSON string.
func jsonString(_ text: String) -> String { JSON.quoted(text) }
