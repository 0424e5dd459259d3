import Devices
import Guests
import Host
import KVM
import Machine
import Memory
import Network
import Storage
import Synchronization
import Testing
import TestSupport

@Suite("Virtio devices under KVM", .needsKVM, .limited)
struct VirtioTests {
  @Test(
    "a guest writes and reads every sector of a disk, and its doorbells cost no exits",
    arguments: VMConfiguration.VirtioBus.allCases)
  func everySector(virtioBus: VMConfiguration.VirtioBus) throws {
    let guest = try #require(Guest.named("virtio-block"))
    let disk = RAMDisk(sectors: 128)
    let trace = RecordingTrace()

    let result = try run(guest.image, mode: guest.mode) {
      $0.virtioBus = virtioBus
      $0.add(disk, bus: virtioBus == .mmio ? .virtio : .mmio)
      var observation = Observation()
      observation.sinks = [trace]
      $0.observation = observation
    }

    #expect(result.outputText == "sectors: 128\nwritten\nread back, all right\n")
    #expect(result.outcome.exitStatus == 1)
    for sector in 0..<128 {
      #expect(disk.bytes[sector * 512 + 504] == UInt8(sector), "sector \(sector)")
    }
    let statistics = try #require(result.machine.statistics)
    let queue = try #require(statistics.devices.first?.rings.first).statistics
    #expect(queue.requests == 257)
    #expect(queue.bytesRead == 65536 && queue.bytesWritten == 65536)
    // QueueNotify (virtio 1.2, 4.2.2) is written for every request, and KVM takes all of it.
    let doorbells = trace.events.filter {
      guard case .exit(.mmio(let access), _, _) = $0.what else { return false }
      return access.isWrite && access.address & 0xFFF == 0x50
    }
    #expect(try #require(queue.doorbells) > 0 && doorbells.isEmpty)
  }

  @Test("nothing is left of a machine that is gone, whatever it had", arguments: [1, 2])
  func leavesNothing(cpus: Int) throws {
    weak var memory: GuestMemory?
    weak var control: RunControl?
    do {
      let reset: [UInt8] = [
        0xB0, 0xFE,  // mov al,0xfe
        0xE6, 0x64,  // out 0x64,al
      ]
      let (ours, theirs) = try StreamSocket.makePair()
      let other = SharedDescriptor(FileDescriptor(owning: theirs))
      defer { withExtendedLifetime(other) {} }
      let network = try StreamBackEnd(FileDescriptor(owning: ours), name: "test")
      let result = try run(reset) {
        $0.vcpuCount = cpus
        $0.add(.rng, .balloon(.init()), .virtioConsole)
        $0.type([0x21])
        for bus in VMConfiguration.Disk.Bus.allCases { $0.add(RAMDisk(sectors: 8), bus: bus) }
        $0.add(.net(.init()))
        $0.resources.networks["net0"] = network
      }
      #expect(result.outcome.kind == "reset")
      (memory, control) = (result.machine.memory, result.machine.control)
    }
    #expect(memory == nil)
    #expect(control == nil)
  }

  @Test("a driver that breaks the ring is told, and the machine goes on")
  func broken() throws {
    let log = Mutex<[String]>([])
    // Sets queue 0 up with its descriptors where no memory is.
    let driver: [(UInt32, UInt32)] = [
      (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x38, 8), (0x84, 0xFFFF), (0x44, 1), (0x70, 15),
    ]
    var code: [UInt8] = []
    for (register, value) in driver {
      code += [0xC7, 0x05]  // mov dword ptr [address], value
      for word in [0xC010_0000 + register, value] {
        code += [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: word >> $0) }
      }
    }
    code += [0xA1, 0x70, 0, 0x10, 0xC0]  // mov eax,[0xc0100070]
    code += [0xE6, 0xF4]  // out 0xf4,al

    let result = try run(code, mode: .protected) {
      $0.add(RAMDisk(sectors: 8), bus: .mmio)
      $0.report = { text in log.withLock { $0.append(text) } }
    }

    #expect(result.outcome.exitStatus == (79 << 1 | 1) & 0xFF)
    #expect(log.withLock { $0 }.first?.contains("the ring at 0xffff00000000 is not all in") == true)
  }

  @Test("devices are where their spec says, and the others where there is room")
  func places() throws {
    let result = try run(TestGuest.halt) {
      $0.spec.devices = [
        .init(.rng), .init(.balloon(.init()), place: .pci(.init(device: 2))),
        .init(.virtioConsole, place: .pci(.init(device: 9))),
        .init(.disk(.init(bus: .mmio)), id: "d", place: .mmio(3)),
      ]
      $0.resources.disks["d"] = RAMDisk(sectors: 8)
    }
    #expect(
      result.machine.inventory.pci.functions.map { "\($0.address) \($0.function.name)" } == [
        "00:00.0 host-bridge", "00:02.0 virtio-balloon", "00:03.0 virtio-rng",
        "00:09.0 virtio-console",
      ])
    let place = result.machine.inventory.places.first { "\($0.name)" == "virtio-block" }
    #expect(place?.range.lowerBound == Layout.virtioMMIO.value + 3 * GuestMemory.pageSize)
  }

  @Test("more devices on MMIO than there are interrupts are refused", arguments: [5, 6])
  func tooMany(disks: Int) throws {
    #expect(throws: MachineError.self) {
      try run(TestGuest.halt) {
        $0.virtioBus = .mmio
        for _ in 0..<disks { $0.add(RAMDisk(sectors: 8)) }
        if disks == 5 { $0.add(.rng) }
      }
    }
  }
}
