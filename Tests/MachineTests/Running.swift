import Boot
import Devices
import Host
import Machine
import Memory
import Storage
import TestSupport
import Testing

/// What became of a guest.
struct Run {
  let machine: Machine
  let outcome: Outcome
  let output: [UInt8]

  var outputText: String { String(decoding: output, as: UTF8.self) }

  /// What the guest left in its memory.
  func word<T: FixedWidthInteger & BitwiseCopyable>(_ address: GuestAddress, _ type: T.Type) throws
    -> T
  {
    try machine.memory.view(at: address, count: UInt64(MemoryLayout<T>.size)).load(0, as: type)
  }
}

/// All that a machine is made from, as a test changes it.
@dynamicMemberLookup
struct Setup {
  var spec = VMConfiguration()
  var resources: Resources
  // It only bounds a hang.
  var options = RunOptions(timeLimit: 60)

  init(_ image: [UInt8], mode: CPUMode? = nil, console: (any ByteSink)? = nil) {
    resources = Resources(image: .init(image, name: "test", mode: mode), console: console)
  }

  subscript<Value>(dynamicMember path: WritableKeyPath<VMConfiguration, Value>) -> Value {
    get { spec[keyPath: path] }
    set { spec[keyPath: path] = newValue }
  }

  subscript<Value>(dynamicMember path: WritableKeyPath<RunOptions, Value>) -> Value {
    get { options[keyPath: path] }
    set { options[keyPath: path] = newValue }
  }

  mutating func add(_ kinds: VMConfiguration.Kind...) { spec.devices += kinds.map { .init($0) } }

  mutating func add(
    _ disk: any BlockStore, bus: VMConfiguration.Disk.Bus = .virtio, serial: String = ""
  ) {
    let id = "disk\(resources.disks.count)"
    var settings = VMConfiguration.Disk(bus: bus)
    settings.serial = serial
    spec.devices.append(.init(.disk(settings), id: id))
    resources.disks[id] = disk
  }

  mutating func type(_ bytes: [UInt8]) { resources.console?.input = .bytes(bytes) }

  func makeMachine() throws(MachineError) -> Machine { try Machine(spec, resources, options) }
}

/// Runs `image` to its end.
func run(
  _ image: [UInt8], mode: CPUMode? = .real, configure: (inout Setup) -> Void = { _ in }
) throws -> Run {
  let console = ConsoleBuffer()
  var setup = Setup(image, mode: mode, console: console)
  configure(&setup)
  let machine = try setup.makeMachine()
  let outcome = machine.run()
  return Run(machine: machine, outcome: outcome, output: console.bytes)
}

extension Outcome {
  /// One word for the case, to compare by.
  var kind: String {
    switch self {
    case .poweredOff: "poweredOff"
    case .halted: "halted"
    case .reset: "reset"
    case .exited: "exited"
    case .crashed: "crashed"
    case .timedOut: "timedOut"
    case .stopped: "stopped"
    case .inputChanged: "inputChanged"
    case .hostFailed: "hostFailed"
    }
  }
}

/// Guests that more than one test runs, all flat.
enum TestGuest {
  /// Writes `!` and then jumps to itself: no more exits.
  static let spin: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xEB, 0xFE,  // 04: jmp 0x4
  ]

  /// Writes `!` and waits for interrupts, of which there are none.
  static let idle: [UInt8] = [
    0xB0, 0x21,  // 00: mov al,0x21
    0xE6, 0xE9,  // 02: out 0xe9,al
    0xFB,  //       04: sti
    0xF4,  //       05: hlt
    0xEB, 0xFD,  // 06: jmp 0x5
  ]

  /// Halts with interrupts off.
  static let halt: [UInt8] = [
    0xFA,  // 00: cli
    0xF4,  // 01: hlt
  ]

  /// Sleeps from tick to tick of the timer, writes a dot at each of `count`, and then halts with
  /// interrupts off while the timer goes on. The timer's clock of 1193182 Hz is divided by `divisor`.
  static func ticker(divisor: UInt16, count: UInt16) -> [UInt8] {
    let (low, high) = (UInt8(truncatingIfNeeded: divisor), UInt8(divisor >> 8))
    return [
      0x31, 0xC0,  //                                00: xor ax,ax
      0x8E, 0xC0,  //                                02: mov es,ax
      0x26, 0xC7, 0x06, 0x80, 0x00, 0x3B, 0x00,  //  04: mov WORD PTR es:0x80,0x3b
      0x26, 0x8C, 0x0E, 0x82, 0x00,  //              0b: mov WORD PTR es:0x82,cs
      0xB0, 0x11,  //                                10: mov al,0x11
      0xE6, 0x20,  //                                12: out 0x20,al
      0xB0, 0x20,  //                                14: mov al,0x20
      0xE6, 0x21,  //                                16: out 0x21,al
      0xB0, 0x04,  //                                18: mov al,0x4
      0xE6, 0x21,  //                                1a: out 0x21,al
      0xB0, 0x01,  //                                1c: mov al,0x1
      0xE6, 0x21,  //                                1e: out 0x21,al
      0xB0, 0xFE,  //                                20: mov al,0xfe
      0xE6, 0x21,  //                                22: out 0x21,al
      0xB0, 0x34,  //                                24: mov al,0x34
      0xE6, 0x43,  //                                26: out 0x43,al
      0xB0, low,  //                                 28: mov al,low
      0xE6, 0x40,  //                                2a: out 0x40,al
      0xB0, high,  //                                2c: mov al,high
      0xE6, 0x40,  //                                2e: out 0x40,al
      0xB9, UInt8(truncatingIfNeeded: count), UInt8(count >> 8),  // 30: mov cx,count
      0xFB,  //                                      33: sti
      0xF4,  //                                      34: hlt
      0x85, 0xC9,  //                                35: test cx,cx
      0x75, 0xFB,  //                                37: jne 0x34
      0xFA,  //                                      39: cli
      0xF4,  //                                      3a: hlt
      // On a slow host a tick may follow another before the code above goes on, so count to 0 only.
      0x85, 0xC9,  //                                3b: test cx,cx
      0x74, 0x05,  //                                3d: je 0x44
      0xB0, 0x2E,  //                                3f: mov al,0x2e
      0xE6, 0xE9,  //                                41: out 0xe9,al
      0x49,  //                                      43: dec cx
      0xB0, 0x20,  //                                44: mov al,0x20
      0xE6, 0x20,  //                                46: out 0x20,al
      0xCF,  //                                      48: iret
    ]
  }
}

/// Keeps the events of a trace.
final class RecordingTrace: TraceSink, @unchecked Sendable {
  // Sound as Sendable: used inside the monitor, or when the run is over.
  private let monitor = Monitor()
  private(set) var events: [TraceEvent] = []
  private(set) var isFinished = false

  var failure: String? { nil }

  func record(_ event: TraceEvent) { monitor.locked { events.append(event) } }

  func finish() { monitor.locked { isFinished = true } }
}
