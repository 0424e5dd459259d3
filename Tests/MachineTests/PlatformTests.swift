import Boot
import Guests
import Machine
import Memory
import TestSupport
import Testing

@Suite("The platform", .needsKVM, .limited)
struct PlatformTests {
  @Test("switches off by ACPI's S5")
  func powerOff() throws {
    let run = try run(try #require(Guest.named("poweroff")).image)
    #expect(run.outcome.kind == "poweredOff")
    #expect(run.outputText == "Switching off.\n")
  }

  @Test("sleeps by ACPI's S3 until the clock wakes it, or its time is up", arguments: [1, 4])
  func suspend(vcpus: Int) throws {
    let guest = try #require(Guest.named("suspend")).image
    let woken = try run(guest, mode: nil) {
      $0.vcpuCount = vcpus
      $0.observation = Observation()
    }
    #expect(woken.outcome.kind == "exited")
    #expect(woken.outputText == "Going to sleep.\nAwake.\n")
    // Nothing wakes this one.
    let asleep = try run([
      0xBA, 0x04, 0x06,  // 00: mov dx,0x604
      0xB8, 0x00, 0x24,  // 03: mov ax,0x2400
      0xEF,  //             06: out dx,ax
      0xF4,  //             07: hlt
    ]) {
      $0.vcpuCount = vcpus
      $0.timeLimit = 0.2
    }
    #expect(asleep.outcome.kind == "timedOut")
  }

  @Test("is reset by waking up where no kernel has said how to go on")
  func wakeWithoutVector() throws {
    let run = try run([
      0xBA, 0x02, 0x06,  // 00: mov dx,0x602
      0xB8, 0x00, 0x04,  // 03: mov ax,0x400
      0xEF,  //             06: out dx,ax
      0xBE, 0x1D, 0x00,  // 07: mov si,0x1d
      0xB9, 0x04, 0x00,  // 0a: mov cx,0x4
      0xAD,  //             0d: lods ax,WORD PTR ds:[si]
      0xE6, 0x70,  //       0e: out 0x70,al
      0x88, 0xE0,  //       10: mov al,ah
      0xE6, 0x71,  //       12: out 0x71,al
      0xE2, 0xF7,  //       14: loop 0xd
      0x42,  //             16: inc dx
      0x42,  //             17: inc dx
      0xB8, 0x00, 0x24,  // 18: mov ax,0x2400
      0xEF,  //             1b: out dx,ax
      0xF4,  //             1c: hlt
      0x01, 0xC0, 0x03, 0xC0, 0x05, 0xC0, 0x0B, 0x22,  // the clock's registers and their values
    ])
    #expect(run.outcome.kind == "reset")
  }

  @Test("tells a kernel of itself by ACPI and MP tables", arguments: [1, 4])
  func tables(vcpus: Int) throws {
    let run = try run(try #require(Guest.named("hello-elf32")).image, mode: nil) {
      $0.vcpuCount = vcpus
    }
    let memory = run.machine.memory
    #expect(try memory.read(8, at: Layout.acpiTables) == Array("RSD PTR ".utf8))
    #expect(try memory.read(20, at: Layout.acpiTables).reduce(0, &+) == 0)
    #expect(try memory.read(4, at: Layout.mpTables) == Array("_MP_".utf8))
    // The table behind the pointer: its 44 bytes and then a 0 for each processor's entry.
    let table = GuestAddress(
      UInt64(try run.word(GuestAddress(Layout.mpTables.value + 4), UInt32.self)))
    let entries = try memory.read(20 * vcpus + 1, at: GuestAddress(table.value + 44))
    #expect((0..<vcpus).map { entries[$0 * 20 + 1] } == (0..<UInt8(vcpus)).map { $0 })
    #expect(entries[20 * vcpus] == 1)
    // What the host's CPUID says of the processor.
    #expect(entries[4..<8].contains { $0 != 0 })
  }

  @Test("leaves the memory of flat images and of small guests alone")
  func noTables() throws {
    let flat = try run(TestGuest.halt)
    #expect(
      try flat.machine.memory.read(8, at: Layout.acpiTables) == [UInt8](repeating: 0, count: 8))
    let small = try run(TestGuest.halt) { $0.memorySize = 128 << 10 }
    #expect(small.outcome.kind == "halted")
  }

