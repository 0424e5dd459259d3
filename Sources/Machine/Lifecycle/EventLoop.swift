import Host
import KVM

/// Waits for everything that isn't an exit: commands, input, signals, time, what the guest asks of the
/// machine. Runs on the thread that called `Machine.run()`, and takes the run to its end.
final class EventLoop {
  let machine: Machine
  let control: RunControl
  let standstill: Standstill
  var threads: VCPUThreads
  /// Whether the VCPUs have their threads.
  var hasThreads = false
  /// Who wants the machine to be paused, and has not heard yet that it is.
  var pausing: [CommandQueue.Reply] = []
  /// Whether it is to stand still until somebody resumes it.
  var isPauseWanted = false
  /// Who wants a look at the machine when it stands still.
  var inspections: [(look: @Sendable (Machine) -> Void, reply: CommandQueue.Reply)] = []
  /// The same, from when on it is held.
  var holding: [(look: @Sendable (Machine) -> Void, reply: CommandQueue.Reply)] = []
  /// How many hold it.
  var holds = 0
  /// Who waits for a reset.
  var resetting: [CommandQueue.Reply] = []
  /// Whether the guest has suspended the machine.
  var isSuspended: Bool {
    get { machine.isSuspended }
    set { machine.isSuspended = newValue }
  }

  let poller: Poller
  private let deadline: UInt64?
  private var nextLook = UInt64.max
  /// Of each source of input, whether it is watched, and whether it is always ready.
  private var watched: [(isOn: Bool, isReady: Bool)]

  enum Tag {
    static let control: UInt64 = 0
    static let demand: UInt64 = 1
    static let signal: UInt64 = 2
    static let command: UInt64 = 3
    static let reports: UInt64 = 4
    static let violation: UInt64 = 5
    /// The first source's; the others' follow.
    static let input: UInt64 = 6
  }

  /// How often a suspended machine's clock is looked at; its alarm is at a full second.
  private static let alarmInterval: UInt64 = 10_000_000
  /// How often a process in the background looks whether it has come to the foreground, which nobody
  /// tells it.
  private static let foregroundInterval: UInt64 = 500_000_000

  init(_ machine: Machine, deadline: UInt64?) throws(Errno) {
    self.machine = machine
    self.deadline = deadline
    control = machine.control
    poller = try Poller()
    watched = machine.input.sources.map { _ in (false, false) }
    standstill = Standstill(control, workers: machine.inventory.pausable)
    threads = VCPUThreads(machine.engine, machine.recorders, control)
  }

  /// Runs the machine until the run ends; then all VCPUs have stopped.
  func run() throws(Errno) {
    _ = try poller.add(control.event.descriptor, tag: Tag.control)
    _ = try poller.add(machine.input.demand.descriptor, tag: Tag.demand)
    _ = try poller.add(machine.commands.descriptor, tag: Tag.command)
    if let signals = machine.configuration.run.signals {
      _ = try poller.add(signals.descriptor, tag: Tag.signal)
    }
    if let violation = machine.configuration.run.violation {
      _ = try poller.add(FileDescriptor(borrowing: violation.file), tag: Tag.violation)
    }
    _ = try poller.add(machine.inventory.reports.event.descriptor, tag: Tag.reports)
    // A machine that is to be paused from the start runs no instruction.
    for request in machine.commands.take() { begin(request) }
    if isPauseWanted || isSuspended { standstill.begin(threads) }
    if !isSuspended { startThreads() }
    machine.configuration.run.didStart?()
    machine.input.feed()
    Takeover.act(as: .loop)
    while !control.isEnding {
      advance()
      machine.input.isHeld = !standstill.isMoving
      wait()
      checkTime()
    }
    if control.outcome?.isFromOutside == true { machine.trace?.stopWaiting() }
    threads.end()
    keep()
    refuseRest()
  }

