import Devices
import Foundation
import Host
import KVM
import Memory
import Storage
import TestSupport
import Testing

@testable import Boot
@testable import Machine

/// A disk of nothing, for the devices that are there only with a disk.

@Suite("docs/architecture.md agrees with the code", .limited)
struct ArchitectureTests {
  private let text: String

  init() throws { text = try Documents.text("docs/architecture.md") }

  private struct Place: Hashable {
    var name = ""
    var first: UInt64
    var last: UInt64
  }

  /// What `ports 0x70-0x71`, `port 0x80` or `0x500-0x517` says.
  private func range(_ words: String) throws -> ClosedRange<UInt64> {
    let numbers = words.split(separator: " ").last?.split(separator: "-") ?? []
    let values = try numbers.map { try number(String($0)) }
    let first = try #require(values.first, "no address in '\(words)'")
    return first...(values.count > 1 ? values[1] : first)
  }

  private func number(_ word: String) throws -> UInt64 {
    try #require(
      word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) : nil, "'\(word)' is no address")
  }

  private final class EmptyDisk: BlockStore {
    let size: UInt64 = 0
    let isReadOnly = true
    func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
    func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
    func flush() throws(StorageError) {}
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
    func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
  }

  // Without and with what is only there when asked for.
  private func places() throws -> [Place] {
    let all: [VMConfiguration.Device] = [
      .init(.testDevice), .init(.rng), .init(.balloon(.init())), .init(.virtioConsole),
      .init(.disk(.init(bus: .ide)), id: "ide"), .init(.disk(.init(bus: .mmio)), id: "mmio"),
    ]
    return try [[], all].flatMap { devices in
      let control = try RunControl()
      var spec = VMConfiguration()
      var resources = Resources(image: .init([0xF4]))
      spec.devices = devices
      for device in devices { resources.disks[device.id] = EmptyDisk() }
      var addresses = CPUID.Entry()
      (addresses.function, addresses.eax) = (0x8000_0008, 39)
      let inventory = try Builder.build(
        Configuration(spec, resources), control, try InputPump(.none, control), nil,
        try GuestMemory(
          ramSize: GuestMemory.pageSize, roms: devices.isEmpty ? [] : [(Layout.generation, [0])]),
        CPUID(entries: [addresses]))
      return inventory.places.map {
        Place(
          name: $0.name.description, first: $0.range.lowerBound, last: $0.range.upperBound)
      }
    }
  }

  @Test("the device table has each device of the buses, and no other, where it is")
  func devices() throws {
    let rows = Documents.rows(try Documents.section("## Devices", of: text))
    let told = try rows.filter { $0.count == 6 }.map { row in
      let range = try range(row[1])
      let name = row[0].trimmingCharacters(in: ["`"])
      return Place(name: name, first: range.lowerBound, last: range.upperBound)
    }
    let real = try places()
    #expect(Set(told) == Set(real))
    #expect(Set(told).count == told.count)
    let pci = "10, 11, 16-23"
    #expect(Layout.pciISAInterrupts == [10, 11] && Layout.pciInterrupts == 16..<24)
    let interrupts = rows.filter { $0.count == 6 && $0[2] != "none" }
    #expect(
      interrupts.map { "\($0[0]) \($0[2])" } == [
        "`rtc` \(Layout.realTimeClockInterrupt)", "`ide0` \(Layout.ideInterrupts.primary)",
        "`ide1` \(Layout.ideInterrupts.secondary)",
        "`uart` \(Layout.serialInterrupt)", "`acpi-pm` \(Layout.systemControlInterrupt)",
        "`acpi-gpe` \(Layout.systemControlInterrupt)",
        "`pci-ports` \(pci)", "`pci-memory` \(pci)", "`pci-memory64` \(pci)",
        "`virtio-block` \(Layout.virtioInterrupts[0])",
        "`testdev-irq` 0-\(Layout.testInterrupts.count - 1)",
      ])
  }

  @Test("the table of KVM's own devices has their ports and addresses")
  func kernelDevices() throws {
    let rows = Documents.rows(try Documents.section("## Devices", of: text))
    let told = try rows.filter { $0.count == 2 }.map { try range($0[1]) }
    let ports = Layout.interruptControllerPorts.map {
      UInt64($0.start)...UInt64($0.start + $0.count - 1)
    }
    let pages = [Layout.ioapic, Layout.localAPIC].map {
      $0.value...($0.value + GuestMemory.pageSize - 1)
    }
    #expect(Set(told) == Set(ports + pages))
  }

  @Test("the memory map has the layout's addresses")
  func memoryMap() throws {
    let rows = Documents.rows(try Documents.section("## Memory map", of: text))
    let told = try rows.map { row in
      Place(first: try number(row[0]), last: row[1].isEmpty ? .max : try number(row[1]))
    }
    let boot = Layout.boot
    let page = GuestMemory.pageSize
    let windows = Layout.pciWindows(ramSize: page, addressBits: 39)
    let real: [(start: UInt64, count: UInt64?)] = [
      (0, GuestMemory.holeStart),
      (0, BIOSDataArea.range.upperBound),
      (boot.descriptorTable.value, UInt64(FlatSegments.tableSize)),
      (boot.pageTables.value, PageTables.count * PageTables.tableSize),
      (boot.bootSector.value, 512),
      (boot.flatImage.value, nil),
      (Layout.acpiTables.value, Layout.mpTables.value - Layout.acpiTables.value),
      (Layout.mpTables.value, Layout.mpTablesSize),
      (GuestMemory.holeStart, GuestMemory.holeEnd - GuestMemory.holeStart),
      (Layout.ioapic.value, page), (Layout.localAPIC.value, page),
      (Layout.generation.value, page), (Layout.identityMap.value, page),
      (Layout.taskState.value, 3 * page),
      (Layout.testMemory.value, TestMemory.size),
      (Layout.virtioMMIO.value, UInt64(Layout.virtioInterrupts.count) * page),
      (Layout.pciConfigurationMemory.value, PCIConfigurationMemory.size),
      (windows.memory32.start, windows.memory32.count),
      (GuestMemory.holeEnd, nil),
    ]
    let expected = real.map { stretch in
      Place(first: stretch.start, last: stretch.count.map { stretch.start + $0 - 1 } ?? .max)
    }
    let information = boot.information.lowerBound.value..<boot.information.upperBound.value
    let ranges = ([information] + boot.reserved.map(\.range)).map {
      Place(first: $0.lowerBound, last: $0.upperBound - 1)
    }
    let video = Place(
      first: Layout.videoMemory.lowerBound, last: Layout.videoMemory.upperBound - 1)
    #expect(Set(told) == Set(expected + ranges + [video]))
    #expect(boot.stackTop == boot.flatImage)
  }

  @Test("the exit table has every reason with its number and meaning")
  func exits() throws {
    let rows = Documents.rows(try Documents.section("## Exits", of: text))
    let told = rows.map { Array($0.prefix(3)) }
    let real = ExitReason.all.map { ["`\($0.name)`", "\($0.number)", $0.meaning] }
    #expect(told == real)
    #expect(rows.allSatisfy { $0.count == 4 && !$0[3].isEmpty })
  }

  @Test("the lines that a device takes are in the code")
  func addedDevice() throws {
    let section = try Documents.section("## How a device is added", of: text)
    let lines = section.filter { $0.hasPrefix("        ") }.map {
      $0.trimmingCharacters(in: .whitespaces)
    }
    #expect(lines.count == 3)
    let files = ["Builder/Builder", "Spec/VMConfiguration"].map {
      "Sources/Machine/\($0).swift"
    }
    let code = try files.flatMap { try Documents.text($0).split(separator: "\n") }.map {
      $0.trimmingCharacters(in: .whitespaces)
    }
    for line in lines { #expect(code.contains(line), "\(line)") }
  }

  @Test("the table of folders has every target, and none that isn't there")
  func folders() throws {
    let rows = Documents.rows(try Documents.section("## Folders", of: text))
    let told = rows.flatMap { row in
      row[0].matches(of: /\(\.\.\/Sources\/(\w+)\)/).map { String($0.1) }
    }
    let files = Documents.files(below: "Sources", suffix: ".swift")
    let real = Set(files.compactMap { $0.split(separator: "/").dropFirst().first.map(String.init) })
    #expect(Set(told) == real.subtracting(["assemble-guests"]))
    #expect(Set(told).count == told.count)
  }

  @Test("the ranks of locks are all told of, in their order")
  func locks() throws {
    let table = try #require(text.split(separator: "| rank | what it guards |").last)
    let ranks = table.split(separator: "\n").dropFirst().prefix { $0.hasPrefix("  | ") }
      .map { $0.dropFirst(5).prefix { $0 != "`" } }
    #expect(ranks.map(String.init) == LockRank.allCases.map { "\($0)" })
  }

  /// A step: a number, a link to a file, the function there, and what it does.
  private static var step: Regex<(Substring, Substring, Substring)> {
    /^\d+\. \[[^\]]*\]\(\.\.\/([^)]*)\) `(\w+)`: .*/
  }

  @Test("the four reading orders have at most eight steps, whose functions are there and lead on")
  func readingOrders() throws {
    let headings = text.split(separator: "\n").filter { $0.hasPrefix("## Reading order: ") }
    #expect(headings.count == 4)
    for heading in headings {
      let steps = try Documents.section(String(heading), of: text)
        .compactMap { $0.firstMatch(of: Self.step) }
        .map { (file: String($0.1), function: String($0.2)) }
      #expect((2...8).contains(steps.count), "\(heading)")
      var sources = ""
      for (index, step) in steps.enumerated() {
        let source = try Documents.text(step.file)
        // The first step is called from outside: by the guest, a thread or a parser.
        if index > 0 {
          sources += source
          let calls = try Regex("(\\.|\\b)\(step.function)\\(|Machine\\(")
          #expect(sources.contains(calls), "\(heading): nobody calls \(step.function)")
        }
        sources += source
        let isThere =
          step.file.hasSuffix(".inc")
          ? source.contains("\(step.function):")
          : source.contains("func \(step.function)") || source.contains("\(step.function)(")
        #expect(isThere, "\(step.file) has no \(step.function)")
      }
    }
  }

  @Test("the arrows lead from each target to those it depends on, as Package.swift has them")
  func arrows() throws {
    let line = try #require(
      text.components(separatedBy: "\n").first { $0.hasPrefix("    {kvmlite -> ") })
    let order = line.matches(of: /\w+/).map { String($0.output) }
    let targets = try Documents.text("Package.swift").matches(
      of: /arget\(\s*name: "(\w+)",\s*dependencies: \[([^\]]*)\]/)
    var told = 0
    for target in targets {
      guard let from = order.firstIndex(of: String(target.1)) else { continue }
      told += 1
      for dependency in target.2.matches(of: /"(\w+)"/) {
        let name = String(dependency.1)
        guard !["ArgumentParser", "swift", "CStart"].contains(name) else { continue }
        let to = order.firstIndex(of: name)
        #expect(to.map { $0 > from } == true, "\(target.1) -> \(name)")
      }
    }
    #expect(told >= 14)
  }

  @Test("unsafe code is in Host, Memory and KVM alone, and Foundation in no library")
  func fences() throws {
    for file in Documents.files(below: "Sources", suffix: ".swift") {
      let folder = String(file.split(separator: "/")[1])
      let lines = try Documents.text(file).components(separatedBy: "\n")
      if !["Host", "Memory", "KVM", "assemble-guests"].contains(folder) {
        let code = lines.filter { !$0.contains("//") }
        #expect(!code.contains { $0.contains(/[\s(]unsafe [A-Za-z(&]/) }, "\(file)")
      }
      if folder != "kvmlite" && !file.hasSuffix("/VirtualMachineError.swift") {
        #expect(
          !lines.contains { $0.contains(/^\s*(public |package )?import Foundation/) }, "\(file)")
      }
    }
  }
}
