import Boot
import Devices
import Guests
import Host
import KVM
import Machine
import Synchronization
import TestSupport
import Testing

@Suite("The PCI bus", .needsKVM, .limited)
struct PCITests {
  /// Makes a machine's test device and keeps its doorbell.
  private final class Keeper: Sendable {
    private let kept = Mutex<Doorbell?>(nil)
    var doorbell: Doorbell? { kept.withLock { $0 } }

    func make(_ platform: PCIPlatform) throws(Errno) -> PCIFunction {
      let (device, function) = try PCITestDevice.make(platform)
      let doorbell = try Doorbell(width: 4)
      device.slot.connect(doorbell, bar: 0, offset: 12)
      kept.withLock { $0 = doorbell }
      return function
    }
  }

  private func run(
    _ guest: [UInt8], _ keeper: Keeper = Keeper(), mode: CPUMode = .protected, vcpus: Int = 1
  ) throws -> Run {
    try MachineTests.run(guest, mode: mode) { setup in
      setup.vcpuCount = vcpus
      setup.resources.pciDevices.append(keeper.make)
    }
  }

  @Test("lists a function by ports and by memory", arguments: ["pci", "pci-ecam"])
  func listing(name: String) throws {
    let run = try run(try #require(Guest.named(name)).image)
    #expect(run.outcome.kind == "halted")
    #expect(run.outputText == "00:00.0 1b36:0008\n00:02.0 1b36:0005\n")
  }

  @Test("has given the function its addresses, and says where they are")
  func places() throws {
    let run = try run(TestGuest.halt)
    let (address, function) = try #require(run.machine.inventory.functions.last)
    #expect(address == PCIAddress(device: 2))
    #expect(function.bars.map(\.index).sorted() == [0, 1, 2, 4])
    #expect(function.places.allSatisfy { $0 != nil })
    #expect(Layout.pciInterrupt(device: 2, pin: 0) == 18 && function.interruptLine == 10)
    #expect(function.slot.msix?.count == PCITestDevice.vectors)
  }

  @Test("takes a pin's interrupt to the guest's handler, once per raise", arguments: [1, 2])
  func pin(vcpus: Int) throws {
    let run = try run(Self.takesPin, mode: .real, vcpus: vcpus)
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x10200, UInt8.self) == 1)
  }

  @Test("takes a vector's message to the local APIC, masked until the guest unmasks it")
  func vector() throws {
    let run = try run(Self.takesVector)
    #expect(run.outcome.kind == "halted")
    // The pending bit while masked, the vector in the local APIC's requests once unmasked.
    #expect(try run.word(0x20000, UInt32.self) == 0b10)
    #expect(try run.word(0x20004, UInt32.self) == 1 << 1)
    #expect(try run.word(0x20008, UInt32.self) == 0)
  }

  @Test("rings doorbells without the device, in a machine that gets its controllers later, too")
  func doorbell() throws {
    let keeper = Keeper()
    let run = try run(Self.rings, keeper)
    #expect(run.outcome.kind == "halted")
    // Bytes aren't what the doorbell listens for: they reach the device.
    #expect(try run.word(0x20000, UInt32.self) == 2)
    #expect(keeper.doorbell?.event.isRaised == true)
  }

  /// Raises the pin by port 0xC008; the handler of IRQ 10 counts at offset 0x200, lowers it, and lets
  /// another interrupt in, of which there is none.
  private static let takesPin: [UInt8] = [
    0x31, 0xC0,  // 00: xor ax,ax
    0x8E, 0xC0,  // 02: mov es,ax
    0x26, 0xC7, 0x06, 0xC8, 0x01, 0x41, 0x00,  // 04: mov WORD PTR es:0x1c8,0x41
    0x26, 0x8C, 0x0E, 0xCA, 0x01,  // 0b: mov WORD PTR es:0x1ca,cs
    0xB0, 0x11,  // 10: mov al,0x11
    0xE6, 0x20,  // 12: out 0x20,al
    0xE6, 0xA0,  // 14: out 0xa0,al
    0xB0, 0x20,  // 16: mov al,0x20
    0xE6, 0x21,  // 18: out 0x21,al
    0xB0, 0x70,  // 1a: mov al,0x70
    0xE6, 0xA1,  // 1c: out 0xa1,al
    0xB0, 0x04,  // 1e: mov al,0x4
    0xE6, 0x21,  // 20: out 0x21,al
    0xB0, 0x02,  // 22: mov al,0x2
    0xE6, 0xA1,  // 24: out 0xa1,al
    0xB0, 0x01,  // 26: mov al,0x1
    0xE6, 0x21,  // 28: out 0x21,al
    0xE6, 0xA1,  // 2a: out 0xa1,al
    0xB0, 0xFB,  // 2c: mov al,0xfb
    0xE6, 0x21,  // 2e: out 0x21,al
    0xE6, 0xA1,  // 30: out 0xa1,al
    0xBA, 0x08, 0xC0,  // 32: mov dx,0xc008
    0x66, 0xB8, 0x01, 0x00, 0x00, 0x00,  // 35: mov eax,0x1
    0xFB,  // 3b: sti
    0x66, 0xEF,  // 3c: out dx,eax
    0xF4,  // 3e: hlt
    0xEB, 0xFD,  // 3f: jmp 3e
    0xFE, 0x06, 0x00, 0x02,  // 41: inc BYTE PTR ds:0x200
    0x66, 0xB8, 0x00, 0x00, 0x00, 0x00,  // 45: mov eax,0x0
    0x66, 0xEF,  // 4b: out dx,eax
    0xB0, 0x20,  // 4d: mov al,0x20
    0xE6, 0xA0,  // 4f: out 0xa0,al
    0xE6, 0x20,  // 51: out 0x20,al
    0xFB,  // 53: sti
    0x90,  // 54: nop
    0x90,  // 55: nop
    0xFA,  // 56: cli
    0xF4,  // 57: hlt
  ]

  /// Raises vector 1 while it's masked, leaves the pending bits at 0x20000, unmasks it, and leaves the
  /// local APIC's requests from 0x40 on and the pending bits behind them.
  private static let takesVector: [UInt8] = [
    0xB8, 0x10, 0x10, 0x00, 0x80,  // 00: mov eax,0x80001010
    0x66, 0xBA, 0xF8, 0x0C,  // 05: mov dx,0xcf8
    0xEF,  // 09: out dx,eax
    0x66, 0xBA, 0xFC, 0x0C,  // 0a: mov dx,0xcfc
    0xED,  // 0e: in eax,dx
    0x89, 0xC7,  // 0f: mov edi,eax
    0xB8, 0x14, 0x10, 0x00, 0x80,  // 11: mov eax,0x80001014
    0x66, 0xBA, 0xF8, 0x0C,  // 16: mov dx,0xcf8
    0xEF,  // 1a: out dx,eax
    0x66, 0xBA, 0xFC, 0x0C,  // 1b: mov dx,0xcfc
    0xED,  // 1f: in eax,dx
    0x89, 0xC3,  // 20: mov ebx,eax
    0xB8, 0x04, 0x10, 0x00, 0x80,  // 22: mov eax,0x80001004
    0x66, 0xBA, 0xF8, 0x0C,  // 27: mov dx,0xcf8
    0xEF,  // 2b: out dx,eax
    0x66, 0xBA, 0xFC, 0x0C,  // 2c: mov dx,0xcfc
    0xB8, 0x06, 0x00, 0x00, 0x00,  // 30: mov eax,0x6
    0x66, 0xEF,  // 35: out dx,ax
    0xB8, 0x40, 0x10, 0x00, 0x80,  // 37: mov eax,0x80001040
    0x66, 0xBA, 0xF8, 0x0C,  // 3c: mov dx,0xcf8
    0xEF,  // 40: out dx,eax
    0x66, 0xBA, 0xFE, 0x0C,  // 41: mov dx,0xcfe
    0xB8, 0x00, 0x80, 0x00, 0x00,  // 45: mov eax,0x8000
    0x66, 0xEF,  // 4a: out dx,ax
    0xB9, 0xF0, 0x00, 0xE0, 0xFE,  // 4c: mov ecx,0xfee000f0
    0xC7, 0x01, 0xFF, 0x01, 0x00, 0x00,  // 51: mov DWORD PTR [ecx],0x1ff
    0xC7, 0x43, 0x10, 0x00, 0x00, 0xE0, 0xFE,  // 57: mov DWORD PTR [ebx+0x10],0xfee00000
    0xC7, 0x43, 0x14, 0x00, 0x00, 0x00, 0x00,  // 5e: mov DWORD PTR [ebx+0x14],0x0
    0xC7, 0x43, 0x18, 0x41, 0x00, 0x00, 0x00,  // 65: mov DWORD PTR [ebx+0x18],0x41
    0xC7, 0x47, 0x04, 0x01, 0x00, 0x00, 0x00,  // 6c: mov DWORD PTR [edi+0x4],0x1
    0x8B, 0x83, 0x00, 0x08, 0x00, 0x00,  // 73: mov eax,DWORD PTR [ebx+0x800]
    0xB9, 0x00, 0x00, 0x02, 0x00,  // 79: mov ecx,0x20000
    0x89, 0x01,  // 7e: mov DWORD PTR [ecx],eax
    0xC7, 0x43, 0x1C, 0x00, 0x00, 0x00, 0x00,  // 80: mov DWORD PTR [ebx+0x1c],0x0
    0xB9, 0x20, 0x02, 0xE0, 0xFE,  // 87: mov ecx,0xfee00220
    0x8B, 0x01,  // 8c: mov eax,DWORD PTR [ecx]
    0x85, 0xC0,  // 8e: test eax,eax
    0x74, 0xFA,  // 90: je 8c
    0xB9, 0x00, 0x00, 0x02, 0x00,  // 92: mov ecx,0x20000
    0x89, 0x41, 0x04,  // 97: mov DWORD PTR [ecx+0x4],eax
    0x8B, 0x83, 0x00, 0x08, 0x00, 0x00,  // 9a: mov eax,DWORD PTR [ebx+0x800]
    0x89, 0x41, 0x08,  // a0: mov DWORD PTR [ecx+0x8],eax
    0xFA,  // a3: cli
    0xF4,  // a4: hlt
  ]

  /// Writes 4 bytes and 1 to the doorbell, touches the local APIC, writes the same again, and leaves the
  /// device's count at 0x20000.
  private static let rings: [UInt8] = [
    0xB8, 0x10, 0x10, 0x00, 0x80,  // 00: mov eax,0x80001010
    0x66, 0xBA, 0xF8, 0x0C,  // 05: mov dx,0xcf8
    0xEF,  // 09: out dx,eax
    0x66, 0xBA, 0xFC, 0x0C,  // 0a: mov dx,0xcfc
    0xED,  // 0e: in eax,dx
    0x89, 0xC7,  // 0f: mov edi,eax
    0xB8, 0x05, 0x00, 0x00, 0x00,  // 11: mov eax,0x5
    0x89, 0x47, 0x0C,  // 16: mov DWORD PTR [edi+0xc],eax
    0x88, 0x47, 0x0C,  // 19: mov BYTE PTR [edi+0xc],al
    0xB9, 0x20, 0x00, 0xE0, 0xFE,  // 1c: mov ecx,0xfee00020
    0x8B, 0x19,  // 21: mov ebx,DWORD PTR [ecx]
    0x89, 0x47, 0x0C,  // 23: mov DWORD PTR [edi+0xc],eax
    0x88, 0x47, 0x0C,  // 26: mov BYTE PTR [edi+0xc],al
    0x8B, 0x47, 0x0C,  // 29: mov eax,DWORD PTR [edi+0xc]
    0xB9, 0x00, 0x00, 0x02, 0x00,  // 2c: mov ecx,0x20000
    0x89, 0x01,  // 31: mov DWORD PTR [ecx],eax
    0xFA,  // 33: cli
    0xF4,  // 34: hlt
  ]
}
