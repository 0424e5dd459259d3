import Foundation
import Machine
import Memory
import TestSupport
import Testing

/// Debian's, where it is installed.
private let seaBIOS = "/usr/share/seabios/bios-256k.bin"

@Suite(
  "SeaBIOS", .needsKVM,
  .enabled(if: FileManager.default.fileExists(atPath: seaBIOS)), .limited)
struct FirmwareBootTests {
  @Test("leaves kvmlite's ACPI tables where kernels look, and starts the disk")
  func tables() throws {
    let run = try run(Array(try Data(contentsOf: URL(filePath: seaBIOS))), mode: nil) {
      $0.firmware = seaBIOS
      $0.vcpuCount = 2
      // Writes 3 to the exit port.
      var disk: [UInt8] =
        [0xB0, 0x03, 0xE6, 0xF4, 0xFA, 0xF4] + .init(repeating: 0, count: 1 << 20)
      disk.replaceSubrange(510..<512, with: [0x55, 0xAA])
      disk.removeLast(6)
      $0.add(RAMDisk(disk))
    }

    #expect(run.outcome.kind == "exited")
    func sum(_ address: UInt64, _ count: Int) throws -> UInt8 {
      try run.machine.memory.read(count, at: GuestAddress(address)).reduce(0, &+)
    }
    let rsdp = try #require(
      stride(from: 0xF_0000, to: 0x10_0000, by: 16).first {
        (try? run.machine.memory.read(8, at: GuestAddress($0))) == Array("RSD PTR ".utf8)
      } as UInt64?)
    #expect(try sum(rsdp, 20) == 0)
    #expect(try sum(rsdp, 36) == 0)
    let xsdt = try run.word(GuestAddress(rsdp + 24), UInt64.self)
    let count = Int(try run.word(GuestAddress(xsdt + 4), UInt32.self))
    #expect(try sum(xsdt, count) == 0)
    var names: [String] = []
    for entry in stride(from: 36, to: UInt64(count), by: 8) {
      let table = try run.word(GuestAddress(xsdt + entry), UInt64.self)
      let bytes = try run.machine.memory.read(16, at: GuestAddress(table))
      #expect(bytes[10...] == Array("KVMLIT".utf8)[...])
      #expect(try sum(table, Int(run.word(GuestAddress(table + 4), UInt32.self))) == 0)
      names.append(String(decoding: bytes[..<4], as: UTF8.self))
    }
    #expect(names == ["FACP", "APIC", "MCFG"])
  }
}
