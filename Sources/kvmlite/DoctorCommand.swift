import ArgumentParser

/// `kvmlite doctor`.
struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor", abstract: "Say what this host can do, and how to mend what it can't.")

  func run() throws {}
}