  @Test("answers fw_cfg with the number of VCPUs", arguments: [1, 3])
  func firmwareConfiguration(vcpus: Int) throws {
    let run = try run(Self.readsFirmwareConfiguration) { $0.vcpuCount = vcpus }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x10100, UInt16.self) == UInt16(vcpus))
    #expect(try run.machine.memory.read(4, at: 0x10102) == Array("QEMU".utf8))
  }

  @Test("ticks in real mode as firmware leaves it: counts, and calls INT 1Ch")
  func ticks() throws {
    let code: [UInt8] = [
      0x31, 0xC0,  //                                00: xor ax,ax
      0x8E, 0xD8,  //                                02: mov ds,ax
      0xC7, 0x06, 0x70, 0x00, 0x21, 0x00,  //        04: mov WORD PTR ds:0x70,0x21
      0x8C, 0x0E, 0x72, 0x00,  //                    0a: mov WORD PTR ds:0x72,cs
      0xFB,  //                                      0e: sti
      0xF4,  //                                      0f: hlt
      0x83, 0x3E, 0x6C, 0x04, 0x02,  //              10: cmp WORD PTR ds:0x46c,0x2
      0x72, 0xF8,  //                                15: jb 0xf
      0xA0, 0x6C, 0x04,  //                          17: mov al,ds:0x46c
      0x2A, 0x06, 0x00, 0x08,  //                    1a: sub al,BYTE PTR ds:0x800
      0xE6, 0xF4,  //                                1e: out 0xf4,al
      0xF4,  //                                      20: hlt
      0xFE, 0x06, 0x00, 0x08,  //                    21: inc BYTE PTR ds:0x800
      0xCF,  //                                      25: iret
    ]
    for image in [code, code + [UInt8](repeating: 0, count: 510 - code.count) + [0x55, 0xAA]] {
      // A boot sector has its code in segment 0.
      var image = image
      if image.count == 512 { image.replaceSubrange(8..<10, with: [0x21, 0x7C]) }
      let run = try run(image, mode: image.count == 512 ? nil : .real)
      #expect(run.outcome.kind == "exited")
      // As many as were counted.
      #expect(try run.word(0x800, UInt8.self) >= 2)
      #expect(try run.word(0x46C, UInt32.self) == UInt32(run.word(0x800, UInt8.self)))
    }
  }

  @Test("finds the 8259s and the timer as firmware leaves them", arguments: [1, 2])
  func controllers(vcpus: Int) throws {
    let run = try run([
      0xE4, 0x21,  //              00: in al,0x21
      0xA2, 0x00, 0x01,  //        02: mov ds:0x100,al
      0xE4, 0xA1,  //              05: in al,0xa1
      0xA2, 0x01, 0x01,  //        07: mov ds:0x101,al
      0xB0, 0xE2,  //              0a: mov al,0xe2
      0xE6, 0x43,  //              0c: out 0x43,al
      0xE4, 0x40,  //              0e: in al,0x40
      0xA2, 0x02, 0x01,  //        10: mov ds:0x102,al
      0xF4,  //                    13: hlt
    ]) { $0.vcpuCount = vcpus }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x10100, UInt8.self) == 0xFA)
    #expect(try run.word(0x10101, UInt8.self) == 0xFF)
    // Read back: both bytes, mode 3, binary; the output is high or low.
    #expect(try run.word(0x10102, UInt8.self) & 0x3F == 0x36)
  }

  @Test("takes interrupts from the test device to the guest's handler")
  func testInterrupt() throws {
    let run = try run(Self.raisesInterrupt) { $0.add(.testDevice) }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x10100, UInt8.self) == 0x5A)
  }

  @Test("has the test device's memory and latch, and its flush loses nothing")
  func testMemory() throws {
    let run = try run(Self.usesTestDevice, mode: .protected) { $0.add(.testDevice) }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x20000, UInt32.self) == 0x12_3456)
    #expect(try run.word(0x20004, UInt8.self) == 0x56)
    #expect(try run.word(0x20008, UInt32.self) == 0xABCD_EF01)
  }

  @Test(
    "is told each byte of an access over the edge of a page, which KVM hands over in odd pieces")
  func overThePage() throws {
    let code: [UInt8] = [
      0xC7, 0x05, 0xFD, 0x0F, 0x00, 0xFF,  // 00: mov DWORD PTR ds:0xff000ffd,
      0x44, 0x33, 0x22, 0x11,  //              0x11223344
      0xA1, 0xFC, 0x0F, 0x00, 0xFF,  //    0a: mov eax,ds:0xff000ffc
      0xA3, 0x00, 0x00, 0x02, 0x00,  //    0f: mov ds:0x20000,eax
      0xA1, 0x00, 0x10, 0x00, 0xFF,  //    14: mov eax,ds:0xff001000
      0xA3, 0x04, 0x00, 0x02, 0x00,  //    19: mov ds:0x20004,eax
      0xA1, 0xFD, 0x0F, 0x00, 0xFF,  //    1e: mov eax,ds:0xff000ffd
      0xA3, 0x08, 0x00, 0x02, 0x00,  //    23: mov ds:0x20008,eax
      0xFA,  //                            28: cli
      0xF4,  //                            29: hlt
    ]
    let run = try run(code, mode: .protected) { $0.add(.testDevice) }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x20000, UInt32.self) == 0x2233_4400)
    #expect(try run.word(0x20004, UInt32.self) == 0x11)
    #expect(try run.word(0x20008, UInt32.self) == 0x1122_3344)
  }

  @Test("has no memory where a PC's video memory is, with the test device alone")
  func videoMemory() throws {
    let code: [UInt8] = [
      0xB8, 0x44, 0x33, 0x22, 0x11,  // 00: mov eax,0x11223344
      0xA3, 0xFC, 0xFF, 0x09, 0x00,  // 05: mov ds:0x9fffc,eax
      0xA3, 0x00, 0x00, 0x0A, 0x00,  // 0a: mov ds:0xa0000,eax
      0xA3, 0xFC, 0xFF, 0x0B, 0x00,  // 0f: mov ds:0xbfffc,eax
      0xA3, 0x00, 0x00, 0x0C, 0x00,  // 14: mov ds:0xc0000,eax
      0xA1, 0xFC, 0xFF, 0x09, 0x00,  // 19: mov eax,ds:0x9fffc
      0xA3, 0x00, 0x00, 0x02, 0x00,  // 1e: mov ds:0x20000,eax
      0xA1, 0x00, 0x00, 0x0A, 0x00,  // 23: mov eax,ds:0xa0000
      0xA3, 0x04, 0x00, 0x02, 0x00,  // 28: mov ds:0x20004,eax
      0xA1, 0xFC, 0xFF, 0x0B, 0x00,  // 2d: mov eax,ds:0xbfffc
      0xA3, 0x08, 0x00, 0x02, 0x00,  // 32: mov ds:0x20008,eax
      0xA1, 0x00, 0x00, 0x0C, 0x00,  // 37: mov eax,ds:0xc0000
      0xA3, 0x0C, 0x00, 0x02, 0x00,  // 3c: mov ds:0x2000c,eax
      0xFA,  //                         41: cli
      0xF4,  //                         42: hlt
    ]
    for (hasTestDevice, seen) in [(true, 0xFFFF_FFFF), (false, 0x1122_3344)] as [(Bool, UInt32)] {
      // RAM above 4 GiB is a region of its own.
      let run = try run(code, mode: .protected) {
        if hasTestDevice { $0.add(.testDevice) }
        $0.memorySize = 4 << 30
      }
      #expect(run.outcome.kind == "halted")
      let words = try (0..<4).map { try run.word(GuestAddress(0x20000 + $0 * 4), UInt32.self) }
      #expect(words == [0x1122_3344, seen, seen, 0x1122_3344])
    }
  }

  /// Selects item 5 and reads 2 bytes to offset 0x100, then item 0 and 4 bytes by REP INSB.
  private static let readsFirmwareConfiguration: [UInt8] = [
    0xBA, 0x10, 0x05,  // 00: mov dx,0x510
    0xB8, 0x05, 0x00,  // 03: mov ax,0x5
    0xEF,  // 06: out dx,ax
    0x42,  // 07: inc dx
    0xEC,  // 08: in al,dx
    0x3E, 0xA2, 0x00, 0x01,  // 09: mov ds:0x100,al
    0xEC,  // 0d: in al,dx
    0x3E, 0xA2, 0x01, 0x01,  // 0e: mov ds:0x101,al
    0x4A,  // 12: dec dx
    0xB8, 0x00, 0x00,  // 13: mov ax,0x0
    0xEF,  // 16: out dx,ax
    0x42,  // 17: inc dx
    0x1E,  // 18: push ds
    0x07,  // 19: pop es
    0xBF, 0x02, 0x01,  // 1a: mov di,0x102
    0xB9, 0x04, 0x00,  // 1d: mov cx,0x4
    0xFC,  // 20: cld
    0xF3, 0x6C,  // 21: rep ins BYTE PTR es:[di],dx
    0xFA,  // 23: cli
    0xF4,  // 24: hlt
  ]

  /// Raises IRQ 5 by port 0x2005; the handler lowers it, leaves 0x5A at offset 0x100 and ends.
  private static let raisesInterrupt: [UInt8] = [
    0x31, 0xC0,  // 00: xor ax,ax
    0x8E, 0xC0,  // 02: mov es,ax
    0x26, 0xC7, 0x06, 0x94, 0x00, 0x2E, 0x00,  // 04: mov WORD PTR es:0x94,0x2e
    0x26, 0x8C, 0x0E, 0x96, 0x00,  // 0b: mov WORD PTR es:0x96,cs
    0xB0, 0x11,  // 10: mov al,0x11
    0xE6, 0x20,  // 12: out 0x20,al
    0xB0, 0x20,  // 14: mov al,0x20
    0xE6, 0x21,  // 16: out 0x21,al
    0xB0, 0x04,  // 18: mov al,0x4
    0xE6, 0x21,  // 1a: out 0x21,al
    0xB0, 0x01,  // 1c: mov al,0x1
    0xE6, 0x21,  // 1e: out 0x21,al
    0xB0, 0xDF,  // 20: mov al,0xdf
    0xE6, 0x21,  // 22: out 0x21,al
    0xBA, 0x05, 0x20,  // 24: mov dx,0x2005
    0xB0, 0x01,  // 27: mov al,0x1
    0xFB,  // 29: sti
    0xEE,  // 2a: out dx,al
    0xF4,  // 2b: hlt
    0xEB, 0xFD,  // 2c: jmp 0x2b
    0xB0, 0x00,  // 2e: mov al,0x0
    0xEE,  // 30: out dx,al
    0xC6, 0x06, 0x00, 0x01, 0x5A,  // 31: mov BYTE PTR ds:0x100,0x5a
    0xB0, 0x20,  // 36: mov al,0x20
    0xE6, 0x20,  // 38: out 0x20,al
    0xFA,  // 3a: cli
    0xF4,  // 3b: hlt
  ]

  /// Leaves what it reads from the memory and the latch at 0x20000, and what a page holds after it was
  /// flushed.
  private static let usesTestDevice: [UInt8] = [
    0xBF, 0x10, 0x00, 0x00, 0xFF,  // 00: mov edi,0xff000010
    0xB8, 0x78, 0x56, 0x34, 0x12,  // 05: mov eax,0x12345678
    0x89, 0x07,  // 0a: mov DWORD PTR [edi],eax
    0x8B, 0x5F, 0x01,  // 0c: mov ebx,DWORD PTR [edi+0x1]
    0x3E, 0x89, 0x1D, 0x00, 0x00, 0x02, 0x00,  // 0f: mov DWORD PTR ds:0x20000,ebx
    0x66, 0xBA, 0xE0, 0x00,  // 16: mov dx,0xe0
    0xEF,  // 1a: out dx,eax
    0x66, 0xBA, 0xE9, 0x00,  // 1b: mov dx,0xe9
    0xEC,  // 1f: in al,dx
    0x3E, 0xA2, 0x04, 0x00, 0x02, 0x00,  // 20: mov ds:0x20004,al
    0x3E, 0xC7, 0x05, 0x00, 0x10, 0x02, 0x00, 0x01, 0xEF, 0xCD, 0xAB,  // 26: mov ds:0x21000,imm
    0xB8, 0x23, 0x11, 0x02, 0x00,  // 31: mov eax,0x21123
    0x66, 0xBA, 0xE4, 0x00,  // 36: mov dx,0xe4
    0xEF,  // 3a: out dx,eax
    0x3E, 0x8B, 0x0D, 0x00, 0x10, 0x02, 0x00,  // 3b: mov ecx,DWORD PTR ds:0x21000
    0x3E, 0x89, 0x0D, 0x08, 0x00, 0x02, 0x00,  // 42: mov DWORD PTR ds:0x20008,ecx
    0xFA,  // 49: cli
    0xF4,  // 4a: hlt
  ]
}
