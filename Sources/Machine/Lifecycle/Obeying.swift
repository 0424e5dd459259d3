import Host
import KVM

/// What the event loop does for commands and for what the guest asks of the machine: nearly all of it
/// while the machine stands still.
extension EventLoop {
  /// Takes a command that has come.
  func begin(_ request: CommandQueue.Request) {
    switch request.command {
    case .pause:
      isPauseWanted = true
      pausing.append(request.reply)
    case .resume:
      guard isPauseWanted else { return request.reply(.failure(.isNotPaused)) }
      isPauseWanted = false
      for reply in pausing { reply(.failure(.resumed)) }
      pausing = []
      machine.commands.note(isSuspended ? .suspended : .running)
      request.reply(.success(()))
    case .reset:
      resetting.append(request.reply)
      control.give(.reset)
    case .powerButton:
      machine.inventory.powerManagement.pressPowerButton()
      request.reply(.success(()))
    case .stop(let reason):
      control.finish(reason.map { .stopped($0) } ?? .timedOut(positions()))
      request.reply(.success(()))
    case .inspect(let look): inspections.append((look, request.reply))
    case .hold(let look): holding.append((look, request.reply))
    case .release:
      holds = max(0, holds - 1)
      request.reply(.success(()))
    case .look(let look):
      look(machine)
      request.reply(.success(()))
    }
  }

  /// Whether something asks for a machine that stands still.
  private var mustStandStill: Bool {
    isPauseWanted || isSuspended || holds > 0 || !inspections.isEmpty || !holding.isEmpty
      || !control.orders.isDisjoint(with: [.reset, .suspend])
  }

  /// Goes on with all that has been asked for, as far as it can be done now.
  func advance() {
    if control.takeLookRequest(), let look = machine.configuration.run.look {
      inspections.append((look, { _ in }))
    }
    if isSuspended && !isPauseWanted && holds == 0 { wakeIfAlarmed() }
    if mustStandStill { standstill.begin(threads) }
    guard !standstill.isMoving, standstill.advance(threads), !control.isEnding else { return }
    if holds == 0, control.orders.contains(.reset) { reset() }
    if control.orders.contains(.suspend) { suspend() }
    machine.commands.note(isPauseWanted ? .paused : isSuspended ? .suspended : .running)
    for (look, reply) in inspections {
      look(machine)
      reply(.success(()))
    }
    inspections = []
    for (look, reply) in holding {
      look(machine)
      holds += 1
      reply(.success(()))
    }
    holding = []
    for reply in pausing { reply(.success(())) }
    pausing = []
    if !mustStandStill && !control.isEnding { goOn() }
  }

  private func goOn() {
    standstill.end()
    machine.input.isHeld = false
    machine.input.feed()
    if hasThreads { threads.wake() } else { startThreads() }
  }

  /// Ends the VCPUs' threads: the machine goes on with another engine.
  private func dismissThreads() {
    guard hasThreads else { return }
    control.give(.leave)
    threads.end()
    control.withdraw(.leave)
    hasThreads = false
  }

  private func replaceEngine(_ start: Engine.Start) throws(KVMError) {
    try machine.replaceEngine(start)
    threads = VCPUThreads(machine.engine, machine.recorders, control)
  }

  /// Answers all who still wait: the run is over.
  func refuseRest() {
    let rest = pausing + resetting + (inspections + holding).map(\.reply)
    (pausing, resetting, inspections, holding) = ([], [], [], [])
    for reply in rest { reply(.failure(.hasEnded)) }
  }

  // MARK: Reset

  private func reset() {
    // Who asks for it from outside wants it done.
    guard machine.configuration.restartsAtReset || !resetting.isEmpty else {
      return control.finish(.reset)
    }
    dismissThreads()
    if let path = machine.configuration.resources.changedInput {
      return control.finish(.inputChanged(path))
    }
    do {
      try machine.reset()
      try replaceEngine(machine.start)
    } catch {
      return control.finish(.hostFailed("the machine can't be reset: \(error)"))
    }
    isSuspended = false
    control.withdraw([.reset, .suspend])
    for reply in resetting { reply(.success(())) }
    resetting = []
  }

  // MARK: Suspend to RAM

  // ACPI's S3 (ACPI 6.5, 7.4.2.4 and 16.1.3): memory is kept, the devices' registers are too, and
  // processors and interrupt controllers start anew. No AML says that it's there, so Linux doesn't
  // offer it; guests that know the PIIX4 use it.

  private func suspend() {
    dismissThreads()
    isSuspended = true
    control.withdraw(.suspend)
  }

  private func wakeIfAlarmed() {
    let power = machine.inventory.powerManagement
    guard standstill.isStill, power.clockMayWake, machine.inventory.realTimeClock.hasAlarm else {
      return
    }
    power.wakeByClock()
    isSuspended = false
    guard let vector = machine.wakingVector else { return control.give(.reset) }
    do { try replaceEngine(.waking(vector: vector, machine.format)) } catch {
      control.finish(.hostFailed("the guest's virtual machine can't be made anew: \(error)"))
    }
  }
}
