import Host
import KVM

/// Waits for everything that isn't an exit: requests to end, input, signals, time; runs on the
/// thread that called `Machine.run()`, and takes the run to its end.
final class EventLoop {
  private let machine: Machine
  private let control: RunControl
  private let engine: Engine
  private let watch: HaltWatch
  private let deadline: UInt64?
  private var nextLook: UInt64?
  private var threads: [HostThread] = []

  private enum Tag {
    static let control: UInt64 = 0
    static let input: UInt64 = 1
    static let demand: UInt64 = 2
    static let signal: UInt64 = 3
    static let reports: UInt64 = 4
  }

  init(_ machine: Machine, deadline: UInt64?) {
    self.machine = machine
    self.deadline = deadline
    engine = machine.engine
    control = machine.control
    watch = engine.watch
  }

  /// Runs the VCPUs until the run ends or the machine needs another engine; then all have stopped.
  func run(_ signals: borrowing FileDescriptor) throws(Errno) {
    let poller = try Poller()
    _ = try poller.add(control.event.descriptor, tag: Tag.control)
    _ = try poller.add(machine.input.demand.descriptor, tag: Tag.demand)
    _ = try poller.add(signals, tag: Tag.signal)
    _ = try poller.add(machine.wiring.reports.event.descriptor, tag: Tag.reports)
    defer { stopThreads() }
    try startThreads()
    scheduleLook()
    wait(poller, signals)
  }

  // MARK: Threads

  private func startThreads() throws(Errno) {
    Signal.kick.installInterruptingHandler()
    for (index, runner) in engine.runners.enumerated() {
      let recorder = machine.recorders.isEmpty ? nil : machine.recorders[index]
      do throws(Errno) {
        try threads.append(
          HostThread(name: "vcpu\(index)") {
            // The thread that made this one may block signals, as those of libdispatch do.
            Signal.unblock([.kick])
            if let recorder {
              runner.run(observer: recorder)
            } else {
              runner.run(observer: NoObserver())
            }
          })
      } catch {
        for _ in index..<engine.runners.count { engine.parking.leave() }
        throw error
      }
    }
  }

  private func kick() {
    for (index, thread) in threads.enumerated() {
      engine.runners[index].vcpu.requestExit()
      thread.send(.kick)
    }
  }

  private func stopThreads() {
    if control.outcome?.isFromOutside == true { machine.trace?.stopWaiting() }
    engine.parking.wake()
    // A kick can come just before a thread starts to wait in a write: repeat until all have left.
    repeat { kick() } while !engine.parking.waitUntilEmpty(10_000_000)
    for thread in threads { thread.join() }
  }

  // MARK: Waiting

  private func wait(_ poller: borrowing Poller, _ signals: borrowing FileDescriptor) {
    var isWatchingInput = false
    var inputNeedsNoWait = false
    machine.input.feed()
    while control.phase == .running {
      if machine.input.wantsMore != isWatchingInput {
        isWatchingInput.toggle()
        inputNeedsNoWait = watchInput(isWatchingInput, poller)
      }
      let isReady = isWatchingInput && inputNeedsNoWait
      let tag = poller.next(nanoseconds: isReady ? 0 : nanoseconds())
      switch tag {
      case Tag.control: control.event.consume()
      case Tag.input: machine.input.readMore()
      case Tag.demand:
        machine.input.demand.consume()
        machine.input.feed()
      case Tag.reports: machine.tellReports()
      case Tag.signal:
        if let signal = Signal.next(from: signals) { machine.take(signal) }
      default: if isReady { machine.input.readMore() }
      }
      checkTime()
      if control.takeLookRequest() { look() }
    }
  }

  /// Starts or stops watching the input; returns whether it is always ready, as a regular file is.
  private func watchInput(_ isOn: Bool, _ poller: borrowing Poller) -> Bool {
    guard let source = machine.input.makeSourceDescriptor() else { return false }
    if isOn { return (try? poller.add(source, tag: Tag.input)) == false }
    poller.remove(source)
    return false
  }

  private func scheduleLook() {
    nextLook = Clock.monotonicNanoseconds &+ watch.nextDelay()
  }

  /// How long nothing has to be done by the clock.
  private func nanoseconds() -> UInt64? {
    let next = min(nextLook ?? .max, deadline ?? .max)
    guard next != .max else { return nil }
    let now = Clock.monotonicNanoseconds
    return next <= now ? 0 : next - now
  }

  private func checkTime() {
    let now = Clock.monotonicNanoseconds
    if let deadline, now >= deadline {
      control.finish(.timedOut(positions()))
    } else if let nextLook, now >= nextLook {
      if watch.mayHaveHalted() { lookCloser(watch) }
      scheduleLook()
    }
  }

  // MARK: Looking at a machine that stands still

  /// How long VCPUs that are busy in a device may take to stand still, in nanoseconds.
  private static let patience: UInt64 = 500_000_000

  /// Stops all VCPUs, runs `body`, and lets them go on; false if one could not be stopped in time.
  private func whileStill(_ patience: UInt64, _ body: () -> Void) -> Bool {
    // A VCPU may have asked for something else just now, or may do so while others are stopped.
    guard control.change(from: .running, to: .paused) else { return false }
    kick()
    let isStill = engine.parking.waitUntilStill(patience)
    if isStill { body() }
    _ = control.change(from: .paused, to: .running)
    engine.parking.wake()
    return isStill
  }

  private func lookCloser(_ watch: HaltWatch) {
    _ = whileStill(20_000_000) {
      if (try? watch.hasHalted(engine.vm)) == true { control.finish(.halted) }
    }
  }

  /// Shows the still machine to whoever asked.
  private func look() {
    guard let look = machine.configuration.look else { return }
    _ = whileStill(Self.patience) { look.body(machine) }
  }

  private func positions() -> [VCPUPosition] {
    var positions: [VCPUPosition] = []
    let isStill = whileStill(Self.patience) {
      positions = engine.runners.map { VCPUPosition($0.vcpu) }
    }
    if isStill { return positions }
    return engine.runners.map {
      VCPUPosition(vcpu: $0.vcpu.id, text: "busy in kvmlite: a device waits for the host")
    }
  }
}

extension VCPUPosition {
  /// Where `vcpu`, which stands still, is.
  fileprivate init(_ vcpu: VCPU) {
    self.vcpu = vcpu.id
    guard let registers = try? vcpu.registers(), let special = try? vcpu.specialRegisters(),
      let state = try? vcpu.runState()
    else {
      text = "unknown: KVM doesn't say"
      return
    }
    let place =
      "at CS:RIP \(hex(UInt64(special.cs.selector))):\(hex(registers.rip)), "
      + "CR3 \(hex(special.cr3)), RFLAGS \(hex(registers.rflags))"
    let interrupts = registers.rflags & (1 << 9) != 0 ? "on" : "off"
    text =
      switch state {
      case .runnable, .sipiReceived: "running \(place)"
      case .halted: "halted with interrupts \(interrupts) \(place)"
      case .uninitialized, .initReceived: "never started: it waits for INIT and SIPI"
      }
  }
}
