import Devices
import Host
import Memory
import Synchronization

/// One ring of a back end: what the front end said of it, and the thread that serves it.
struct BackEndRing {
  var size: UInt16 = 0
  /// Where its next request is.
  var base: UInt16 = 0
  /// Where its parts are, in the front end's addresses.
  var addresses: VirtQueue.Addresses?
  /// What is raised for the back end; nil for a ring that was stopped.
  var kick: SharedEvent?
  var isEnabled = false
  /// What the back end raises.
  let signals = BackEndSignals()
  /// What was done so far; of a ring that is at work, what it did before.
  private(set) var statistics = RequestStatistics()
  private var work: Work?

  private struct Work {
    let queue: ActiveQueue
    let worker: Worker
    /// Its place among the rings of several machines.
    var place: Int?
  }
  /// The machine's part in turns; nil where rings are served at once.
  var seat: BackEndSeat?

  var isRunning: Bool { work != nil }

  /// Begins to serve ring `index` in `table`'s memory if all is there that it takes.
  mutating func start(
    _ index: Int, _ device: any VirtioDevice, _ features: VirtioFeatures, _ table: MemoryTable?,
    _ report: @escaping @Sendable (String) -> Void
  ) throws(VhostUserError) {
    guard work == nil, isEnabled, let kick, let addresses, let table, size > 0 else { return }
    guard let addresses = table.guestAddresses(of: addresses) else {
      throw .malformed("ring \(index) is outside the memory it gave")
    }
    let ring: VirtQueue
    do throws(RingFault) {
      ring = try VirtQueue(
        index: index, size: size, addresses: addresses, features: features, memory: table.memory,
        start: .init(base))
    } catch { throw .malformed("\(error)") }
    signals.kick.withLock { $0 = kick }
    let queue = ActiveQueue(ring, features: features, signals: signals)
    let signals = signals
    let isBroken = SharedFlag()
    do throws(Errno) {
      let worker = try Worker(name: "ring.\(index)")
      work = Work(queue: queue, worker: worker)
      let serve: @Sendable (Bool) -> Void = { isRung in
        guard !isBroken.value.load(ordering: .relaxed) else { return }
        _ = queue.takeTurn {
          if isRung { queue.countDoorbell() }
          do throws(RingFault) { try device.serve(queue) } catch {
            isBroken.value.store(true, ordering: .relaxed)
            signals.raiseError()
            report("the guest's driver broke the disk: \(error)")
          }
        }
      }
      if let seat {
        try takeTurns(seat, queue, worker, kick, serve)
      } else {
        try worker.watch(kick.event) { serve(true) }
      }
    } catch { throw .host(error) }
    // There may be requests already.
    kick.event.raise()
  }

  /// Has the ring served in its machine's turns.
  private mutating func takeTurns(
    _ seat: BackEndSeat, _ queue: ActiveQueue, _ worker: Worker, _ kick: SharedEvent,
    _ serve: @escaping @Sendable (Bool) -> Void
  ) throws(Errno) {
    let isRung = SharedFlag()
    work?.place = seat.turns.enter(seat.machine) {
      let isRung = isRung.value.exchange(false, ordering: .acquiringAndReleasing)
      return seat.disk.inTurn(of: queue) { serve(isRung) }
    }
    try worker.watch(kick.event) {
      isRung.value.store(true, ordering: .releasing)
      seat.turns.wake()
    }
  }

  /// Ends the work after the request that it is at, and notes where the ring goes on.
  mutating func stop() {
    guard let work else { return }
    work.queue.stop()
    work.worker.stop()
    if let place = work.place { seat?.turns.leave(place) }
    base = work.queue.position.available
    statistics.add(work.queue.statistics)
    self.work = nil
  }
}

private final class SharedFlag: Sendable {
  let value = Atomic(false)
}

/// What a ring's thread raises; the front end may replace it at any time.
final class BackEndSignals: QueueSignals {
  let kick = RankedMutex<SharedEvent?>(.last, nil)
  let call = RankedMutex<SharedEvent?>(.last, nil)
  let error = RankedMutex<SharedEvent?>(.last, nil)

  func wake(queue index: Int) { kick.withLock { $0 }?.event.raise() }
  func requestsDone(queue: Int) -> DeviceInterrupt {
    call.withLock { $0 }?.event.raise()
    return .none
  }
  func raiseError() { error.withLock { $0 }?.event.raise() }
}