  /// Starts the VCPUs of the present engine.
  func startThreads() {
    hasThreads = true
    do { try threads.start() } catch {
      return control.finish(.hostFailed("a VCPU's thread can't be started: \(error)"))
    }
    scheduleLook()
  }

  // MARK: Waiting

  private func wait() {
    guard !control.isEnding else { return }
    // What a paused guest is sent waits; the keys that are kvmlite's are still read.
    for index in watched.indices where machine.input.wantsMore(from: index) != watched[index].isOn {
      watchInput(index)
    }
    let ready = watched.firstIndex { $0.isOn && $0.isReady }
    switch poller.next(until: ready == nil ? nextTime : 0) {
    case Tag.control: control.event.consume()
    case Tag.demand:
      machine.input.demand.consume()
      machine.input.feed()
    case Tag.command: for request in machine.commands.take() { begin(request) }
    case Tag.reports: machine.tellReports()
    case Tag.violation: machine.configuration.run.violation?.tell(machine)
    case Tag.signal:
      if let signal = machine.configuration.run.signals?.next() { machine.take(signal) }
    case let tag?: machine.input.readMore(from: Int(tag - Tag.input))
    case nil: if let ready { machine.input.readMore(from: ready) }
    }
  }

  /// Starts or stops watching a source of input, which is always ready if it is a regular file.
  private func watchInput(_ index: Int) {
    let source = FileDescriptor(borrowing: machine.input.sources[index].number)
    watched[index].isOn.toggle()
    if watched[index].isOn {
      watched[index].isReady = (try? poller.add(source, tag: Tag.input + UInt64(index))) == false
    } else {
      poller.remove(source)
    }
  }

  // MARK: Time

  /// When something has to be done, whatever happens until then.
  private var nextTime: UInt64? {
    var next = min(deadline ?? .max, standstill.deadline ?? .max)
    if standstill.isMoving { next = min(next, nextLook) }
    if isSuspended { next = min(next, Clock.monotonicNanoseconds &+ Self.alarmInterval) }
    if machine.input.isShut {
      next = min(next, Clock.monotonicNanoseconds &+ Self.foregroundInterval)
    }
    return next == .max ? nil : next
  }

  private func scheduleLook() {
    nextLook = Clock.monotonicNanoseconds &+ machine.engine.watch.nextDelay()
  }

  private func checkTime() {
    if machine.input.isShut { machine.configuration.run.didContinue?() }
    let now = Clock.monotonicNanoseconds
    if let deadline, now >= deadline {
      control.finish(.timedOut(positions()))
    } else if standstill.isMoving, now >= nextLook {
      if machine.engine.watch.mayHaveHalted() { lookCloser() }
      scheduleLook()
    }
  }

  // MARK: Looking at VCPUs that stand still for a moment

  /// How long VCPUs that are busy in a device may take to stand still, in nanoseconds.
  private static let patience: UInt64 = 500_000_000

  /// Stops all VCPUs, runs `body`, and lets them go on as before; false if one could not be stopped in
  /// time.
  private func whileStill(_ patience: UInt64, _ body: () -> Void) -> Bool {
    if hasThreads {
      control.give(.hold)
      threads.kick()
    }
    let isStill = threads.waitUntilStill(patience)
    if isStill { body() }
    if standstill.isMoving {
      control.withdraw(.hold)
      threads.wake()
    }
    return isStill
  }

  private func lookCloser() {
    _ = whileStill(20_000_000) {
      // Who waits for something else than the guest has not halted.
      guard control.orders == .hold else { return }
      if (try? machine.engine.watch.hasHalted(machine.engine.vm)) == true {
        control.finish(.halted)
      }
    }
  }

  func positions() -> [VCPUPosition] {
    if isSuspended { return [VCPUPosition(vcpu: 0, text: "suspended: nothing has woken it")] }
    let runners = machine.engine.runners
    var positions: [VCPUPosition] = []
    if whileStill(Self.patience, { positions = runners.map { VCPUPosition($0.vcpu) } }) {
      return positions
    }
    return runners.map {
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
