import Host

/// The threads on which an engine's VCPUs run.
final class VCPUThreads {
  private let engine: Engine
  private let recorders: [Recorder]
  private let control: RunControl
  private var threads: [HostThread] = []

  /// For `engine`; each VCPU's exits go to its place in `recorders`, if there are any.
  init(_ engine: Engine, _ recorders: [Recorder], _ control: RunControl) {
    self.engine = engine
    self.recorders = recorders
    self.control = control
  }

  /// Starts them. After an error some may run; `end()` is for these too.
  func start() throws(Errno) {
    Signal.kick.installInterruptingHandler()
    for (index, runner) in engine.runners.enumerated() {
      let recorder = recorders.isEmpty ? nil : recorders[index]
      engine.parking.enter()
      do throws(Errno) {
        try threads.append(
          HostThread.start(name: "vcpu\(index)", role: .vcpu) {
            // The thread that made this one may block signals, as those of libdispatch do.
            Signal.unblock([.kick])
            if let recorder {
              runner.run(observer: recorder)
            } else {
              runner.run(observer: NoObserver())
            }
          })
      } catch {
        engine.parking.leave()
        throw error
      }
    }
  }

  /// Brings those that run the guest, or wait in a system call, to where they see their orders.
  func kick() {
    for (index, thread) in threads.enumerated() {
      engine.runners[index].vcpu.requestExit()
      thread.send(.kick)
    }
  }

  /// Whether all wait outside the guest, or have ended.
  var isStill: Bool { engine.parking.isStill }

  /// Waits up to `patience` nanoseconds for that; false if it was in vain.
  func waitUntilStill(_ patience: UInt64) -> Bool { engine.parking.waitUntilStill(patience) }

  /// Lets those that wait look at their orders again.
  func wake() { engine.parking.wake() }

  /// Waits until all have ended, whose orders are to.
  func end() {
    engine.parking.wake()
    // A kick can come just before a thread starts to wait in a write: repeat until all have left.
    repeat { kick() } while !engine.parking.waitUntilEmpty(10_000_000)
    for thread in threads { thread.join() }
    threads = []
  }
}
