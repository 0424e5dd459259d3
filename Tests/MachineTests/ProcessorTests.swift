import Boot
import Foundation
import Machine
import Memory
import TestSupport
import Testing

@Suite("A processor", .needsKVM, .limited)
struct ProcessorTests {
  @Test("is handed to a kernel as firmware leaves it: caches on, memory types set")
  func firmwareState() throws {
    let run = try run(Self.multiboot(Self.readsState), mode: nil)
    #expect(run.machine.format == .multiboot)
    #expect(run.outcome.kind == "halted")
    // MTRRdefType: enabled, write-back. The hole's own: enabled, uncached from 3 GiB on.
    #expect(try run.word(0x20000, UInt32.self) == 0x806)
    #expect(try run.word(0x20004, UInt32.self) == 0xC000_0000)
    #expect(try run.word(0x20008, UInt32.self) & 0x800 != 0)
    // CR0: PE and ET; neither CD nor NW.
    #expect(try run.word(0x2000C, UInt32.self) == 0x11)
    // MISC_ENABLE: fast strings.
    #expect(try run.word(0x20010, UInt32.self) & 1 == 1)
  }

  @Test("says how many cores there are by leaf 0xB, on hosts whose KVM does not")
  func cores() throws {
    let run = try run(Self.readsTopology, mode: .protected) { $0.vcpuCount = 4 }
    #expect(run.outcome.kind == "halted")
    // Hosts without that leaf, which are older than x2APIC, answer zeros.
    let hasLeaf = try run.word(0x20000, UInt32.self) >= 0xB
    // ECX: level 1, of type 2, cores; EBX: 4 of them; EAX: two bits number them.
    #expect(try run.word(0x20004, UInt32.self) == (hasLeaf ? 0x201 : 0))
    #expect(try run.word(0x20008, UInt32.self) == (hasLeaf ? 4 : 0))
    #expect(try run.word(0x2000C, UInt32.self) == (hasLeaf ? 2 : 0))
  }

  @Test("has its host's name with --cpu host, whether or not KVM passes it on")
  func name() throws {
    let text = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
    let line = text.split(separator: "\n").first { $0.hasPrefix("model name") } ?? ""
    let name = line.split(separator: ": ", maxSplits: 1).last.map(String.init) ?? ""
    let run = try run(Self.readsName, mode: .protected)
    #expect(run.outcome.kind == "halted")
    let bytes = try run.machine.memory.read(48, at: 0x20000)
    let seen = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    #expect(seen.split(separator: " ") == name.split(separator: " "))
  }

  @Test("that runs a hypervisor is not taken to halt for good: guests of its own wake otherwise")
  func haltedHypervisor() throws {
    let run = try run(Self.haltsAsHypervisor, mode: .protected) {
      $0.vcpuCount = 2
      $0.timeLimit = 10
    }
    // Only with AMD-V in the guest does it get that far; everywhere else it is a halt like others.
    let isHypervisor = try run.word(0x20000, UInt32.self) == 1
    #expect(run.outcome.kind == (isHypervisor ? "timedOut" : "halted"))
  }

  /// `code` at 1 MiB behind a Multiboot header that says so itself (Multiboot 0.6.96, 3.1.3).
  private static func multiboot(_ code: [UInt8]) -> [UInt8] {
    let flags: UInt32 = 1 << 16
    let (load, size): (UInt32, UInt32) = (0x10_0000, 32)
    let words = [
      0x1BAD_B002, flags, 0 &- 0x1BAD_B002 &- flags, load, load, load + size + UInt32(code.count),
      0, load + size,
    ]
    return words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
      + code
  }

