extension PCIFunction {
  /// The IDE function of Intel's PIIX3 with `controller` behind it, which answers at ISA's ports too
  /// ("compatibility mode": no ranges but the bus master's, no pin).
  ///
  /// The timing registers keep what they are given and change nothing: there is no cable. Both
  /// channels are decoded, as their bits say from the start (82371SB datasheet, 2.3).
  package static func piix3IDE(_ controller: IDEController, _ slot: PCISlot) -> PCIFunction {
    // Bit 7 of the interface: there is a bus master.
    let identity = PCIIdentity(vendor: 0x8086, device: 0x7010, kind: .ide(interface: 0x80))
    let busMaster = PCIBAR(4, .port, size: 16, controller.busMaster)
    return PCIFunction(
      name: "ide", identity, slot, bars: [busMaster],
      registers: [
        // IDETIM of the primary and the secondary channel: IDE Decode Enable, and timings.
        PCIOwnRegister(offset: 0x40, value: 0x8000, writable: 0xFFFF),
        PCIOwnRegister(offset: 0x42, value: 0x8000, writable: 0xFFFF),
        // SIDETIM, the slaves' timings, in its low byte.
        PCIOwnRegister(offset: 0x44, value: 0, writable: 0x00FF),
      ])
  }
}
