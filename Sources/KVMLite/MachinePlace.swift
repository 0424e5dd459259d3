import Host
import Machine
import Memory

/// Where a `VirtualMachine`'s machine is: in this process or in another.
protocol MachinePlace: Sendable {
  /// What it is doing.
  var state: MachineState { get }

  /// Whether the run has begun.
  var hasBegun: Bool { get }
  /// Notes that the run begins; false if it has begun before.
  func begin() -> Bool
  /// Runs it to its end, on the calling thread, once it has begun.
  func run() -> Outcome
  /// Is what follows where it can't be run.
  func end()
  /// Has the run end, or not begin.
  func stop()
  /// Waits until the run, which has begun, is over.
  func waitForEnd() async
  /// Has a command done, once the run has begun.
  func send(_ command: Command) async throws(VirtualMachineError)
  /// Writes it to these files while it stands still, before its run has begun, too; then it goes on, or
  /// `stays` as it is.
  func save(
    state: SharedDescriptor, memory: SharedDescriptor, stays: Bool
  ) async throws(VirtualMachineError)

  // Each may be asked for before, during and after the run.
  func statistics() async -> RunStatistics
  func memory(at address: GuestAddress, count: Int) async throws(VirtualMachineError) -> [UInt8]?
  func registers(ofVCPU id: Int) async throws(VirtualMachineError) -> Registers?
  func specialRegisters(ofVCPU id: Int) async throws(VirtualMachineError) -> SpecialRegisters?

  /// Lets go of it; it isn't run any more.
  func close()
}
