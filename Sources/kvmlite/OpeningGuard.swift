import Glibc
import Host
import Machine

/// Watches over the opening of files that may make kvmlite wait, such as a FIFO that nobody writes to or
/// a back end that says nothing: a signal or the time limit ends the process meanwhile.
///
/// Nothing of the user's is lost by that: no guest has run.
final class OpeningGuard {
  private let hasOpened: Event
  private let thread: HostThread

  /// Watches over the opening of what `spec` names, if anything there is of that kind.
  convenience init?(_ spec: VMConfiguration, _ signals: SignalSource, _ deadline: UInt64?) {
    guard Self.mayWait(spec) else { return nil }
    self.init(signals, deadline)
  }

  /// Watches over whatever is waited for.
  init?(_ signals: SignalSource, _ deadline: UInt64?) {
    guard let event = try? Event(), let poller = try? Poller() else { return nil }
    let (opened, signal): (UInt64, UInt64) = (0, 1)
    guard (try? poller.add(event.descriptor, tag: opened)) != nil,
      (try? poller.add(signals.descriptor, tag: signal)) != nil
    else { return nil }
    let watch = Watch(poller, signals, deadline)
    guard let thread = try? HostThread.start(name: "opening", { watch.run() }) else { return nil }
    self.thread = thread
    hasOpened = event
  }

  /// Watches no more.
  func end() {
    hasOpened.raise()
    thread.join()
  }

  /// Whether a file isn't an ordinary one or a block device, or another process is asked.
  private static func mayWait(_ spec: VMConfiguration) -> Bool {
    var spec = spec
    var mayWait = spec.devices.contains { $0.disk.socket != nil }
    for text in spec.initrds where FileDescriptor.mayBlock(Resources.initrd(text).path) {
      mayWait = true
    }
    spec.changePaths { path in
      if FileDescriptor.mayBlock(path) { mayWait = true }
      return path
    }
    return mayWait
  }

  private final class Watch: Sendable {
    private let poller: Poller
    private let signals: SignalSource
    private let deadline: UInt64?

    init(_ poller: consuming Poller, _ signals: SignalSource, _ deadline: UInt64?) {
      self.poller = poller
      self.signals = signals
      self.deadline = deadline
    }

    func run() {
      while true {
        switch poller.next(until: deadline) {
        case 0: return
        case 1:
          guard let signal = signals.next(), signal != .user1 else { continue }
          Message.note("ended by \(signal.name)")
          _exit(128 + signal.number)
        default:
          guard let deadline, Clock.monotonicNanoseconds >= deadline else { continue }
          Message.error("the time is up; the machine was still being opened")
          _exit(124)
        }
      }
    }
  }
}
