import Devices
import Machine
import TestSupport
import Testing

@Suite("Devices' places", .limited)
struct PlacesTests {
  private typealias Device = VMConfiguration.Device
  private typealias Place = VMConfiguration.Place

  private func placed(
    _ devices: [VMConfiguration.Device], on bus: VMConfiguration.VirtioBus = .pci
  ) throws -> [VMConfiguration.Place?] {
    var spec = VMConfiguration()
    spec.virtioBus = bus
    spec.devices = devices
    spec = spec.completed()
    try spec.check()
    let placed = try spec.placed()
    // Once they are there they stay.
    #expect(try placed.placed() == placed)
    return placed.devices.map(\.place)
  }

  private func pci(_ device: UInt8) -> Place { .pci(PCIAddress(device: device)) }

  @Test("are the next ones on each bus, in order, that nobody asks for")
  func order() throws {
    let disks = [.virtio, .ide, .mmio, .ide, .virtio].map { (bus: VMConfiguration.Disk.Bus) in
      Device(.disk(.init(bus: bus)))
    }
    let places = try placed(
      disks + [Device(.rng, place: pci(2)), Device(.testDevice), Device(.balloon(.init()))])
    #expect(places == [pci(3), .ide(0), .mmio(0), .ide(1), pci(4), pci(2), nil, pci(5)])
    #expect(
      try placed([Device(.rng), Device(.virtioConsole, place: .mmio(0))], on: .mmio)
        == [.mmio(1), .mmio(0)])
  }

  @Test("are as many as a bus has")
  func room() throws {
    let nets = (0..<30).map { _ in Device(.net(.init())) }
    #expect(try placed(nets).last == pci(31))
    #expect(throws: SpecError.self) { try placed(nets + [Device(.rng)]) }
    #expect(try placed(Array(nets.prefix(5)), on: .mmio).last == .mmio(4))
    #expect(throws: SpecError.self) { try placed(Array(nets.prefix(6)), on: .mmio) }
    for place in [.mmio(5), .mmio(-1), pci(2)] as [Place] {
      #expect(throws: SpecError.self) { try placed([Device(.rng, place: place)], on: .mmio) }
    }
    #expect(throws: SpecError.self) {
      try placed([Device(.disk(.init(bus: .ide)), place: .ide(4))])
    }
  }
}
