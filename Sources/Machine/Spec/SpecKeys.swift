import Boot
import Devices
import Memory
import Network
import Storage

/// The tables of keys: what a spec may say. Reading, printing, the settings of options and docs/spec.md
/// all come from them.
package enum SpecKeys {
  typealias Device = VMConfiguration.Device

  static let machine = SpecTable<VMConfiguration>(
    "machine", "the machine",
    [
      .init("version", constant: .unsigned(1), "the version of this format"),
      .init(
        "image", \.image, .path,
        "a path, or guest:NAME for a built-in guest; guest:hello-real without it"),
      .init("firmware", \.firmware, .path, "a PC's firmware, which starts instead of an image"),
      .init("mode", \.mode, .word, "the mode that a flat image starts in; real without it"),
      .init(
        "loadAddress", \.loadAddress, .address, "where a flat image is loaded; 0x10000 without it"),
      .init(
        "initrds", \.initrds, .list(of: .path, most: 64, "a list of paths"), usual: [],
        "Linux's initial RAM disks, or another kernel's modules; for Multiboot a module's arguments "
          + "may follow its path and a space"),
      .init(
        "append", \.append, .text("a text"), "what the kernel is told, after the defaults"),
      .init("memory", \.memorySize, .memorySize, "RAM, in multiples of 4K; 128M without it"),
      .init("cpus", \.vcpuCount, .number(1...1_000_000), "how many VCPUs it has; 1 without it"),
      .init("cpu", \.cpu, .word, "the processors' features; host without it"),
      .init(
        "consoles", \.consoles,
        .list(
          of: .object(console, from: VMConfiguration.Console()), most: 16, "a list of consoles"),
        "one console, or none; one at stdio without it"),
      .init(
        "virtioBus", \.virtioBus, .word,
        "the bus of all virtio devices that name none; pci without it"),
      .init(
        "limits", \.limits, .object(limits, from: VMConfiguration.Limits()),
        usual: VMConfiguration.Limits(), "what the host gives it at most; anything without it"),
      .init(
        "devices", \.devices, .list(of: device, most: 256, "a list of devices"),
        "devices that not every machine has, in the order the guest finds them"),
    ])

  static let console = SpecTable<VMConfiguration.Console>(
    "console", "where the guest's consoles are",
    [
      .init("id", \.id, .id, "its name; console0 without it"),
      .init("input", \.input, .word, "what is typed goes there; serial without it"),
      .init(
        "backend",
        [
          .init("stdio", \.isStandard, .flag, usual: false, "standard input and output"),
          .init("pty", \.isTerminal, .flag, usual: false, "a new pseudo terminal"),
          .init("wait", \.waits, .flag, usual: false, "the guest starts when that was opened"),
          .init("path", \.path, .path, "a file that it prints to"),
          .init("fd", \.descriptor, .descriptor, "an open file of kvmlite's, instead"),
        ], "one of these; nowhere without it"),
    ])

  /// A type of devices: its table, and a device with nothing said.
  struct DeviceType: Sendable {
    let table: SpecTable<Device>
    let start: Device
  }

  /// The types of devices.
  static let devices: [DeviceType] = [
    disk, net, vsock, rng, balloon, virtioConsole, testDevice,
  ]

  private static func device(
    _ kind: VMConfiguration.Kind, _ words: String, _ keys: [SpecKey<Device>] = []
  ) -> DeviceType {
    let common: [SpecKey<Device>] = [
      .init("id", \.id, .id, "its name; the type and a number without it"),
      .init("type", constant: .string(kind.name), "what it is"),
    ]
    let place = SpecKey<Device>(
      "place", \.place, .place, "where the guest finds it; the next free place without it")
    let hasPlace = !VMConfiguration().places(for: Device(kind)).isEmpty
    return DeviceType(
      table: SpecTable(kind.name, words, common + (hasPlace ? [place] : []) + keys),
      start: Device(kind))
  }

  static let disk = device(
    .disk(.init()), "a disk",
    [
      .init("bus", \.disk.bus, .word, "what the guest reaches it by; virtio without it"),
      .init("serial", \.disk.serial, .serial, usual: "", "its serial number"),
      .init(
        "backend",
        [
          .init("path", \.disk.path, .path, "an image or a block device"),
          .init("fd", \.disk.descriptor, .descriptor, "instead of a path: one that is open"),
          .init("format", \.disk.format, .word, "the image's format; found out without it"),
          .init("readonly", \.disk.isReadOnly, .flag, usual: false, "the guest can't write"),
          .init(
            "snapshot", \.disk.isSnapshot, .flag, usual: false,
            "what the guest writes is thrown away"),
          .init(
            "socket", \.disk.socket, .path, "instead of a path: where vhost-user serves the disk"),
        ], "what is in it"),
    ])

  static let net = device(
    .net(.init()), "a network card",
    [
      .init("mac", \.net.mac, .mac, "its address; the same each time without it"),
      .init(
        "mtu", \.net.mtu, .number(VirtioNet.possibleMTUs),
        "the largest packet it is advised to send"
      ),
      .init(
        "backend",
        [
          .init("user", \.net.isUser, .flag, usual: false, "passt, which needs no rights"),
          .init("tap", \.net.tap, .interface, "instead: a TAP interface"),
          .init("fd", \.net.descriptor, .descriptor, "instead: an open queue of a TAP interface"),
          .init(
            "queues", \.net.queueCount, .number(1...16), usual: 1,
            "how many pairs of queues that has; 1 without it"),
        ], "where frames go"),
    ])

  static let vsock = device(
    .vsock(.init(cid: 0)), "streams between programs of the guest and of the host",
    [
      .init(
        "cid", \.vsock.cid, .number(VirtioVsock.possibleCIDs), required: true, "the guest's address"
      ),
      .init(
        "backend",
        [
          .init("socket", \.vsock.socket, .path, "where the host's programs connect"),
          .init("fd", \.vsock.descriptor, .descriptor, "instead: a socket that listens already"),
        ],
        "the host's side"),
    ])

  static let rng = device(.rng, "random numbers")

  static let balloon = device(
    .balloon(.init()), "memory that the guest gives back",
    [.init("target", \.balloon.target, .size, usual: 0, "how much it is asked for; 0 without it")])

  static let virtioConsole = device(
    .virtioConsole, "a second console, which prints where the first does")

  static let testDevice = device(.testDevice, "the device that kvm-unit-tests look for")

  /// All keys of all objects, in the order of the docs.
  package static var rows: [SpecRow] {
    machine.rows + limits.rows + console.rows + devices.flatMap(\.table.rows)
  }

  // MARK: Devices

  /// A device, whose type says which table it has.
  static let device = SpecType<Device>(
    words: "a device",
    read: { (json) throws(SpecError) in
      guard json.members != nil else { return nil }
      let names = devices.map(\.table.name)
      guard let type = json["type"] else {
        throw SpecError(
          "the key 'type' is missing: one of " + names.joined(separator: ", "), at: json.position)
      }
      guard case .string(let name) = type.value, let index = names.firstIndex(of: name) else {
        let hint =
          if case .string(let name) = type.value { Spelling.hint(name, among: names) } else { "" }
        throw SpecError(
          "a device's type is one of " + names.joined(separator: ", ") + hint, at: type.position)
      }
      var device = devices[index].start
      try devices[index].table.read(json, into: &device)
      return device
    },
    print: { device in
      JSON(.object(type(device.kind.name)?.table.print(device) ?? []))
    })

  /// The type called `name`; nil if there is none.
  static func type(_ name: String) -> DeviceType? { devices.first { $0.table.name == name } }
}

