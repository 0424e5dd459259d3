// All that a user of the library needs of the modules below it; the rest of them is `package`.

// What a machine is
@_exported public import enum Boot.CPUMode
@_exported public import struct Devices.PCIAddress
@_exported public import struct Guests.Guest
@_exported public import struct Guests.OutputPattern
@_exported public import enum Machine.CPUModel
@_exported public import enum Machine.ConsoleInputDevice
@_exported public import struct Machine.VMConfiguration
@_exported public import struct Memory.GuestAddress
@_exported public import struct Network.MACAddress
@_exported public import enum Storage.DiskFormat

// What becomes of it
@_exported public import struct Devices.DeviceStatistics
@_exported public import typealias KVM.Registers
@_exported public import typealias KVM.SpecialRegisters
@_exported public import struct Machine.CrashReport
@_exported public import struct Machine.ExitStatistics
@_exported public import enum Machine.MachineState
@_exported public import enum Machine.Outcome
@_exported public import struct Machine.RunStatistics
@_exported public import struct Machine.VCPUPosition

extension VMConfiguration {
  /// A machine that runs a built-in guest in the mode and with the VCPUs that it is made for.
  public init(guest: Guest) {
    self.init()
    image = Self.guestPrefix + guest.name
    vcpuCount = guest.cpus
  }
}

extension Outcome {
  /// What the guest wrote to the exit port; nil if the run ended otherwise.
  public var exitValue: UInt32? {
    if case .exited(let value) = self { value } else { nil }
  }
}
