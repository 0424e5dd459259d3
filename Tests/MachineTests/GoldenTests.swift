import Boot
import Devices
import Foundation
import Guests
import Host
import KVM
import Memory
import Network
import Storage
import Testing
import TestSupport

@testable import Machine

/// What a guest finds when it starts: devices' places, PCI's configuration, fw_cfg's files, ACPI and MP
/// tables, as files in Golden. A change that isn't meant to be seen by guests leaves them alone; with
/// KVMLITE_UPDATE_GOLDEN set they are written anew.
@Suite("A machine looks to its guest", .limited)
struct GoldenTests {
  @Test("as it did", arguments: GoldenMachine.all)
  func golden(machine: GoldenMachine) throws {
    let dump = try machine.dump()
    let file = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Golden/\(machine.name).txt")
    if ProcessInfo.processInfo.environment["KVMLITE_UPDATE_GOLDEN"] != nil {
      try dump.write(to: file, atomically: true, encoding: .utf8)
      return
    }
    let golden = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
    let lines = dump.split(separator: "\n")
    let first = zip(golden, lines).enumerated().first { $0.element.0 != $0.element.1 }
    if let first {
      let (was, now) = first.element
      Issue.record("\(machine.name).txt, line \(first.offset + 1): was \(was), now \(now)")
    }
    #expect(golden.count == lines.count)
  }
}

@Suite("Firmware's tables", .limited)
struct FirmwareTablesTests {
  @Test(
    "have room, however many processors and devices there are", arguments: [1, 255, 1024, 4096])
  func room(vcpus: Int) throws {
    let machine = GoldenMachine(name: "full") {
      $0.resources.image = GoldenMachine.kernel
      $0.vcpuCount = vcpus
      GoldenMachine.addAllMMIO(to: &$0)
    }
    // Without room writing them would trap.
    let dump = try machine.dump()
    #expect(dump.contains("# FACP at") && dump.contains("# MP table at"))
  }
}

@Suite("The inventory", .limited)
struct InventoryTests {
  @Test("has the registers and the threads of every device that has some")
  func state() throws {
    let machine = GoldenMachine(name: "everything", configure: GoldenMachine.addEverything)
    let nodes = try machine.make().inventory.nodes
    // Its only register ends the run.
    #expect(nodes.filter { $0.stateful.isEmpty }.map(\.id) == ["exit"])
    let names = nodes.flatMap { $0.stateful.map(\.name) }
    #expect(Set(names).count == names.count)
    #expect(names.contains("serial0") && names.contains("disk0.function"))
    #expect(
      Set(nodes.filter { !$0.pausable.isEmpty }.map(\.id)) == [
        "rtc", "ide", "disk0", "disk2", "disk3", "net0", "net1", "vsock0", "rng0", "balloon0",
        "virtio-console0",
      ])
  }
}

/// One of the machines.
struct GoldenMachine: CustomTestStringConvertible, Sendable {
  let name: String
  let configure: @Sendable (inout Setup) throws -> Void

  var testDescription: String { name }

  static let all: [GoldenMachine] = [
    .init(name: "nothing") { _ in },
    .init(name: "small") { $0.memorySize = 256 << 10 },
    .init(name: "boot-sector") { $0.resources.image = .init(bootSector, name: "boot") },
    .init(name: "elf") {
      $0.resources.image = .init(try #require(Guest.named("hello-elf32")).image)
    },
    .init(name: "kernel") { $0.resources.image = kernel },
    .init(name: "kernel-4-cpus") {
      $0.resources.image = kernel
      $0.vcpuCount = 4
    },
    .init(name: "kernel-5-gib") {
      $0.resources.image = kernel
      $0.memorySize = 5 << 30
    },
    .init(name: "kernel-testdev") {
      $0.resources.image = kernel
      $0.add(.testDevice)
    },
    .init(name: "kernel-ide") {
      $0.resources.image = kernel
      $0.add(NoDisk(), bus: .ide)
      $0.add(NoDisk(), bus: .ide)
      $0.spec.devices[0].disk.serial = "one"
    },
    .init(name: "kernel-virtio-pci") {
      $0.resources.image = kernel
      $0.vcpuCount = 2
      $0.add(NoDisk())
      $0.add(NoDisk())
      $0.spec.devices[0].disk.serial = "one"
    },
    .init(name: "kernel-virtio-mmio") {
      $0.resources.image = kernel
      addAllMMIO(to: &$0)
    },
    .init(name: "kernel-everything") {
      $0.resources.image = kernel
      try addEverything(to: &$0)
    },
    .init(name: "firmware") { setFirmware(&$0) },
    .init(name: "firmware-everything") {
      setFirmware(&$0)
      $0.vcpuCount = 2
      try addEverything(to: &$0)
    },
  ]

  /// As many as there is room for.
  static func addAllMMIO(to setup: inout Setup) {
    setup.virtioBus = .mmio
    setup.add(NoDisk())
    setup.add(NoDisk())
    setup.add(.rng, .balloon(.init()), .virtioConsole)
  }

  @Sendable static func addEverything(to setup: inout Setup) throws {
    setup.add(NoDisk())
    setup.add(NoDisk(), bus: .ide)
    setup.add(NoDisk(), bus: .mmio)
    setup.add(NoDisk())
    for (index, mtu) in [nil, 1400 as UInt16?].enumerated() {
      var net = VMConfiguration.Net()
      net.mac = MACAddress("52:54:00:12:34:5\(6 + index)")
      net.mtu = mtu
      setup.add(.net(net))
      setup.resources.networks["net\(index)"] = NoNetwork()
    }
    setup.add(.vsock(.init(cid: 3)), .rng, .balloon(.init()), .virtioConsole, .testDevice)
    setup.resources.vsocks["vsock0"] = try NoPrograms()
    setup.resources.pciDevices.append(Maker().make)
  }

  private final class Maker: Sendable {
    func make(_ platform: PCIPlatform) throws(Errno) -> PCIFunction {
      try PCITestDevice.make(platform).1
    }
  }

  private static let bootSector = [UInt8](repeating: 0xF4, count: 510) + [0x55, 0xAA]

  /// A Multiboot header with addresses (Multiboot 0.6.96, 3.1), and HLT.
  static var kernel: Resources.Image {
    let (magic, flags): (UInt32, UInt32) = (0x1BAD_B002, 1 << 16)
    let words = [
      magic, flags, 0 &- magic &- flags, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020,
    ]
    let bytes = words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
    }
    return .init(bytes + [0xF4], name: "kernel")
  }

