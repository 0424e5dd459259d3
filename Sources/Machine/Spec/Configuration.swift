import Boot
import Devices
import Host
import Network
import Storage

/// What the builder is given: what a machine shall be, what the host has for it, and how it runs.
package struct Configuration: Sendable {
  /// What it shall be, completed.
  package let spec: VMConfiguration
  let resources: Resources
  let run: RunOptions

  /// Puts them together.
  package init(_ spec: VMConfiguration, _ resources: Resources, _ run: RunOptions = RunOptions()) {
    self.spec = spec.completed()
    self.resources = resources
    self.run = run
  }

  var memorySize: UInt64 { spec.memorySize }
  var vcpuCount: Int { spec.vcpuCount }
  var cpu: CPUModel { spec.cpu }
  var timeLimit: Double? { run.timeLimit }
  var observation: Observation? { run.observation }
  var restartsAtReset: Bool { run.restartsAtReset }

  /// The image, and how it starts.
  struct Image {
    let bytes: [UInt8]
    let name: String
    let isFirmware: Bool
    let options: BootOptions
  }

  var image: Image {
    let image = resources.image ?? Resources.Image([])
    return Image(
      bytes: image.bytes, name: image.name, isFirmware: spec.firmware != nil,
      options: BootOptions(
        mode: spec.mode ?? image.mode, loadAddress: spec.loadAddress,
        initrds: resources.initrds ?? [], commandLine: spec.append))
  }

  private var console: Resources.Console? {
    spec.consoles.isEmpty ? nil : resources.console
  }

  var consoleOutput: ConsoleOutput { console?.output ?? .none }
  var consoleInput: ConsoleInput { console?.input ?? .none }
  var consoleInputDevice: ConsoleInputDevice { spec.consoles.first?.input ?? .serial }

  /// Whether another process is to have its memory.
  var sharesMemory: Bool { spec.devices.contains { $0.disk.socket != nil } }

  /// Refuses what no machine can be, and devices with nothing behind them.
  func check() throws(MachineError) {
    do throws(SpecError) { try spec.check() } catch { throw .configuration(error.message) }
    guard resources.image != nil else { throw .configuration("there is no image to start") }
    for device in spec.devices {
      let isThere =
        switch device.kind {
        case .disk: resources.disks[device.id] != nil || resources.vhostUsers[device.id] != nil
        case .net: resources.networks[device.id] != nil
        case .vsock: resources.vsocks[device.id] != nil
        case .rng, .balloon, .virtioConsole, .testDevice: true
        }
      guard isThere else { throw .configuration("\(device.id): nothing is behind it") }
    }
    if let limit = timeLimit, !(limit > 0 && limit <= 1e9) {
      throw .configuration("a time limit of \(limit) s is impossible: give more than 0")
    }
  }
}