  private static let readsState: [UInt8] = [
    0xB9, 0xFF, 0x02, 0x00, 0x00,  // 00: mov ecx,0x2ff
    0x0F, 0x32,  //                   05: rdmsr
    0xA3, 0x00, 0x00, 0x02, 0x00,  // 07: mov ds:0x20000,eax
    0xB9, 0x00, 0x02, 0x00, 0x00,  // 0c: mov ecx,0x200
    0x0F, 0x32,  //                   11: rdmsr
    0xA3, 0x04, 0x00, 0x02, 0x00,  // 13: mov ds:0x20004,eax
    0x41,  //                         18: inc ecx
    0x0F, 0x32,  //                   19: rdmsr
    0xA3, 0x08, 0x00, 0x02, 0x00,  // 1b: mov ds:0x20008,eax
    0x0F, 0x20, 0xC0,  //             20: mov eax,cr0
    0xA3, 0x0C, 0x00, 0x02, 0x00,  // 23: mov ds:0x2000c,eax
    0xB9, 0xA0, 0x01, 0x00, 0x00,  // 28: mov ecx,0x1a0
    0x0F, 0x32,  //                   2d: rdmsr
    0xA3, 0x10, 0x00, 0x02, 0x00,  // 2f: mov ds:0x20010,eax
    0xFA,  //                         34: cli
    0xF4,  //                         35: hlt
  ]

  private static let readsTopology: [UInt8] = [
    0x31, 0xC0,  //                         00: xor eax,eax
    0x0F, 0xA2,  //                         02: cpuid
    0xA3, 0x00, 0x00, 0x02, 0x00,  //       04: mov ds:0x20000,eax
    0xB8, 0x0B, 0x00, 0x00, 0x00,  //       09: mov eax,0xb
    0xB9, 0x01, 0x00, 0x00, 0x00,  //       0e: mov ecx,0x1
    0x0F, 0xA2,  //                         13: cpuid
    0x89, 0x0D, 0x04, 0x00, 0x02, 0x00,  // 15: mov ds:0x20004,ecx
    0x89, 0x1D, 0x08, 0x00, 0x02, 0x00,  // 1b: mov ds:0x20008,ebx
    0xA3, 0x0C, 0x00, 0x02, 0x00,  //       21: mov ds:0x2000c,eax
    0xFA,  //                               26: cli
    0xF4,  //                               27: hlt
  ]

  private static let readsName: [UInt8] = [
    0xBF, 0x00, 0x00, 0x02, 0x00,  // 00: mov edi,0x20000
    0xBE, 0x02, 0x00, 0x00, 0x80,  // 05: mov esi,0x80000002
    0x89, 0xF0,  //                   0a: mov eax,esi
    0x0F, 0xA2,  //                   0c: cpuid
    0x89, 0x07,  //                   0e: mov DWORD PTR [edi],eax
    0x89, 0x5F, 0x04,  //             10: mov DWORD PTR [edi+0x4],ebx
    0x89, 0x4F, 0x08,  //             13: mov DWORD PTR [edi+0x8],ecx
    0x89, 0x57, 0x0C,  //             16: mov DWORD PTR [edi+0xc],edx
    0x83, 0xC7, 0x10,  //             19: add edi,0x10
    0x46,  //                         1c: inc esi
    0x81, 0xFE, 0x05, 0x00, 0x00, 0x80,  // 1d: cmp esi,0x80000005
    0x72, 0xE5,  //                   23: jb 0xa
    0xFA,  //                         25: cli
    0xF4,  //                         26: hlt
  ]

  /// Sets EFER.SVME, leaves 1 at 0x20000, and halts with interrupts off; without AMD-V (CPUID
  /// 0x80000001, ECX bit 2) it only halts.
  private static let haltsAsHypervisor: [UInt8] = [
    0xB8, 0x01, 0x00, 0x00, 0x80,  //       00: mov eax,0x80000001
    0x0F, 0xA2,  //                         05: cpuid
    0xF6, 0xC1, 0x04,  //                   07: test cl,0x4
    0x74, 0x16,  //                         0a: je 0x22
    0xB9, 0x80, 0x00, 0x00, 0xC0,  //       0c: mov ecx,0xc0000080
    0x0F, 0x32,  //                         11: rdmsr
    0x80, 0xCC, 0x10,  //                   13: or ah,0x10
    0x0F, 0x30,  //                         16: wrmsr
    0xC7, 0x05, 0x00, 0x00, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00,  // 18: mov ds:0x20000,0x1
    0xFA,  //                               22: cli
    0xF4,  //                               23: hlt
  ]
}
