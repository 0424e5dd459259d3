import Devices
import Host
import KVM
import Memory

/// Runs one VCPU on its thread: enters the guest, hands each exit to the device it is for, and goes
/// on until the run ends.
///
/// This is the hot path: with nothing observed it allocates nothing and takes no lock of its own.
final class VCPURunner: @unchecked Sendable {
  // Sound as Sendable: everything but `history` is fixed, and that is written by
  // the VCPU's own thread and read by others once it has ended or is parked.

  let vcpu: VCPU
  private let memory: GuestMemory
  private let ports: Bus
  private let mmio: Bus
  private let control: RunControl
  private let parking: Parking
  /// The last exits; kept for the account of a crash.
  var history = ExitHistory()

  init(
    _ vcpu: VCPU, _ memory: GuestMemory, ports: Bus, mmio: Bus, _ control: RunControl,
    _ parking: Parking
  ) {
    self.vcpu = vcpu
    self.memory = memory
    self.ports = ports
    self.mmio = mmio
    self.control = control
    self.parking = parking
  }

  /// The body of the VCPU's thread.
  func run<Observer: ExitObserver>(observer: Observer) {
    defer { parking.leave() }
    do {
      try loop(observer)
    } catch .badAddress {
      control.finish(.hostFailed("the host could not provide the guest's memory (KVM_RUN: EFAULT)"))
    } catch {
      control.finish(.hostFailed("VCPU \(vcpu.id): KVM_RUN: \(error)"))
    }
  }

  private func loop<Observer: ExitObserver>(_ observer: Observer) throws(Errno) {
    // A local copy, so that adding to it needs no check for exclusive access.
    var history = self.history
    defer { self.history = history }
    guard parking.pass(control) else { return }
    while true {
      observer.willRun()
      let exit: Exit
      do { exit = try vcpu.run() } catch { throw error.errno }
      observer.didExit()
      var data: UInt64 = 0
      switch exit {
      case .portIO(let io):
        data = handle(io)
        history.add(exit, instructionPointer: vcpu.instructionPointer, data: data)
      case .mmio(let access):
        data = handle(access)
        history.add(exit, instructionPointer: vcpu.instructionPointer, data: data)
      case .interrupted:
        vcpu.clearExitRequest()
        observer.didHandle(exit, data: data, self)
        self.history = history
        guard parking.pass(control) else { return }
        continue
      default:
        history.add(exit, instructionPointer: vcpu.instructionPointer, data: 0)
        self.history = history
        handleRare(exit)
      }
      observer.didHandle(exit, data: data, self)
      let orders = control.orders
      if orders.isEmpty { continue }
      if orders.contains(.end) && !control.keepsState { return }
      // The next entry finishes what this exit began, and comes back at once: then the VCPU's state is
      // whole (KVM's API, 5: KVM_EXIT_IO).
      vcpu.requestExit()
    }
  }

  // MARK: Port I/O

  /// Does the accesses of a port-I/O exit and returns the data of the first.
  @inline(__always)
  private func handle(_ io: Exit.PortIO) -> UInt64 {
    let port = UInt64(io.port)
    if io.isWrite {
      let first = vcpu.value(of: io, 0)
      if io.count == 1 {
        ports.write(port, width: io.width, value: first)
      } else {
        // A repeated instruction: the data goes on, the port stays.
        vcpu.withBytes(of: io) { ports.write(port, width: io.width, bytes: $0) }
      }
      return first
    }
    if io.count == 1 {
      vcpu.setValue(ports.read(port, width: io.width), of: io, 0)
    } else {
      vcpu.withMutableBytes(of: io) { ports.read(port, width: io.width, into: &$0) }
    }
    return vcpu.value(of: io, 0)
  }

  // MARK: MMIO

  private func handle(_ access: Exit.MMIO) -> UInt64 {
    let pieces = access.width & (access.width - 1) == 0 ? 1 : access.width
    let width = access.width / pieces
    // An access over the edge of a page comes in odd lengths, which no device has: byte by byte.
    if access.isWrite {
      for piece in 0..<pieces {
        mmio.write(
          access.address &+ UInt64(piece), width: width,
          value: pieces == 1 ? access.data : access.data >> UInt64(piece * 8) & 0xFF)
      }
      return access.data
    }
    var data: UInt64 = 0
    for piece in 0..<pieces {
      data |= mmio.read(access.address &+ UInt64(piece), width: width) << UInt64(piece * 8)
    }
    vcpu.setMMIOData(data)
    return data
  }

  // MARK: Everything else

  private func handleRare(_ exit: Exit) {
    switch exit {
    case .systemEvent(SystemEvent.shutdown): control.requestPowerOff()
    case .systemEvent(SystemEvent.reset): control.requestReset()
    case .memoryFault:
      control.finish(.hostFailed("the host could not provide the guest's memory"))
    default: control.finish(.crashed(CrashReport(exit, self, memory)))
    }
  }

  /// What a guest or KVM can ask for by `KVM_EXIT_SYSTEM_EVENT`.
  private enum SystemEvent {
    static let shutdown: UInt32 = 1
    static let reset: UInt32 = 2
  }

  /// The name of the device that an exit is for; nil where nobody claims it.
  func deviceName(_ exit: Exit) -> StaticString? {
    switch exit {
    case .portIO(let io): ports.deviceName(at: UInt64(io.port))
    case .mmio(let access): mmio.deviceName(at: access.address)
    default: nil
    }
  }
}

/// What is to be noted of each exit. The run loop is compiled once for each kind of observer, so
/// that observing nothing costs nothing.
protocol ExitObserver {
  /// Just before the guest is entered.
  func willRun()
  /// Just after it was left.
  func didExit()
  /// When the exit has been dealt with; `data` is that of its first access.
  func didHandle(_ exit: Exit, data: UInt64?, _ runner: VCPURunner)
}

/// Observes nothing.
struct NoObserver: ExitObserver {
  @inline(__always) func willRun() {}
  @inline(__always) func didExit() {}
  @inline(__always) func didHandle(_ exit: Exit, data: UInt64?, _ runner: VCPURunner) {}
}
