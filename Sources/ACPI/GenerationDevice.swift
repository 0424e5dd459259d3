/// The Virtual Machine Generation ID in AML (Microsoft, "Virtual Machine Generation ID", 2012).
enum GenerationDevice {
  /// `VGEN`: guests find it by a compatible ID. The first is that of the specification, which is longer
  /// than an ID may be (ACPI 6.5, 6.1.2); the second is Hyper-V's, and as long as it may be.
  static func device(_ generation: PlatformDescription.Generation) -> AML {
    let name = AML.string("VM_Gen_Counter")
    let address = [generation.address & 0xFFFF_FFFF, generation.address >> 32]
    return .device(
      "VGEN",
      [
        .name("_HID", .string("KVML0001")), .name("_CID", .package([name, .string("VMGENCTR")])),
        .name("_DDN", name), .name("ADDR", .package(address.map(AML.integer))),
      ])
  }

  /// `_GPE`: the event that tells of a new one, edge-triggered, notifies the device (5.6.4.1).
  static func events(_ generation: PlatformDescription.Generation) -> AML {
    let notify = AML.notify("\\_SB.VGEN", .integer(0x80))
    return .scope("_GPE", [.method("_E", Int(generation.event), digits: 2, [notify])])
  }
}
