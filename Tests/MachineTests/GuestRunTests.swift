import Boot
import Dispatch
import Guests
import Host
import Machine
import Storage
import Synchronization
import TestSupport
import Testing

@Suite("Built-in guests run", .needsKVM, .limited)
struct GuestRunTests {
  /// All but the benchmarks and the one that never ends.
  static let guests = Guest.all.filter { !$0.isBenchmark && $0.name != "spin" }

  /// Runs `guest` as its header says.
  private func run(_ guest: Guest, cpus: Int? = nil) throws -> Run {
    let scratch = try guest.diskSize.map(ScratchDisk.init)
    var options = DiskImage.Options()
    options.format = .raw
    let store = try scratch.map { try DiskImage.open($0.path, options).store }
    return try MachineTests.run(guest.image, mode: guest.format == .flat ? guest.mode : nil) {
      if let store { $0.add(store, bus: .ide) }
      $0.vcpuCount = cpus ?? guest.cpus
      $0.type(guest.input)
    }
  }

  @Test("to the output and the status that they promise", arguments: Trials.cases(guests))
  func promise(guest: Guest) throws {
    let run = try run(guest)
    #expect(guest.expectedOutput.matches(run.output), "\(run.outputText.debugDescription)")
    #expect(run.outcome.exitStatus == Int32(guest.expectedStatus), "\(run.outcome)")
  }

  @Test("those that want a disk say so without one, and fail", arguments: ["ide-pio", "ide-dma"])
  func noDisk(name: String) throws {
    let guest = try #require(Guest.named(name))
    let run = try MachineTests.run(guest.image, mode: guest.mode)
    #expect(run.outputText.contains("--disk FILE,bus=ide"))
    #expect(run.outcome.exitStatus == 3)
  }

  @Test("on 1 to 8 VCPUs, all of which they find", arguments: 1...8)
  func cpus(count: Int) throws {
    let run = try run(try #require(Guest.named("smp")), cpus: count)
    // The guest counts all of them; one alone is "1 CPUs" too.
    #expect(run.outputText == "\(count) CPUs\n")
    #expect(run.outcome.exitStatus == 0)
  }

  @Test("several at a time in one process, each with its own console")
  func parallel() throws {
    let names = ["hello-long", "tick", "echo-irq", "string-io", "smp", "hello-elf32"]
    let guests = try names.map { try #require(Guest.named($0)) }
    let failures = Mutex<[String]>([])
    DispatchQueue.concurrentPerform(iterations: guests.count * 2) { index in
      let guest = guests[index % guests.count]
      do {
        let run = try run(guest)
        if !guest.expectedOutput.matches(run.output)
          || run.outcome.exitStatus != Int32(guest.expectedStatus)
        {
          failures.withLock { $0.append("\(guest): \(run.outputText), \(run.outcome)") }
        }
      } catch { failures.withLock { $0.append("\(guest): \(error)") } }
    }
    #expect(failures.withLock { $0 } == [])
  }

  @Test("one after another, each from fresh memory")
  func sequence() throws {
    // Adds 1 to a byte of its own and writes it: memory kept from the first run would show.
    let guest: [UInt8] = [
      0xFE, 0x06, 0x0D, 0x00,  // 00: inc BYTE PTR ds:0xd
      0xA0, 0x0D, 0x00,  //       04: mov al,ds:0xd
      0xE6, 0xE9,  //             07: out 0xe9,al
      0xFA,  //                   09: cli
      0xF4,  //                   0a: hlt
      0x00, 0x00, 0x41,  //       0d: the byte
    ]
    for _ in 0..<3 { #expect(try MachineTests.run(guest).outputText == "B") }
  }
}