  private static func setFirmware(_ setup: inout Setup) {
    setup.firmware = "rom"
    setup.resources.image = .init(
      [UInt8](repeating: 0, count: 0xFFF0) + [0xF4] + [UInt8](repeating: 0x90, count: 15))
  }
}

// MARK: - The dump

extension GoldenMachine {
  /// Makes the machine as far as it goes without KVM.
  func make() throws -> (plan: BootPlan, memory: GuestMemory, inventory: Inventory) {
    var setup = Setup([0xF4])
    try configure(&setup)
    let configuration = Configuration(setup.spec, setup.resources)
    let image = configuration.image
    let plan =
      image.isFirmware
      ? try BootPlan(
        firmware: BootFile(image.bytes, name: "rom"), ramSize: configuration.memorySize)
      : try BootPlan(
        image: image.bytes, name: image.name, options: image.options, layout: Layout.boot,
        ramSize: configuration.memorySize,
        tables: FirmwareTables.room(vcpuCount: configuration.vcpuCount))
    let memory = try GuestMemory(ramSize: configuration.memorySize, roms: plan.readOnlyMemory)
    try plan.load(into: memory)
    let control = try RunControl()
    let inventory = try Builder.build(
      configuration, control, try InputPump(.none, control), nil, memory, Self.cpuid)
    return (plan, memory, inventory)
  }

  /// Tells what a guest would find.
  func dump() throws -> String {
    let (plan, memory, inventory) = try make()
    try FirmwareTables(
      inventory.nodes, inventory.pci, Self.cpuid, vcpuCount: inventory.spec.vcpuCount
    ).write(for: plan, to: memory)
    let dump = GuestDump(ports: inventory.ports, mmio: inventory.mmio, memory: memory)
    inventory.stop()
    let pieces = plan.pieces.map { "\($0.start) \($0.size) \($0.what)" }
    let devices = inventory.nodes.map { node in
      "\(node.id) \(node.kind): " + node.parts.map(Self.words).joined(separator: ", ")
        + (node.interrupts.isEmpty ? "" : "; interrupts \(node.interrupts)")
    }
    return (["# pieces"] + pieces + ["# devices"] + devices + dump.lines()).joined(separator: "\n")
      + "\n"
  }

  private static func words(_ part: DeviceNode.Part) -> String {
    switch part {
    case .ports(let range, _): "ports " + String(range.lowerBound, radix: 16)
    case .memory(let range, _): "memory " + String(range.lowerBound, radix: 16)
    case .function(let address, let function):
      "PCI \(address)" + (function.slot.msix.map { " with \($0.count) vectors" } ?? "")
    }
  }

  private static var cpuid: CPUID {
    var leaf = CPUID.Entry()
    (leaf.function, leaf.eax, leaf.edx) = (1, 0x306A9, 0x1783_FBFF)
    var addresses = CPUID.Entry()
    (addresses.function, addresses.eax) = (0x8000_0008, 40)
    return CPUID(entries: [leaf, addresses])
  }
}

/// Reads all that a guest can find, as a guest does.
private struct GuestDump {
  let ports: Bus
  let mmio: Bus
  let memory: GuestMemory

  func lines() -> [String] {
    places("ports", ports) + places("memory", mmio) + configuration() + firmwareFiles()
      + acpiTables() + mpTables()
  }

  private func places(_ title: String, _ bus: Bus) -> [String] {
    ["# \(title)"]
      + bus.slots.map { "\(hex($0.start))-\(hex($0.last)) \($0.device.name)" }
  }

  // MARK: PCI

