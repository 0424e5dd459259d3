import Host

/// A channel's thread: does one job after another, so that no VCPU waits for the disk.
///
/// It starts with the first job. A channel has at most one at a time: its drives share a cable.
final class IDEWorker: @unchecked Sendable {
  // Sound as Sendable: everything that changes is used inside the monitor.
  private let monitor = Monitor()
  private let name: String
  private var job: IDEJob?
  private var isEnding = false
  private var thread: HostThread?

  init(name: String) { self.name = name }

  /// Lets the thread do `job` by `perform`, which is the same each time. Returns false where there
  /// is no thread to be had.
  func post(_ job: IDEJob, _ perform: @escaping @Sendable (IDEJob) -> Void) -> Bool {
    monitor.locked {
      guard !isEnding else { return false }
      if thread == nil {
        thread = try? HostThread(name: name) { [self] in
          while let job = next() { perform(job) }
        }
      }
      guard thread != nil else { return false }
      self.job = job
      monitor.wakeAll()
      return true
    }
  }

  private func next() -> IDEJob? {
    monitor.locked {
      while job == nil && !isEnding { monitor.wait() }
      // What was asked for is done, even at the end.
      defer { job = nil }
      return job
    }
  }

  /// Ends the thread when it has done what it has, and waits for that. Nothing can be posted after.
  func stop() {
    let thread = monitor.locked {
      isEnding = true
      monitor.wakeAll()
      defer { self.thread = nil }
      return self.thread
    }
    thread?.join()
  }
}
