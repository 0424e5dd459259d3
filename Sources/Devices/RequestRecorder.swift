import Host

/// Counts and times the requests of one ring or drive, which come one after the other.
///
/// Unless times are asked for it takes none, and tells nobody.
struct RequestRecorder {
  var statistics = RequestStatistics()
  private(set) var observer: (any RequestObserver)?
  private var takesTimes = false
  /// When the oldest of the requests at hand was found; 0 before that.
  private var found: UInt64 = 0
  /// When the one under way began.
  private var start: UInt64 = 0

  init() {}

  init(_ observation: DeviceObservation?, label: @autoclosure () -> String) {
    observe(observation, label: label())
  }

  /// Goes on for `observation`, under a name that may have changed.
  mutating func observe(_ observation: DeviceObservation?, label: @autoclosure () -> String) {
    takesTimes = observation != nil
    observer = observation?.makeObserver.map { $0(label()) }
  }

  /// A look finds a request: its time begins, and that of those which are found until `endBatch()`.
  mutating func find() {
    if takesTimes && found == 0 { begin() }
  }

  /// A request begins now, whenever its buffers came.
  mutating func begin() {
    guard takesTimes else { return }
    start = Clock.monotonicNanoseconds
    found = start
  }

  /// A request is done; nil for a part of one, of which there is nothing to tell.
  mutating func finish(_ request: DeviceRequest?) {
    statistics.add(request)
    // One that was taken for later has no time of its own.
    guard takesTimes && found != 0 else { return }
    let now = Clock.monotonicNanoseconds
    statistics.latencies.add(now &- found)
    if let request { observer?.didFinish(request, from: start, to: now) }
    start = now
  }

  mutating func endBatch() { found = 0 }

  mutating func countDoorbell() {
    statistics.doorbells? &+= 1
    observer?.wasRung()
  }
}
