import Boot
import Foundation
import Guests
import TestSupport
import Testing

@Suite("Built-in guests", .limited)
struct GuestsTests {
  @Test("are found by name, and no two have the same")
  func names() throws {
    #expect(Set(Guest.all.map(\.name)).count == Guest.all.count)
    for guest in Guest.all {
      #expect(Guest.named(guest.name)?.name == guest.name)
    }
    #expect(Guest.named("no such guest") == nil)
    for name in ["hello-real", "hello-protected", "hello-long", "hello-boot", "smp", "ring3"] {
      #expect(Guest.named(name) != nil, "\(name)")
    }
  }

  @Test("have an image of their format", arguments: Guest.all)
  func image(guest: Guest) {
    let image = guest.image
    #expect(!image.isEmpty)
    // Text of twice the size per image is embedded: guests are meant to be small.
    #expect(image.count <= 16384)
    switch guest.format {
    case .flat:
      #expect(image.prefix(4) != [0x7F, 0x45, 0x4C, 0x46])
    case .bootSector:
      #expect(guest.mode == .real)
      #expect(image.count == 512)
      #expect(image.suffix(2) == [0x55, 0xAA])
    case .elf32:
      #expect(guest.mode == .protected)
      #expect(image.prefix(5) == [0x7F, 0x45, 0x4C, 0x46, 1])
      // e_type ET_EXEC, e_machine EM_386, e_entry 1 MiB
      #expect(image[16..<20] == [2, 0, 3, 0])
      #expect(image[24..<28] == [0, 0, 0x10, 0])
    case .elf64:
      #expect(guest.mode == .long)
      #expect(image.prefix(5) == [0x7F, 0x45, 0x4C, 0x46, 2])
      // e_type ET_EXEC, e_machine EM_X86_64, e_entry 1 MiB
      #expect(image[16..<20] == [2, 0, 62, 0])
      #expect(image[24..<32] == [0, 0, 0x10, 0, 0, 0, 0, 0])
    }
  }

  @Test("say what they show and how they end", arguments: Guest.all)
  func header(guest: Guest) {
    #expect(guest.summary.count > 10 && guest.summary.count <= 97)
    #expect(guest.summary.hasSuffix("."))
    #expect((1...255).contains(guest.cpus))
    #expect((0...255).contains(guest.expectedStatus))
    if guest.isBenchmark {
      #expect(guest.expectedOutput.matches([]))
    }
  }

  @Test("are decoded to the bytes that were assembled")
  func decoding() throws {
    // MOV AL, 0; OUT 0xF4, AL; HLT
    #expect(try #require(Guest.named("cost-empty")).image == [0xB0, 0, 0xE6, 0xF4, 0xF4])
    #expect(try #require(Guest.named("echo")).input == Array("Hello, kvmlite\nq".utf8))
  }

  @Test("have an expected output that lets digits differ and nothing else")
  func pattern() throws {
    let pattern = try #require(Guest.named("rtc")).expectedOutput
    func matches(_ text: String) -> Bool { pattern.matches(Array(text.utf8)) }
    #expect(matches("Memory: 128 MiB\nDate: 2026-01-02 03:04:05\n"))
    #expect(!matches("Memory: 128 MiB\nDate: 2026-01-02 03:04:0x\n"))
    #expect(!matches("Memory: 128 MiB\nDate: 2026-01-02 03:04:05\n\n"))
    #expect(!matches("Memory: 128 MiB\nDate: 2026-01-02 03:04:0"))
    #expect(!matches("Memory: 64 MiB\nDate: 2026-01-02 03:04:05\n"))
    #expect(pattern.description.hasSuffix("\\d\\d:\\d\\d:\\d\\d\n"))
  }

  @Test("come out of scripts/guest the same", arguments: Trials.cases(Guest.all))
  func script(guest: Guest) throws {
    let package = URL(filePath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let image = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).bin")
    defer { try? FileManager.default.removeItem(at: image) }
    let script = Process()
    script.executableURL = package.appending(path: "scripts/guest")
    script.arguments = [
      package.appending(path: "guest-asm/\(guest.name).S").path, "-o", image.path,
    ]
    script.standardOutput = FileHandle.nullDevice
    try script.run()
    script.waitUntilExit()
    #expect(script.terminationStatus == 0)
    #expect(try Data(contentsOf: image) == Data(guest.image))
  }
}
