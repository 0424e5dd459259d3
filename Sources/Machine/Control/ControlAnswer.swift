import Devices
import Host
import Memory

/// What a client of a machine's control socket is told.
enum ControlAnswer {
  /// It was done; what the machine is doing now, and more if it was asked for.
  case success(state: MachineState, [JSON.Member])
  /// It was not; why.
  case failure(String)

  /// The answer as a message, to the one that has `id`.
  func json(_ id: JSON? = nil) -> JSON {
    let members =
      switch self {
      case .success(let state, let more):
        [
          JSON.Member("ok", JSON(.bool(true))),
          JSON.Member("state", JSON(.string(state.rawValue))),
        ] + more
      case .failure(let error):
        [JSON.Member("ok", JSON(.bool(false))), JSON.Member("error", JSON(.string(error)))]
      }
    return JSON(.object(members + (id.map { [JSON.Member("id", $0)] } ?? [])))
  }

  /// The devices of `machine`, which stands still, and where they are.
  static func description(of machine: Machine) -> [JSON.Member] {
    let devices = machine.inventory.nodes.map { node in
      JSON(
        .object([
          JSON.Member("id", JSON(.string(node.id))),
          JSON.Member("kind", JSON(.string(node.kind.description))),
          JSON.Member("places", JSON(.array(node.parts.map { JSON(.string($0.place)) }))),
          JSON.Member(
            "interrupts", JSON(.array(node.interrupts.map { JSON(.unsigned(UInt64($0))) }))),
        ]))
    }
    return [
      JSON.Member("vcpus", JSON(.unsigned(UInt64(machine.vcpuCount)))),
      JSON.Member("memory", JSON(.unsigned(machine.memory.ramSize))),
      JSON.Member("devices", JSON(.array(devices))),
    ]
  }

  /// The registers of VCPU `id` of `machine`, which stands still; nil where there are none.
  static func registers(of machine: Machine, vcpu id: Int) -> [JSON.Member]? {
    guard let general = machine.registers(ofVCPU: id),
      let special = machine.specialRegisters(ofVCPU: id)
    else { return nil }
    return [
      JSON.Member("registers", RegisterNames.json(general)),
      JSON.Member("special_registers", RegisterNames.json(special)),
    ]
  }

  /// Bytes of the guest's memory, two digits each; nil where there is none.
  static func memory(of machine: Machine, at address: UInt64, count: Int) -> [JSON.Member]? {
    guard let bytes = try? machine.memory.read(count, at: GuestAddress(address)) else { return nil }
    let digits = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    return [JSON.Member("bytes", JSON(.string(digits)))]
  }

  /// What `machine`, which stands still, has done so far: exits only if it is observed, KVM's counters
  /// always.
  static func statistics(of machine: Machine) -> [JSON.Member] {
    let statistics = machine.statisticsNow()
    let exits = statistics.exits.rows.map {
      JSON.Member($0.name, JSON(.unsigned($0.count.count)))
    }
    let kernel = statistics.kernel.map { JSON.Member($0.name, JSON(.unsigned($0.value))) }
    return [
      JSON.Member("elapsed_ns", JSON(.unsigned(statistics.elapsed))),
      JSON.Member("touched_bytes", JSON(.unsigned(UInt64(max(0, statistics.touchedMemory))))),
      JSON.Member("exits", JSON(.object(exits))),
      JSON.Member("kvm", JSON(.object(kernel))),
    ]
  }
}

extension ControlAnswer {
  /// What this process is and takes: its number, its share of the host's memory, and processor time.
  static func process() -> [JSON.Member] {
    var members = [
      JSON.Member("pid", JSON(.unsigned(UInt64(LockHolder.currentProcess)))),
      JSON.Member("cpu_ns", JSON(.unsigned(Clock.processorNanoseconds))),
    ]
    if let share = ProcessMemory.proportionalShare {
      members.append(JSON.Member("pss_bytes", JSON(.unsigned(share))))
    }
    return members
  }

  /// What `machine`, which may run, is and has done.
  static func status(of machine: Machine) -> [JSON.Member] {
    let (disks, networks) = machine.inventory.traffic
    let numbers: [(String, UInt64)] = [
      ("uptime_ns", machine.elapsed), ("vcpus", UInt64(machine.vcpuCount)),
      ("memory_bytes", machine.memory.ramSize),
      ("disk_read_bytes", disks.read), ("disk_written_bytes", disks.written),
      ("net_received_bytes", networks.read), ("net_sent_bytes", networks.written),
    ]
    return numbers.map { JSON.Member($0, JSON(.unsigned($1))) }
  }
}

extension Inventory {
  /// What all disks and all network cards carried so far; of those that another process serves nobody
  /// here knows.
  fileprivate var traffic: (disks: DeviceTraffic, networks: DeviceTraffic) {
    var (disks, networks) = (DeviceTraffic(), DeviceTraffic())
    for node in nodes {
      let kind = spec.devices.first { $0.id == node.id }?.kind.name
      if kind == "net" { networks = networks + node.traffic() }
      if kind == "disk" || node.id == "ide" { disks = disks + node.traffic() }
    }
    return (disks, networks)
  }
}

extension DeviceNode.Part {
  /// Where it is, in words.
  fileprivate var place: String {
    switch self {
    case .ports(let range, _): "ports \(hex(range.lowerBound))-\(hex(range.upperBound))"
    case .memory(let range, _): "memory \(hex(range.lowerBound))-\(hex(range.upperBound))"
    case .function(let address, _): "pci \(address)"
    }
  }
}
