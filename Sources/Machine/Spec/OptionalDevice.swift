/// Devices that a machine has only when asked for.
package enum OptionalDevice: String, CaseIterable, Sendable {
  /// The device that kvm-unit-tests look for, QEMU's pc-testdev. It takes the debug console's place
  /// among the ports.
  case testDevice = "testdev"
  /// Random numbers for the guest: virtio entropy.
  case entropy = "rng"
  /// Memory that the guest gives back: a virtio balloon.
  case balloon
  /// A second console: virtio's.
  case console = "virtio-console"
}
