import Host
import Memory

/// Suspend to RAM, ACPI's S3 (ACPI 6.5, 7.4.2.4 and 16.1.3): memory is kept, the devices' registers
/// are too, and processors and interrupt controllers start anew.
///
/// No AML says that it's there, so Linux doesn't offer it; guests that know the PIIX4 use it.
extension Machine {
  /// A look at the clock comes so often; its alarm is at a full second.
  private static let lookMilliseconds: Int32 = 10

  /// Sleeps until the clock's alarm, and has the engine go on from there, or until the run ends.
  func sleep(_ signals: borrowing FileDescriptor, deadline: UInt64?) throws(Errno) {
    let poller = try Poller()
    let (request, signal): (UInt64, UInt64) = (0, 1)
    _ = try poller.add(control.event.descriptor, tag: request)
    _ = try poller.add(signals, tag: signal)
    while control.phase == .suspended {
      switch poller.next(milliseconds: Self.lookMilliseconds) {
      case request: control.event.consume()
      case signal:
        if let signal = Signal.next(from: signals) { take(signal) }
      default: break
      }
      if let deadline, Clock.monotonicNanoseconds >= deadline {
        control.finish(.timedOut([VCPUPosition(vcpu: 0, text: "suspended: nothing has woken it")]))
      } else if inventory.powerManagement.clockMayWake && inventory.realTimeClock.hasAlarm {
        wake()
      }
    }
  }

  /// Does what firmware does when the machine wakes.
  private func wake() {
    inventory.powerManagement.wakeByClock()
    guard let vector = wakingVector else { return control.finish(.reset) }
    do {
      try restart(at: vector)
      _ = control.change(from: .suspended, to: .running)
    } catch {
      control.finish(.hostFailed("the guest's virtual machine can't be made anew: \(error)"))
    }
  }

  /// Where the guest wants to go on, by FACS (5.2.10): nil if it never said.
  private var wakingVector: UInt32? {
    guard let facs, let table = try? memory.view(at: facs, count: 16),
      table.load(0, as: UInt32.self) == 0x5343_4146  // "FACS"
    else { return nil }
    let vector = table.load(12, as: UInt32.self)
    return vector != 0 && vector < Layout.firmwareEnd.value ? vector : nil
  }
}
