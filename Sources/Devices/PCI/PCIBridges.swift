import Host

extension PCIFunction {
  /// The host bridge, at 00:00.0: what a kernel looks for to know that there is a bus. It has nothing
  /// to be set.
  package static func hostBridge(_ platform: PCIPlatform) throws(Errno) -> PCIFunction {
    // The identity of the host bridge that QEMU made for machines that copy no chip set.
    let identity = PCIIdentity(vendor: 0x1B36, device: 0x0008, kind: .hostBridge)
    return PCIFunction(name: "host-bridge", identity, try PCISlot(platform))
  }

  /// The ISA bridge of Intel's PIIX3, whose second function is the IDE controller. ISA's devices are
  /// there without it.
  package static func isaBridge(_ platform: PCIPlatform) throws(Errno) -> PCIFunction {
    let identity = PCIIdentity(vendor: 0x8086, device: 0x7000, kind: .isaBridge)
    return PCIFunction(name: "isa-bridge", identity, try PCISlot(platform))
  }
}
