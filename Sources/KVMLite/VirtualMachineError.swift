import Devices
import Doctor
import Machine

#if canImport(Foundation)
  import Foundation

  // Foundation's `localizedDescription` of any error asks for this.
  extension VirtualMachineError: LocalizedError {
    /// The error in words.
    public var errorDescription: String? { description }
  }
#endif

/// Why a machine could not be made, or did not do what it was asked.
public struct VirtualMachineError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The kind of trouble.
  public enum Reason: Sendable {
    /// No machine can be as the configuration says.
    case configuration
    /// The image can't be booted.
    case image
    /// A file, socket or interface that the configuration names can't be had.
    case resource
    /// A saved machine can't go on, or a machine can't be saved.
    case saved
    /// KVM can't be used here.
    case kvm
    /// The host refused something else.
    case host
    /// The machine has been run before.
    case hasRun
    /// The run is over.
    case hasEnded
    /// The machine isn't paused.
    case isNotPaused
    /// Somebody resumed the machine before it stood still.
    case wasResumed
    /// There is nothing at the place that was asked for.
    case nothingThere
    /// The time given to a wait is over.
    case timedOut
    /// The task that waited was cancelled.
    case cancelled
  }

  /// The kind of trouble.
  public let reason: Reason
  /// What happened to what, and what to do next.
  public let description: String

  init(_ reason: Reason, _ description: String) {
    self.reason = reason
    self.description = description
  }

  init(_ error: MachineError) {
    switch error {
    case .kvm(let error): self.init(.kvm, "\(KVMTrouble(error))")
    case .lacking: self.init(.kvm, "\(error)")
    case .boot: self.init(.image, "\(error)")
    case .configuration: self.init(.configuration, "\(error)")
    case .disk: self.init(.resource, "\(error)")
    case .host: self.init(.host, "\(error)")
    }
  }

  init(_ error: ResourceError) {
    switch error.cause {
    case .noGuest, .noBackEnd, .sameFile: self.init(.configuration, "\(error)")
    default: self.init(.resource, "\(error)")
    }
  }

  init(_ error: RestoreError, _ folder: String) {
    if case .machine(let error) = error {
      self.init(error)
    } else {
      self.init(.saved, "\(folder): \(error)")
    }
  }

  init(_ error: CommandError) {
    let reason: Reason =
      switch error {
      case .hasEnded: .hasEnded
      case .isNotPaused: .isNotPaused
      case .resumed: .wasResumed
      }
    self.init(reason, "\(error)")
  }
}
