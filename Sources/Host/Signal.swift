import CLinux
import Glibc

/// Signals of this process's that wait to be taken, from when this is made to the end of the process.
package final class SignalSource: Sendable {
  /// Readable when one has come.
  package let descriptor: FileDescriptor

  /// Takes `signals` over, but for those that the process ignores. To be made before other threads
  /// start, for they must not take these signals.
  package init(_ signals: [Signal]) throws(Errno) {
    descriptor = try Signal.makeDescriptor(for: signals.filter { !$0.isIgnored })
  }

  /// The next one that has come, if there is one.
  package func next() -> Signal? { Signal.next(from: descriptor) }

  /// Whether one has come that nobody has taken.
  package var isWaiting: Bool { descriptor.isReadable(within: 0) }
}

/// A signal of the host's Linux.
package struct Signal: Equatable, Sendable {
  /// The signal's number, such as 2 for `SIGINT`.
  package let number: Int32

  /// Wraps a signal's number.
  package init(_ number: Int32) { self.number = number }

  /// Ctrl-C on the terminal.
  package static let interrupt = Signal(SIGINT)
  /// Ctrl-\ on the terminal.
  package static let quit = Signal(SIGQUIT)
  /// A polite request to end.
  package static let terminate = Signal(SIGTERM)
  /// The terminal went away.
  package static let hangUp = Signal(SIGHUP)
  /// Somebody closed the reading end of a pipe.
  package static let brokenPipe = Signal(SIGPIPE)
  /// A write would make a file larger than RLIMIT_FSIZE allows.
  package static let fileSizeLimit = Signal(SIGXFSZ)
  /// The process goes on after it was stopped, or is brought to the foreground.
  package static let continued = Signal(SIGCONT)
  /// A user's own purpose.
  package static let user1 = Signal(SIGUSR1)
  /// What kvmlite kicks its own threads with: it only makes a system call return `EINTR`.
  package static let kick = Signal(__libc_current_sigrtmin() + 4)

  /// The name in a user's words, such as `SIGTERM`.
  package var name: String {
    // The C library returns a pointer to a constant string, or NULL for an unknown number.
    guard let name = unsafe sigabbrev_np(number) else { return "signal \(number)" }
    return unsafe "SIG" + String(cString: name)
  }

  /// Whether the process ignores this signal, as whoever started it may have wished (nohup(1)).
  package var isIgnored: Bool {
    var action = sigaction()
    guard unsafe sigaction(number, nil, &action) == 0 else { return false }
    // Handlers' addresses, compared and never called.
    let (handler, ignoring) = unsafe (
      unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self),
      unsafeBitCast(SIG_IGN, to: Int.self)
    )
    return handler == ignoring
  }

  /// Makes the whole process ignore this signal.
  package func ignore() {
    signal(number, SIG_IGN)
  }

  /// Lets this signal interrupt system calls of the thread it is sent to, and do nothing else.
  ///
  /// Corresponds to `sigaction(2)` without `SA_RESTART`.
  package func installInterruptingHandler() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = { _ in }
    unsafe sigaction(number, &action, nil)
  }

  /// Blocks `signals` in the calling thread and in those it starts from now on.
  ///
  /// Returns a descriptor that becomes readable when one arrives; `next(from:)` takes it. Corresponds
  /// to `pthread_sigmask(3)` and `signalfd(2)`.
  package static func makeDescriptor(for signals: [Signal]) throws(Errno) -> FileDescriptor {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal.number) }
    let error = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    guard error == 0 else { throw Errno(error) }
    let number = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard number >= 0 else { throw Errno.current }
    return FileDescriptor(owning: number)
  }

  /// Blocks all signals that can be in the calling thread.
  static func blockAll() {
    var set = sigset_t()
    unsafe sigfillset(&set)
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  /// The next signal that `descriptor`, made by `makeDescriptor(for:)`, holds; nil if there is none.
  package static func next(from descriptor: borrowing FileDescriptor) -> Signal? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    // The kernel writes whole records of exactly this size.
    guard unsafe Glibc.read(descriptor.number, &info, size) == size else { return nil }
    return Signal(Int32(info.ssi_signo))
  }

  /// Lets `signals` through again in the calling thread.
  package static func unblock(_ signals: [Signal]) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal.number) }
    unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
  }

  /// Runs `body`, on a thread of its own, before one of `signals` ends this program; those that the
  /// process ignores stay ignored.
  ///
  /// To be called before other threads start, for they must not take these signals. Corresponds to
  /// `sigwait(3)`.
  package static func beforeEnding(
    by signals: [Signal], _ body: @escaping @Sendable () -> Void
  ) throws(Errno) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals where !signal.isIgnored { unsafe sigaddset(&set, signal.number) }
    let error = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    guard error == 0 else { throw Errno(error) }
    let awaited = set
    _ = try HostThread.start(name: "signals") {
      var (set, number) = (awaited, Int32(0))
      guard unsafe sigwait(&set, &number) == 0 else { return }
      body()
      Glibc.signal(number, SIG_DFL)
      unblock([Signal(number)])
      raise(number)
    }
  }
}
