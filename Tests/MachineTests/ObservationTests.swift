import Boot
import Guests
import KVM
import Machine
import TestSupport
import Testing

@Suite("Of a run is seen", .needsKVM, .limited)
struct ObservationTests {
  // Uses a port with a device, one without, and memory that isn't there.
  private static let image: [UInt8] = [
    0xB0, 0x41,  //                                                  00: mov al,0x41
    0xE6, 0xE9,  //                                                  02: out 0xe9,al
    0x66, 0xBA, 0x34, 0x12,  //                                      04: mov dx,0x1234
    0x66, 0xED,  //                                                  08: in ax,dx
    0xC7, 0x05, 0x10, 0x00, 0x00, 0xD0, 0x0D, 0xF0, 0xFE, 0xCA,  //  0a: mov ds:0xd0000010,…
    0xA0, 0x20, 0x00, 0x00, 0xD0,  //                                14: mov al,ds:0xd0000020
    0xFA,  //                                                        19: cli
    0xF4,  //                                                        1a: hlt
  ]

  private func events(_ kinds: TraceKinds) throws -> [TraceEvent] {
    let trace = RecordingTrace()
    let run = try run(Self.image, mode: .protected) {
      $0.observation = Observation(sink: trace, kinds: kinds)
    }
    #expect(run.outcome.kind == "halted")
    #expect(trace.isFinished)
    #expect(run.machine.traceFailure == nil)
    return trace.events
  }

  /// The events of I/O in words.
  private func words(_ events: [TraceEvent]) -> [String] {
    events.compactMap { event in
      guard case .exit(let exit, let data?, let device) = event.what else { return nil }
      let answered = device.map { "\($0)" } ?? "nobody"
      switch exit {
      case .portIO(let io):
        return "\(io.isWrite ? "out" : "in") \(String(io.port, radix: 16)) \(io.width) "
          + "\(String(data, radix: 16)) \(answered)"
      case .mmio(let access):
        return "\(access.isWrite ? "write" : "read") \(String(access.address, radix: 16)) "
          + "\(access.width) \(String(data, radix: 16)) \(answered)"
      default: return nil
      }
    }
  }

  @Test("each exit, in order, with its data, its device, its place and its times")
  func events() throws {
    let events = try events(.all)
    #expect(
      words(events) == [
        "out e9 1 41 debugcon", "in 1234 2 ffff nobody", "write d0000010 4 cafef00d nobody",
        "read d0000020 1 ff nobody",
      ])
    var last: UInt64 = 0
    for event in events {
      #expect(last <= event.entered && event.entered <= event.left && event.left <= event.handled)
      last = event.handled
      #expect(event.vcpu == 0)
      #expect((0x10000...0x1001B).contains(event.instructionPointer))
    }
    let places = events.map(\.instructionPointer)
    #expect(places == places.sorted())
  }

  @Test("only what was asked for")
  func kinds() throws {
    #expect(words(try events(.portIO)).count == 2)
    #expect(try events(.portIO).count == 2)
    #expect(words(try events(.mmio)).count == 2)
    #expect(try events(.mmio).count == 2)
    #expect(try events(.interrupts).isEmpty)
    #expect(try events([.portIO, .mmio]).count == 4)
    #expect(TraceKinds(name: "irq") == .interrupts)
    #expect(TraceKinds(name: "nothing") == nil)
  }

  @Test("each interrupt that a device raises and lowers")
  func interrupts() throws {
    let guest = try #require(Guest.named("echo-irq"))
    let trace = RecordingTrace()
    let run = try run(guest.image) {
      $0.type(guest.input)
      $0.observation = Observation(sink: trace, kinds: .interrupts)
    }
    #expect(guest.expectedOutput.matches(run.output))
    let levels = trace.events.map { event -> Bool? in
      guard case .interrupt(4, let isRaised) = event.what else { return nil }
      return isRaised
    }
    #expect(levels.contains(true))
    #expect(!levels.contains(nil))
  }

  @Test("as many exits as the guest did, and how many nobody claimed")
  func statistics() throws {
    let run = try run([
      0xB9, 0xE8, 0x03,  // 00: mov cx,0x3e8
      0xE6, 0x80,  //       03: out 0x80,al
      0xE2, 0xFC,  //       05: loop 0x3
      0xE6, 0x99,  //       07: out 0x99,al
      0xFA,  //             09: cli
      0xF4,  //             0a: hlt
    ]) { $0.observation = Observation() }
    let statistics = try #require(run.machine.statistics)
    #expect(statistics.exits.portIO.count == 1001)
    #expect(statistics.exits.mmio.count == 0)
    #expect(statistics.exits.unclaimed == 1)
    #expect(statistics.exits.repeated == 0)
    #expect(statistics.vcpuCount == 1)
    #expect(statistics.memorySize == 128 << 20)
    #expect(statistics.touchedMemory >= 4096)
    #expect(statistics.exits.inGuest + statistics.inKvmlite <= statistics.elapsed)
    #expect(statistics.kernel.contains { $0.name == "exits" && $0.value >= 1001 })
    #expect(statistics.exits.rows.first?.name == "io")
  }

  @Test("the same however many bytes a repeated access has at a time")
  func repeatedStatistics() throws {
    let run = try run([
      0xBF, 0x00, 0x01,  // 00: mov di,0x100
      0xB9, 0x64, 0x00,  // 03: mov cx,0x64
      0xBA, 0xE9, 0x00,  // 06: mov dx,0xe9
      0xFC,  //             09: cld
      0xF3, 0x6C,  //       0a: rep ins BYTE PTR es:[di],dx
      0xFA,  //             0c: cli
      0xF4,  //             0d: hlt
    ]) { $0.observation = Observation() }
    #expect(try run.machine.memory.read(100, at: 0x10100) == Array(repeating: 0xE9, count: 100))
    let exits = try #require(run.machine.statistics).exits
    #expect(exits.portIO.count + exits.repeated == 100)
  }

  @Test("nothing where nothing was asked for")
  func nothing() throws {
    #expect(try run(Self.image, mode: .protected).machine.statistics == nil)
  }
}

extension Observation {
  /// Hands all exits of `kinds` to `sink`.
  init(sink: any TraceSink, kinds: TraceKinds = .all) {
    self.init()
    self.kinds = kinds
    sinks = [sink]
  }
}
