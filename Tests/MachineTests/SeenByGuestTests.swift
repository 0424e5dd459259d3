import Boot
import Guests
import Machine
import Memory
import TestSupport
import Testing

@Suite("A guest sees", .needsKVM, .limited)
struct SeenByGuestTests {
  @Test("all ones at ports that nobody has, in all widths")
  func unclaimedPorts() throws {
    let run = try run([
      0x66, 0x31, 0xC0,  //        00: xor eax,eax
      0xBA, 0x34, 0x12,  //        03: mov dx,0x1234
      0xEC,  //                    06: in al,dx
      0x66, 0xA3, 0x00, 0x01,  //  07: mov ds:0x100,eax
      0x66, 0x31, 0xC0,  //        0b: xor eax,eax
      0xED,  //                    0e: in ax,dx
      0x66, 0xA3, 0x04, 0x01,  //  0f: mov ds:0x104,eax
      0x66, 0xED,  //              13: in eax,dx
      0x66, 0xA3, 0x08, 0x01,  //  15: mov ds:0x108,eax
      0xEE,  //                    19: out dx,al
      0xEF,  //                    1a: out dx,ax
      0x66, 0xEF,  //              1b: out dx,eax
      0xFA,  //                    1d: cli
      0xF4,  //                    1e: hlt
    ])
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x10100, UInt32.self) == 0xFF)
    #expect(try run.word(0x10104, UInt32.self) == 0xFFFF)
    #expect(try run.word(0x10108, UInt32.self) == 0xFFFF_FFFF)
  }

  @Test("all ones at addresses without memory, in all widths")
  func unclaimedMemory() throws {
    let run = try run(
      [
        0xBF, 0x00, 0x00, 0x00, 0xD0,  //                    00: mov edi,0xd0000000
        0x31, 0xC0,  //                                      05: xor eax,eax
        0x8A, 0x07,  //                                      07: mov al,BYTE PTR [rdi]
        0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00,  //  09: mov QWORD PTR ds:0x20000,rax
        0x31, 0xC0,  //                                      11: xor eax,eax
        0x66, 0x8B, 0x07,  //                                13: mov ax,WORD PTR [rdi]
        0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x02, 0x00,  //  16: mov QWORD PTR ds:0x20008,rax
        0x8B, 0x07,  //                                      1e: mov eax,DWORD PTR [rdi]
        0x48, 0x89, 0x04, 0x25, 0x10, 0x00, 0x02, 0x00,  //  20: mov QWORD PTR ds:0x20010,rax
        0x48, 0x8B, 0x07,  //                                28: mov rax,QWORD PTR [rdi]
        0x48, 0x89, 0x04, 0x25, 0x18, 0x00, 0x02, 0x00,  //  2b: mov QWORD PTR ds:0x20018,rax
        0x88, 0x07,  //                                      33: mov BYTE PTR [rdi],al
        0x66, 0x89, 0x07,  //                                35: mov WORD PTR [rdi],ax
        0x89, 0x07,  //                                      38: mov DWORD PTR [rdi],eax
        0x48, 0x89, 0x07,  //                                3a: mov QWORD PTR [rdi],rax
        0xFA,  //                                            3d: cli
        0xF4,  //                                            3e: hlt
      ], mode: .long)
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x20000, UInt64.self) == 0xFF)
    #expect(try run.word(0x20008, UInt64.self) == 0xFFFF)
    #expect(try run.word(0x20010, UInt64.self) == 0xFFFF_FFFF)
    #expect(try run.word(0x20018, UInt64.self) == UInt64.max)
  }

  @Test("all ones beyond the edge of a page, and of its memory, in accesses of odd widths")
  func pageEdges() throws {
    let trace = RecordingTrace()
    let run = try run(
      [
        0xBF, 0xFD, 0x0F, 0x00, 0xD0,  //        00: mov edi,0xd0000ffd
        0x8B, 0x07,  //                          05: mov eax,DWORD PTR [edi]
        0xA3, 0x00, 0x00, 0x02, 0x00,  //        07: mov ds:0x20000,eax
        0xC7, 0x07, 0x11, 0x22, 0x33, 0x44,  //  0c: mov DWORD PTR [edi],0x44332211
        0xBF, 0xFD, 0xFF, 0xFF, 0x07,  //        12: mov edi,0x7fffffd
        0xC6, 0x07, 0x11,  //                    17: mov BYTE PTR [edi],0x11
        0xC6, 0x47, 0x01, 0x22,  //              1a: mov BYTE PTR [edi+0x1],0x22
        0xC6, 0x47, 0x02, 0x33,  //              1e: mov BYTE PTR [edi+0x2],0x33
        0x8B, 0x07,  //                          22: mov eax,DWORD PTR [edi]
        0xA3, 0x04, 0x00, 0x02, 0x00,  //        24: mov ds:0x20004,eax
        0xC7, 0x07, 0x55, 0x66, 0x77, 0x88,  //  29: mov DWORD PTR [edi],0x88776655
        0xFA,  //                                2f: cli
        0xF4,  //                                30: hlt
      ], mode: .protected
    ) {
      $0.memorySize = 128 << 20
      $0.observation = Observation(sink: trace)
    }
    #expect(run.outcome.kind == "halted")
    #expect(try run.word(0x20000, UInt32.self) == 0xFFFF_FFFF)
    // Three bytes of memory and one of nothing.
    #expect(try run.word(0x20004, UInt32.self) == 0xFF33_2211)
    #expect(try run.machine.memory.read(3, at: 0x7FF_FFFD) == [0x55, 0x66, 0x77])
    // However KVM cuts the accesses: all bytes without memory were asked for, each once.
    var bytes: [UInt64: [UInt8]] = [:]
    for event in trace.events {
      guard case .exit(.mmio(let access), let data?, let device) = event.what else { continue }
      #expect(device == nil)
      for index in 0..<access.width where access.isWrite {
        let byte = UInt8(truncatingIfNeeded: data >> UInt64(index * 8))
        bytes[access.address + UInt64(index), default: []].append(byte)
      }
    }
    #expect(
      bytes == [
        0xD000_0FFD: [0x11], 0xD000_0FFE: [0x22], 0xD000_0FFF: [0x33], 0xD000_1000: [0x44],
        0x800_0000: [0x88],
      ])
  }

  @Test("64 GiB of memory, of which only what is touched costs anything")
  func largeMemory() throws {
    let guest = try #require(Guest.named("hello-long"))
    let size: UInt64 = 64 << 30
    let run = try run(guest.image, mode: .long) {
      $0.memorySize = size
      $0.observation = Observation()
    }
    #expect(run.outputText == "Hello from long mode!\n")
    #expect(run.machine.memory.ramSize == size)
    let statistics = try #require(run.machine.statistics)
    #expect(statistics.touchedMemory < 64 << 20)
    // The last byte is where the hole below 4 GiB has pushed it.
    let holeSize = GuestMemory.holeEnd - GuestMemory.holeStart
    #expect(try run.machine.memory.read(1, at: GuestAddress(size + holeSize - 1)) == [0])
    #expect(throws: GuestMemory.OutOfBounds.self) {
      _ = try run.machine.memory.read(1, at: GuestAddress(size + holeSize))
    }
  }

  @Test(
    "the sizes of its memory in the CMOS",
    arguments: [
      // Size in MiB; KiB above 1 MiB (at most 63 MiB); 64 KiB above 16 MiB; 64 KiB above 4 GiB.
      (8, 7 << 10, 0, 0),
      (128, 0xFFFF, 112 << 4, 0),
      (6 << 10, 0xFFFF, (3072 - 16) << 4, (3 << 10) << 4),
    ])
  func cmos(mebibytes: UInt64, above1: Int, above16: Int, above4G: Int) throws {
    var image: [UInt8] = [
      0xBE, 0x00, 0x02,  // 00: mov si,0x200
      0xBF, 0x00, 0x01,  // 03: mov di,0x100
      0xAC,  //             06: lods al,BYTE PTR ds:[si]
      0x84, 0xC0,  //       07: test al,al
      0x74, 0x09,  //       09: je 0x14
      0xE6, 0x70,  //       0b: out 0x70,al
      0xE4, 0x71,  //       0d: in al,0x71
      0x88, 0x05,  //       0f: mov BYTE PTR [di],al
      0x47,  //             11: inc di
      0xEB, 0xF2,  //       12: jmp 0x6
      0xFA,  //             14: cli
      0xF4,  //             15: hlt
    ]
    image += Array(repeating: 0, count: 0x200 - image.count)
    image += [0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5B, 0x5C, 0x5D, 0]
    let run = try run(image) { $0.memorySize = mebibytes << 20 }
    let bytes = try run.machine.memory.read(11, at: 0x10100).map(Int.init)
    #expect(bytes[0] | bytes[1] << 8 == 640)
    #expect(bytes[2] | bytes[3] << 8 == min(above1, 0xFFFF))
    #expect(bytes[4] | bytes[5] << 8 == min(above1, 0xFFFF))
    #expect(bytes[6] | bytes[7] << 8 == above16)
    #expect(bytes[8] | bytes[9] << 8 | bytes[10] << 16 == above4G)
  }
}