// MARK: Types

extension SpecType where Value == String {
  fileprivate static let id = text(
    "an id of up to 32 letters, digits, '-', '_' and '.'", most: 32
  ) { byte in
    switch Character(Unicode.Scalar(byte)) {
    case "a"..."z", "A"..."Z", "0"..."9", "-", "_", ".": true
    default: false
    }
  }
  /// virtio and ATA have room for twenty characters.
  fileprivate static let serial = text(
    "up to 20 ASCII characters", most: 20
  ) { (0x20..<0x7F).contains($0) }
  /// Names of interfaces have up to 15 bytes.
  fileprivate static let interface = text(
    "an interface's name of up to 15 characters", most: 15
  ) { $0 > 0x20 && $0 != 0x2F && $0 != 0x7F }
}

extension SpecType where Value == MACAddress {
  fileprivate static let mac = spelled(
    "a card's address such as 52:54:00:12:34:56", { MACAddress($0) }, { $0.description })
}

extension SpecType where Value == VMConfiguration.Place {
  fileprivate static let place = spelled(
    "a place such as 00:02.0, mmio0 or ide0", { VMConfiguration.Place($0) }, { $0.description })
}

extension SpecType where Value == GuestAddress {
  /// Decimal, or hexadecimal after 0x; in JSON a number or a text.
  fileprivate static let address = SpecType(
    words: "an address such as \"0x10000\"",
    read: { (json) throws(SpecError) in
      switch json.value {
      case .unsigned(let value): GuestAddress(value)
      case .string(let text): GuestAddress(spelled: text)
      default: nil
      }
    },
    print: { JSON(.string($0.description)) })
}

extension GuestAddress {
  /// The address that `text` spells: decimal, or hexadecimal after 0x; nil for anything else.
  package init?(spelled text: String) {
    let isHex = text.hasPrefix("0x") || text.hasPrefix("0X")
    guard let value = isHex ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text) else {
      return nil
    }
    self.init(value)
  }
}

extension VMConfiguration.Place: CustomStringConvertible {
  /// The place that `text` names, such as `00:02.0`, `mmio0` or `ide0`.
  package init?(_ text: String) {
    let slot = { (prefix: String) in
      text.hasPrefix(prefix) ? UInt8(text.dropFirst(prefix.count)).map(Int.init) : nil
    }
    if let number = slot("mmio"), number < 32 {
      self = .mmio(number)
    } else if let number = slot("ide"), number < IDEController.mostDisks {
      self = .ide(number)
    } else {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2, parts[0] == "00" else { return nil }
      let numbers = parts[1].split(separator: ".", omittingEmptySubsequences: false)
      guard numbers.count == 2, numbers[0].count == 2, numbers[1].count == 1,
        let device = UInt8(numbers[0], radix: 16), let function = UInt8(numbers[1]),
        device < 32, function < 8
      else { return nil }
      self = .pci(PCIAddress(device: device, function: function))
    }
  }

  /// Its name.
  public var description: String {
    switch self {
    case .pci(let address): address.description
    case .mmio(let slot): "mmio\(slot)"
    case .ide(let drive): "ide\(drive)"
    }
  }
}
