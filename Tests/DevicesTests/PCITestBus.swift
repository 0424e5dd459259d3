import Devices
import Host
import Memory
import Synchronization
import TestSupport

/// Messages that were sent, and which event each route is for.
final class RecordingRouter: MessageRouter {
  private final class Route: MessageRoute {
    let event: SharedEvent
    let message = Mutex<InterruptMessage?>(nil)
    // Not the router, which has this route: the two would keep each other for ever.
    let changes: Changes

    init(_ event: SharedEvent, _ changes: Changes) {
      self.event = event
      self.changes = changes
    }

    func set(_ message: InterruptMessage?) {
      self.message.withLock { $0 = message }
      changes.count.add(1, ordering: .relaxed)
    }
  }

  private let routes = Mutex<[Route]>([])
  private let counted = Changes()

  private final class Changes: Sendable {
    let count = Atomic(0)
  }

  /// How often a route was set.
  var changes: Int { counted.count.load(ordering: .relaxed) }

  func makeRoute(for event: SharedEvent) -> any MessageRoute {
    let route = Route(event, counted)
    routes.withLock { $0.append(route) }
    return route
  }

  /// Does KVM's part: sends what is raised and has a message.
  func deliver() -> [InterruptMessage] {
    routes.withLock { $0 }.compactMap { route in
      guard let message = route.message.withLock({ $0 }) else { return nil }
      return route.event.event.consume() ? message : nil
    }
  }
}

/// Doorbells by place.
final class RecordingDoorbells: DoorbellHost {
  private let log = Mutex<[BusAddress]>([])

  var places: [BusAddress] { log.withLock { $0 } }

  @discardableResult
  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool {
    log.withLock { $0.append(place) }
    return true
  }

  func disconnect(_ doorbell: Doorbell, at place: BusAddress) {
    log.withLock { $0.removeAll { $0 == place } }
  }
}

/// A PCI bus with two test functions at devices 2 and 3 (and, two functions of one device, 4), on
/// buses as the machine has them.
struct PCITestBus {
  let router = RecordingRouter()
  let doorbells = RecordingDoorbells()
  let machine = RecordingMachine()
  let lines = (0..<8).map { _ in RecordingLine() }
  let pic = (0..<2).map { _ in RecordingLine() }
  let pci: PCIBus
  let devices: [PCITestDevice]
  let functions: [PCIFunction]
  var ports = Bus()
  var mmio = Bus()

  static let windows = PCIBus.Windows(
    ports: PCIWindow(start: 0xC000, count: 0x4000),
    memory32: PCIWindow(start: 0xC000_0000, count: 0x3E00_0000),
    memory64: PCIWindow(start: 0x1_0000_0000, count: 1 << 36))
  static let ecam: UInt64 = 0xFEB0_0000

  init() throws {
    let platform = PCIPlatform(
      memory: try GuestMemory(ramSize: GuestMemory.pageSize), doorbells: doorbells,
      messages: router)
    let made = try (0..<4).map { _ in try PCITestDevice.make(platform) }
    devices = made.map(\.device)
    functions = made.map(\.function)
    let places = [
      PCIAddress(device: 2), PCIAddress(device: 3), PCIAddress(device: 4),
      PCIAddress(device: 4, function: 1),
    ]
    let bridge = (PCIAddress(device: 0), try PCIFunction.hostBridge(platform))
    pci = PCIBus(
      [bridge] + zip(places, functions), Self.windows,
      PCIInterruptLines(ioapic: lines, pic: pic))
    try ports.add(
      PCIConfigurationPorts(pci, reset: ResetControl(machine: machine)), at: 0xCF8, count: 8)
    try ports.add(pci.makePortWindow(), at: 0xC000, count: 0x4000)
    try mmio.add(
      PCIConfigurationMemory(pci), at: Self.ecam, count: PCIConfigurationMemory.size)
    let low = Self.windows.memory32
    try mmio.add(pci.makeMemoryWindow(), at: low.start, count: low.count)
    if let high = Self.windows.memory64, let device = pci.makeHighMemoryWindow() {
      try mmio.add(device, at: high.start, count: high.count)
    }
  }

  /// Reads by ports, as a kernel does.
  func config(_ device: UInt64, _ register: UInt64, width: Int = 4, function: UInt64 = 0)
    -> UInt64
  {
    ports.write(
      0xCF8, width: 4, value: 1 << 31 | device << 11 | function << 8 | register & 0xFC)
    return ports.read(0xCFC + register & 3, width: width)
  }

  func setConfig(_ device: UInt64, _ register: UInt64, width: Int = 4, _ value: UInt64) {
    ports.write(0xCF8, width: 4, value: 1 << 31 | device << 11 | register & 0xFC)
    ports.write(0xCFC + register & 3, width: width, value: value)
  }

  func ecam(_ device: UInt64, _ register: UInt64, width: Int = 4) -> UInt64 {
    mmio.read(Self.ecam + device << 15 + register, width: width)
  }
}