  private func configuration() -> [String] {
    (0..<256).flatMap { function -> [String] in
      let bytes = (0..<64).flatMap { register -> [UInt8] in
        ports.write(0xCF8, width: 4, value: 1 << 31 | UInt64(function << 8 | register << 2))
        return littleEndian(ports.read(0xCFC, width: 4), 4)
      }
      guard bytes[0...1] != [0xFF, 0xFF] else { return [] }
      return ["# PCI \(function >> 3).\(function & 7)"] + hexLines(bytes)
    }
  }

  // MARK: fw_cfg

  private func item(_ key: UInt64, _ count: Int) -> [UInt8] {
    ports.write(0x510, width: 2, value: key)
    return (0..<count).map { _ in UInt8(ports.read(0x511, width: 1)) }
  }

  private func firmwareFiles() -> [String] {
    var lines = ["# fw_cfg"]
    for key in [0, 1, 3, 4, 5, 0xF] as [UInt64] {
      lines.append("item \(key): " + hexBytes(item(key, 8)[...]))
    }
    let count = Int(item(0x19, 4)[3])
    let directory = item(0x19, 4 + 64 * count).dropFirst(4)
    for index in 0..<count {
      let entry = Array(directory.dropFirst(64 * index).prefix(64))
      let size = entry[..<4].reduce(0) { $0 << 8 | Int($1) }
      let key = entry[4..<6].reduce(0) { $0 << 8 | UInt64($1) }
      let name = String(decoding: entry[8...].prefix { $0 != 0 }, as: UTF8.self)
      lines += ["file \(name)"] + hexLines(item(key, size))
    }
    return lines
  }

  // MARK: Tables

  private func number(_ address: UInt64, _ count: UInt64) -> UInt64 {
    (try? memory.read(Int(count), at: GuestAddress(address)))?.reversed()
      .reduce(0) { $0 << 8 | UInt64($1) } ?? 0
  }

  private func piece(_ title: String, _ address: UInt64, _ count: UInt64) -> [String] {
    let bytes = (try? memory.read(Int(count), at: GuestAddress(address))) ?? []
    return ["# \(title) at \(hex(address)), sum \(bytes.reduce(0, &+))"] + hexLines(bytes)
  }

  private func find(_ text: String, _ range: Range<UInt64>) -> UInt64? {
    stride(from: range.lowerBound, to: range.upperBound, by: 16).first {
      (try? memory.read(text.utf8.count, at: GuestAddress($0))) == Array(text.utf8)
    }
  }

  private func acpiTables() -> [String] {
    guard let rsdp = find("RSD PTR ", 0xE_0000..<0x10_0000) else { return ["# no RSDP"] }
    let (rsdt, xsdt) = (number(rsdp + 16, 4), number(rsdp + 24, 8))
    var lines = piece("RSDP", rsdp, 36)
    for root in [rsdt, xsdt] { lines += table(root) }
    for entry in stride(from: 36, to: number(xsdt + 4, 4), by: 8) {
      let address = number(xsdt + entry, 8)
      lines += table(address)
      if number(address, 4) == 0x5043_4146 {  // "FACP"
        lines += table(number(address + 40, 4)) + piece("FACS", number(address + 36, 4), 64)
      }
    }
    return lines
  }

  private func table(_ address: UInt64) -> [String] {
    let name = String(decoding: littleEndian(number(address, 4), 4), as: UTF8.self)
    return piece(name, address, number(address + 4, 4))
  }

  private func mpTables() -> [String] {
    guard let pointer = find("_MP_", 0xF_0000..<0x10_0000) else { return ["# no MP tables"] }
    let table = number(pointer + 4, 4)
    return piece("MP pointer", pointer, 16) + piece("MP table", table, number(table + 4, 2))
  }

  // MARK: Text

  private func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }

  private func hex(_ value: UInt64) -> String { String(value, radix: 16) }

  private func hexBytes(_ bytes: ArraySlice<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  /// 32 bytes a line with their offset; lines of zeros are left out.
  private func hexLines(_ bytes: [UInt8]) -> [String] {
    stride(from: 0, to: bytes.count, by: 32).compactMap { offset in
      let line = bytes[offset..<min(offset + 32, bytes.count)]
      return line.allSatisfy { $0 == 0 } ? nil : "\(hex(UInt64(offset))): \(hexBytes(line))"
    }
  }
}

// MARK: - Parts that do nothing

private final class NoDisk: BlockStore {
  let size: UInt64 = 1 << 20
  let isReadOnly = true
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}

private final class NoNetwork: NetworkBackEnd {
  let name = "none"
  let queueCount = 1
  let offloads: NetworkOffloads = []
  func allow(_ offloads: NetworkOffloads) {}
  func setActiveQueues(_ count: Int) {}
  func inputDescriptor(queue: Int) -> Int32? { nil }
  func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool { true }
  func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    .nothing
  }
}

private final class NoPrograms: VsockHost {
  private let never: Event
  init() throws { never = try Event() }
  var listenerDescriptor: Int32 { never.descriptor.number }
  func accept() -> FileDescriptor? { nil }
  func connect(port: UInt32) -> FileDescriptor? { nil }
  func close() {}
}
