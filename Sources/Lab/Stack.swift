extension Experiment {
  /// A disk's driver, its virtual device, what virtualizes it, and what is real.
  static let stack = Experiment(
    withProgram: "stack", "driver, virtual device, virtualization layer, real device",
    "I/O virtualization",
    variables: [
      Variable("sector", "the request's sector", 75, 0...255, seeded: Array(33...250)),
      Variable("cluster", "KiB of a cluster of the overlay", 16, 4...64, isPowerOfTwo: true),
    ],
    transfer: Transfer(
      id: "other-clusters", variable: "cluster", values: [4, 8, 32, 64], fact: "cluster"
    ) { "With clusters of \($0) KiB, in which cluster of the overlay is the request's sector?" }
  ) { report, program throws(LabError) in
    let variation = report.variation
    try Stack(
      StackRun(program, sector: variation["sector"], clusterSize: variation["cluster"] << 10)
    ).tell(&report)
  }
}

/// The experiment `stack`.
struct Stack {
  private let run: StackRun
  private let search: PCISearch

  init(_ run: StackRun) {
    self.run = run
    search = PCISearch(run.search)
  }

  private enum Caption {
    static let disks = "One driver, virtio-pci, and other real disks"
    static let devices = "One real disk, and other virtual devices"
    static let identities = "IDENTIFY DEVICE of the IDE drive, by real disk"
    static let ladder = "One request, step by step: an address on each"
    static let search = "How the driver finds its device: PCI configuration, register by register"
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "Four layers are between a program in the guest and a disk: the guest's driver, the virtual device "
        + "that it drives, the layer that virtualizes the disk, and the real device. Each may be "
        + "replaced without the others noticing. \(StackDisks.sectors) sectors of known contents are "
        + "read through each combination, and the guest sums up what it got.")
    report.table(disks)
    report.table(devices)
    report.table(identities)
    tellIndependence(&report)
    report.picture(StackPicture.draw(run))
    report.table(ladder)
    tellLadder(&report)
    report.table(enumeration)
    report.text(
      "The driver knows no address beforehand. It asks each of 32 devices who it is, and "
        + "\(search.absent) times nobody answers, which reads as ones. What answers says what it is and "
        + "how much room it needs; the driver decides where that is. On a PC the firmware does so, or the "
        + "kernel. All of these registers are kvmlite's: there is no such bus.")
    note(&report)
    ask(&report)
  }

  private func table(_ caption: String, _ first: String, _ findings: [StackRun.Finding]) -> Table {
    var table = Table(
      caption,
      [first, "serial number", "checksum", "as written", "#exits to user space"])
    for finding in findings {
      let isIDE = finding.device == StackRig.Kind.ide.rawValue
      table.add([
        first == "real disk" ? finding.disk : finding.device, Self.serial(finding),
        hex(finding.checksum, 16), finding.checksum == run.contents ? "yes" : "no",
        "\(finding.sample.deviceExits + finding.sample.waits)",
      ])
      if isIDE {
        table.note("IDE reads by PIO: an interrupt, a look and the data for each sector.")
      }
    }
    return table
  }

  /// The serial number: IDE has it in words 10 to 19, with bytes swapped.
  private static func serial(_ finding: StackRun.Finding) -> String {
    var bytes = finding.identity
    if bytes.count == 512 {
      bytes = (0..<20).map { bytes[20 + ($0 ^ 1)] }
    }
    return String(decoding: bytes.filter { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
  }

  private var disks: Table {
    var table = table(Caption.disks, "real disk", run.disks)
    if let reason = run.whyNoDevice {
      table.add(["block device"] + [String](repeating: Table.notMeasured, count: 4))
      table.note("block device: n/a, \(reason).")
    }
    table.note(
      "overlay: a qcow2 image that has each second cluster of \(run.clusterSize >> 10) KiB; its base has "
        + "the others, and other bytes under those. vhost-user: the raw file, in another process.")
    return table
  }

  private var devices: Table {
    var table = table(Caption.devices, "device", run.devices)
    table.note("vhost-user: virtio-pci to the guest, and served by `kvmlite backend block`.")
    return table
  }

  private var identities: Table {
    var table = Table(
      Caption.identities, ["real disk", "#sectors", "serial number", "512 bytes, FNV-1a"])
    for (disk, bytes) in run.identities {
      let sectors = (0..<4).reduce(0) { $0 | Int(bytes[120 + $1]) << ($1 * 8) }
      let finding = StackRun.Finding(
        disk: disk, device: "", identity: bytes, checksum: 0, sample: .init())
      table.add([disk, "\(sectors)", Self.serial(finding), hex(Self.hash(bytes), 16)])
    }
    table.note(
      "vhost-user: no row, for it's virtio alone. The real disks differ in kind, size of file and name; "
        + "none of that is in the 512 bytes.")
    return table
  }

  private static func hash(_ bytes: [UInt8]) -> UInt64 {
    bytes.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  private var checksums: Set<UInt64> { Set((run.disks + run.devices).map(\.checksum)) }
  private var identityHashes: Set<UInt64> { Set(run.identities.map { Self.hash($0.bytes) }) }

  private func tellIndependence(_ report: inout Report) {
    report.heading("What it shows")
    report.text(
      "\(run.disks.count) real disks under one device, \(run.devices.count) devices over one real disk: "
        + (checksums.count == 1 ? "one checksum. " : "\(checksums.count) checksums. ")
        + "The virtual device says \(identityHashes.count == 1 ? "the same" : "different things") of "
        + "itself whatever is behind it. So an image can move from a file to a block device, or to "
        + "another host, and the guest's driver stays as it is; and a guest that has only an IDE driver "
        + "reads the same image as one with virtio.")
  }

  // MARK: The ladder

  private var ladder: Table {
    let rungs = run.ladders
    var table = Table(Caption.ladder, ["step: address"] + rungs.map(\.name))
    func add(_ step: String, _ value: (StackRun.Ladder) -> String) {
      table.add([step] + rungs.map(value))
    }
    add("driver: LBA") { "\($0.sector)" }
    add("ring: guest-physical") { hex($0.guestAddress) }
    add("virtual device: byte of the disk") { "\($0.diskOffset)" }
    add("kvmlite: host-virtual") { hex($0.hostAddress) }
    add("other process: host-virtual") { $0.backEndAddress.map { hex($0) } ?? "" }
    add("layer: cluster + offset") { rung in
      rung.cluster.map { "\($0.number) + \($0.offset)" } ?? ""
    }
    add("layer: which image") { Self.image($0) }
    add("real device: byte of the file") { "\($0.fileOffset)" }
    add("4 bytes there") { hex($0.fileWord & 0xFFFF_FFFF, 8) }
    add("4 bytes in the guest") { hex($0.guestWord & 0xFFFF_FFFF, 8) }
    table.note(
      "guest-physical: the data's descriptor, as the driver wrote it. byte of the disk: LBA x 512. "
        + "host-virtual: where the guest's memory is in the process that copies, this one or "
        + "`kvmlite backend block` (its /proc/PID/maps).")
    table.note(
      "Below the file the host's own file system and driver do the same again: block, sector, real memory."
    )
    return table
  }

  private static func image(_ rung: StackRun.Ladder) -> String {
    guard rung.cluster != nil else {
      return rung.file.split(separator: "/").last.map(String.init) ?? rung.file
    }
    return rung.depth == 0 ? "overlay" : "base"
  }

  private var overlays: [StackRun.Ladder] { run.ladders.filter { $0.cluster != nil } }

  private func tellLadder(_ report: inout Report) {
    guard let first = overlays.first, let last = overlays.last, let cluster = first.cluster else {
      return
    }
    report.text(
      "Two translations meet in each request. That of the buffer is memory virtualization: "
        + "\(hex(first.guestAddress)) in the guest is \(hex(first.hostAddress)) in this process. That of "
        + "the sector is disk virtualization: LBA \(first.sector) is byte \(first.diskOffset), cluster "
        + "\(cluster.number); the overlay's tables say that the \(Self.image(first)) has it, at byte "
        + "\(first.fileOffset) of its file. Sector \(last.sector) is the \(Self.image(last))'s, at byte "
        + "\(last.fileOffset). A raw file needs no table: its byte is the disk's.")
  }

  // MARK: PCI

  private var enumeration: Table {
    var table = Table(
      Caption.search, ["#", "function", "register", "", "value", "in words"])
    for (index, step) in search.steps.enumerated() {
      table.add([
        "\(index + 1)", step.function, hex(UInt64(step.register), 2),
        step.isWrite ? "write" : "read",
        hex(UInt64(step.value), 8), step.meaning,
      ])
    }
    table.note(
      "Each is two accesses: the register's address to port 0xcf8, then port 0xcfc. The \(search.absent) "
        + "devices that aren't there are left out.")
    return table
  }

  // MARK: Facts and questions

  private func note(_ report: inout Report) {
    for finding in run.disks {
      report.note("checksum/disk/" + finding.disk, hex(finding.checksum, 16))
    }
    for finding in run.devices {
      report.note("checksum/device/" + finding.device, hex(finding.checksum, 16))
      report.note(
        "exits/" + finding.device, finding.sample.deviceExits + finding.sample.waits)
    }
    report.note("one_checksum", checksums == [run.contents])
    report.note("one_identity", identityHashes.count == 1)
    report.note("block device", run.whyNoDevice.map { "n/a: \($0)" } ?? "a loop device")
    for rung in run.ladders {
      report.note("disk_offset/" + rung.name, rung.diskOffset)
      report.note("file_offset/" + rung.name, rung.fileOffset)
      report.note("same_bytes/" + rung.name, rung.guestWord == rung.fileWord)
      report.note("image/" + rung.name, Self.image(rung))
    }
    report.note("cluster", overlays.first?.cluster?.number ?? 0)
    report.note("pci/absent", search.absent)
    report.note("pci/steps", search.steps.count)
    report.note("pci/range", search.sizes.values.max() ?? 0)
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "checksums", "How many different checksums came of all these combinations?",
      .number(checksums.count), at: Caption.devices)
    report.ask(
      "identify", "Does IDENTIFY DEVICE change with the real disk?",
      .flag(identityHashes.count != 1), at: Caption.identities)
    if let ide = run.devices.first(where: { $0.device == StackRig.Kind.ide.rawValue }) {
      report.ask(
        "ide-exits", "How many exits to user space does IDE take for all sectors by PIO?",
        .number(ide.sample.deviceExits + ide.sample.waits), at: Caption.devices)
    }
    if let rung = overlays.first {
      report.ask(
        "disk-offset", "At which byte of the virtual disk is the request for LBA \(rung.sector)?",
        .number(rung.diskOffset), at: Caption.ladder)
      report.ask(
        "image", "Which image has its cluster: overlay or base?", .word(Self.image(rung)),
        at: Caption.ladder)
      report.ask(
        "file-offset", "At which byte of that image's file is it?", .number(rung.fileOffset),
        points: 2, at: Caption.ladder)
    }
    report.ask(
      "absent", "How many devices of the bus does the driver ask for in vain?",
      .number(search.absent), at: Caption.search)
    report.ask(
      "range", "How many bytes has the range with virtio's registers?",
      .number(search.sizes.values.max() ?? 0), points: 2, at: Caption.search)
  }
}

/// The picture of `stack`.
enum StackPicture {
  private static let layers: [(name: String, colour: String)] = [
    ("guest's driver", "#d9ead3"), ("virtual device", "#cfe2f3"),
    ("virtualization layer", "#fff2cc"), ("real device", "#f9cb9c"),
  ]

  /// A column for each way down, from the driver to the file, with the request's address in each box.
  static func draw(_ run: StackRun) -> Picture {
    let (left, top, width, gap, height) = (20.0, 78.0, 190.0, 16.0, 58.0)
    let row = height + 36
    var picture = Picture(
      "The same request on \(run.ladders.count) ways down: only the address changes its name.",
      width: left + (width + gap) * Double(run.ladders.count) + 10,
      height: top + row * Double(layers.count) + 6)
    picture.label(left, 24, "One request on its way down", size: 15)
    picture.legend(left, 46, layers.map { ($0.colour, $0.name) })
    for (column, rung) in run.ladders.enumerated() {
      let x = left + (width + gap) * Double(column)
      picture.label(x + width / 2, 70, rung.name, anchor: .middle)
      for (index, lines) in words(rung).enumerated() {
        let y = top + row * Double(index)
        picture.rectangle(x, y, width, height, fill: layers[index].colour, stroke: "#888")
        for (line, text) in lines.enumerated() {
          picture.label(
            x + width / 2, y + 23 + Double(line) * 20, text, size: 12, anchor: .middle,
            isFixed: line == 1)
        }
        if index > 0 { picture.arrow(x + width / 2, y - 33, x + width / 2, y - 3) }
      }
    }
    return picture
  }

  private static func words(_ rung: StackRun.Ladder) -> [[String]] {
    let copies = rung.backEndAddress ?? rung.hostAddress
    let layer: [String] =
      if let cluster = rung.cluster {
        [
          "qcow2: " + (rung.depth == 0 ? "its own" : "the base's"),
          "cluster \(cluster.number) + \(cluster.offset)",
        ]
      } else if rung.backEndAddress != nil {
        ["in another process", "to \(hex(copies))"]
      } else {
        ["nothing to translate", "to \(hex(copies))"]
      }
    return [
      ["LBA \(rung.sector) to", hex(rung.guestAddress)], ["virtio-pci", "byte \(rung.diskOffset)"],
      layer,
      [rung.file.split(separator: "/").last.map(String.init) ?? "", "byte \(rung.fileOffset)"],
    ]
  }
}
