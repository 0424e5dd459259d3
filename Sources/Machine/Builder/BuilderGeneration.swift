import Boot
import Devices
import Memory

// The generation ID, for guests that are told of it: those with ACPI tables.

extension BootPlan {
  /// What the guest can read and not write: ROMs, and the generation ID's page.
  var readOnlyMemory: [(start: GuestAddress, contents: [UInt8])] {
    guard tables != nil || format == .firmware else { return roms }
    return roms + [(Layout.generation, [UInt8](repeating: 0, count: GenerationID.size))]
  }
}

extension Builder {
  /// Adds it if the memory has its page: that of a machine saved by an older kvmlite hasn't. `sci` is the
  /// line that ACPI's power management has an input of.
  mutating func addGenerationID(_ sci: SharedInterruptLine) -> GenerationID? {
    let (start, size) = (Layout.generation, GuestMemory.pageSize)
    guard (try? platform.memory.view(at: start, count: size)) != nil else { return nil }
    let events = GeneralPurposeEvents(line: sci.makeInput())
    add(
      "events", events, at: Layout.generalPurposeEvents,
      interrupt: Layout.systemControlInterrupt, table: .generalPurposeEvents)
    let device = GenerationID(platform.memory, at: start) {
      events.raise(Layout.generationEvent)
    }
    add(
      "generation", device.name, [.memory(start.value...start.value + (size - 1), device)],
      table: .generation)
    return device
  }
}
