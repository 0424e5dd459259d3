import Host
import Machine
import Memory
import Storage

extension Experiment {
  /// One base image, three machines, three overlays.
  static let cow = Experiment(
    "cow", "one disk for three machines: a base and copy-on-write overlays",
    "Virtual machine suites",
    variables: [
      Variable(
        "sectors", "sectors that machine A writes; B writes 4 more, C 8", 6, 1...24,
        seeded: [4, 5, 7, 8, 9, 10, 11, 12]),
      Variable("cluster", "KiB of a cluster", 64, 4...64, isPowerOfTwo: true),
    ],
    transfer: Transfer(
      id: "small-clusters", variable: "cluster", values: [4, 8, 16, 32], fact: "amplification"
    ) {
      "With clusters of \($0) KiB, how many bytes of data does the first write of one sector to a "
        + "cluster add to an overlay?"
    }
  ) { report throws(LabError) in
    try CopyOnWrite(report.variation).tell(&report)
  }
}

/// The experiment `cow`.
private struct CopyOnWrite {
  private static let clusters = 64

  /// What clusters are like.
  private struct Geometry {
    let clusterSize: Int
    var sectorsPerCluster: Int { clusterSize / 512 }
  }

  private let geometry: Geometry
  private let machines: [MachineResult]
  private let hashBefore: UInt64
  private let hashAfter: UInt64
  private let baseBytes: Int

  /// What one machine did to its overlay.
  private struct MachineResult {
    let name: String
    /// The sectors that its guest wrote, by the order that it was given.
    let sectors: [Int]
    let geometry: Geometry
    /// The bytes of data that its overlay has.
    let ownedBytes: Int
    /// The clusters that its overlay has of its own.
    let owned: Set<Int>
    let fileBytesBefore: Int
    let fileBytes: Int
    /// Sectors of the disk that are not what they should be: written ones, and the base's others.
    let wrongSectors: Int
    /// What the guest read where nobody had written, and what the base has there.
    let looked: UInt8?
    let lookedExpected: UInt8

    var touched: Set<Int> { Set(sectors.map { $0 / geometry.sectorsPerCluster }) }
  }

  init(_ variation: Variation) throws(LabError) {
    let geometry = Geometry(clusterSize: variation["cluster"] << 10)
    self.geometry = geometry
    let directory = try makeDirectory()
    let base = directory.path + "/base.raw"
    try Self.writeBase(base, geometry)
    baseBytes = geometry.clusterSize * Self.clusters
    hashBefore = try Self.hash(base)
    var machines: [MachineResult] = []
    for (index, name) in ["A", "B", "C"].enumerated() {
      machines.append(
        try Self.run(
          name, index, geometry, base, directory.path,
          sectors: variation["sectors"] + 4 * index, variation.random(UInt64(index) + 1)))
    }
    self.machines = machines
    hashAfter = try Self.hash(base)
  }

  // MARK: Images

  /// The byte that the base has all over a cluster.
  private static func baseByte(_ cluster: Int) -> UInt8 { UInt8(0x40 + cluster) }

  private static func writeBase(_ path: String, _ geometry: Geometry) throws(LabError) {
    try host { () throws(Errno) in
      let file = try OutputFile(path)
      for cluster in 0..<clusters {
        try file.write([UInt8](repeating: baseByte(cluster), count: geometry.clusterSize))
      }
      try file.commit()
    }
  }

  private static func contents(_ path: String) throws(LabError) -> [UInt8] {
    try host { () throws(Errno) in
      let file = try FileDescriptor(opening: path, [.readOnly])
      var bytes: [UInt8] = []
      while true {
        let more = try file.read(atMost: 1 << 20)
        guard !more.isEmpty else { return bytes }
        bytes += more
      }
    }
  }

  /// FNV-1a of a file's bytes.
  private static func hash(_ path: String) throws(LabError) -> UInt64 {
    try contents(path).reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  private static func size(_ path: String) throws(LabError) -> Int {
    try host { () throws(Errno) in
      try FileDescriptor(opening: path, [.readOnly]).status().count
    }
  }

  private static func disk<Result>(
    _ body: () throws(DiskError) -> Result
  ) throws(LabError) -> Result {
    do { return try body() } catch { throw .unexpected("\(error)") }
  }

  // MARK: A machine

  private static func run(
    _ name: String, _ index: Int, _ geometry: Geometry, _ base: String, _ directory: String,
    sectors count: Int, _ random: RandomNumbers
  ) throws(LabError) -> MachineResult {
    let path = "\(directory)/\(name).qcow2"
    var new = DiskImage.NewImage()
    new.base = base
    new.baseFormat = .raw
    new.clusterSize = UInt64(geometry.clusterSize)
    let image = new
    _ = try disk { () throws(DiskError) in try DiskImage.create(path, image) }
    let before = try size(path)
    var random = random
    let sectorsPerCluster = geometry.sectorsPerCluster
    let all = UInt64(clusters * sectorsPerCluster)
    let sectors = (0..<count).map { _ in Int(random.next() % all) }
    let written = Set(sectors.map { $0 / sectorsPerCluster })
    let looked = (0..<clusters).first { !written.contains($0) } ?? 0
    let output = try runGuest(
      path, fill: UInt8(ascii: "A") + UInt8(index), sectors, looked: looked * sectorsPerCluster)
    var options = DiskImage.Options()
    options.isReadOnly = true
    let reading = options
    let store = try disk { () throws(DiskError) in try DiskImage.open(path, reading).store }
    let (owned, ownedBytes) = try owned(store, geometry)
    return MachineResult(
      name: name, sectors: sectors, geometry: geometry, ownedBytes: ownedBytes, owned: owned,
      fileBytesBefore: before,
      fileBytes: try size(path),
      wrongSectors: try wrongSectors(
        store, geometry, Set(sectors), UInt8(ascii: "A") + UInt8(index)),
      looked: output.first, lookedExpected: baseByte(looked))
  }

  /// Runs the guest on the disk at `path`, and returns what it printed.
  private static func runGuest(
    _ path: String, fill: UInt8, _ sectors: [Int], looked: Int
  ) throws(LabError) -> [UInt8] {
    var image = try labGuest("cow").image
    let words = [UInt32(fill) &* 0x0101_0101, UInt32(looked), UInt32(sectors.count)]
    // Where guest-asm/lab/cow.S has them.
    for (index, word) in (words + sectors.map { UInt32($0) }).enumerated() {
      for byte in 0..<4 {
        image[16 + index * 4 + byte] = UInt8(truncatingIfNeeded: word >> UInt32(byte * 8))
      }
    }
    let store = try disk { () throws(DiskError) in
      try DiskImage.open(path, DiskImage.Options()).store
    }
    let console = ConsoleBuffer()
    var configuration = VMConfiguration()
    configuration.memorySize = 16 << 20
    configuration.devices = [.init(.disk(.init(bus: .ide)), id: "disk0")]
    var resources = Resources(
      image: .init(image, name: "cow", mode: .protected), console: console)
    resources.disks["disk0"] = store
    let outcome: Outcome
    do { outcome = try Machine(configuration, resources, RunOptions(timeLimit: 60)).run() } catch {
      throw .unexpected("\(error)")
    }
    guard case .halted = outcome else {
      throw .unexpected("the guest of cow ended with status \(outcome.exitStatus)")
    }
    return console.bytes
  }

  /// The clusters that the image on top has itself.
  private static func owned(
    _ store: any BlockStore, _ geometry: Geometry
  ) throws(LabError) -> (clusters: Set<Int>, bytes: Int) {
    var owned: Set<Int> = []
    var bytes = 0
    let clusterSize = geometry.clusterSize
    let error = DiskMap.forEach(of: store) { (extent: DiskExtent) in
      guard extent.depth == 0, extent.kind == .data else { return }
      bytes += Int(extent.count)
      let first = Int(extent.start) / clusterSize
      owned.formUnion(first..<first + Int(extent.count) / clusterSize)
    }
    if let error { throw .unexpected("\(error)") }
    return (owned, bytes)
  }

  private static func wrongSectors(
    _ store: any BlockStore, _ geometry: Geometry, _ written: Set<Int>, _ fill: UInt8
  ) throws(LabError) -> Int {
    let memory = try host { () throws(Errno) in
      try GuestMemory(ramSize: UInt64(geometry.clusterSize * clusters))
    }
    let view = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try memory.view(at: 0, count: memory.ramSize)
    }
    do { try store.read(into: [view], at: 0) } catch { throw .unexpected("\(error)") }
    var wrong = 0
    for sector in 0..<clusters * geometry.sectorsPerCluster {
      let byte = written.contains(sector) ? fill : baseByte(sector / geometry.sectorsPerCluster)
      let word = UInt64(byte) &* 0x0101_0101_0101_0101
      if (0..<64).contains(where: { view.load(sector * 512 + $0 * 8, as: UInt64.self) != word }) {
        wrong += 1
      }
    }
    return wrong
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "One base image of \(baseBytes >> 10) KiB, three machines. Each has an overlay of its own: a qcow2 "
        + "image that names the base and holds only what is different. Each guest writes sectors of 512 "
        + "bytes over IDE and reads one that it has not written.")
    report.table(table)
    report.table(map)
    report.heading("What it shows")
    let same = hashBefore == hashAfter
    report.text(
      "The base's hash was \(hex(hashBefore, 16)) before and \(hex(hashAfter, 16)) after: "
        + (same ? "nobody changed it. " : "it was changed! ")
        + "A write of one sector to a cluster that the overlay doesn't have brings the whole cluster of "
        + "\(geometry.clusterSize >> 10) KiB with it: the rest is copied from the base. So "
        + machines.map {
          "\($0.sectors.count * 512) bytes became \($0.owned.count * geometry.clusterSize >> 10) KiB"
        }.joined(separator: ", ") + ".")
    let stored = machines.reduce(baseBytes) { $0 + $1.fileBytes }
    report.text(
      "Base and overlays take \(stored >> 10) KiB; three full copies would take "
        + "\(3 * baseBytes >> 10) KiB. This is how snapshots, clones and templates of machines are made. "
        + "It holds on every back end: the processor has no part in it.")
    report.picture(picture)
    report.note("base_same", same)
    report.note("base_hash", hex(hashBefore, 16))
    for machine in machines {
      report.note("owned/\(machine.name)", machine.owned.count)
      report.note("owned_as_written/\(machine.name)", machine.owned == machine.touched)
      report.note("wrong_sectors/\(machine.name)", machine.wrongSectors)
      report.note("file_bytes/\(machine.name)", machine.fileBytes)
      report.note("saw_base/\(machine.name)", machine.looked == machine.lookedExpected)
    }
    report.note("stored_bytes", stored)
    report.note("amplification", amplification)
    ask(&report)
  }

  /// The bytes of data in an overlay for each cluster that its machine wrote to.
  private var amplification: Int {
    let touched = machines.reduce(0) { $0 + $1.touched.count }
    return machines.reduce(0) { $0 + $1.ownedBytes } / max(1, touched)
  }

  private var table: Table {
    var table = Table(
      "The three machines",
      [
        "machine", "#bytes written", "#clusters of its own", "#KiB of them", "#file before, KiB",
        "#file after, KiB", "#wrong sectors", "unwritten sector",
      ])
    for machine in machines {
      table.add([
        machine.name, "\(machine.sectors.count * 512)", "\(machine.owned.count)",
        "\(machine.owned.count * geometry.clusterSize >> 10)", "\(machine.fileBytesBefore >> 10)",
        "\(machine.fileBytes >> 10)", "\(machine.wrongSectors)",
        machine.looked == machine.lookedExpected ? "the base's" : "not the base's",
      ])
    }
    table.note(
      "wrong sectors: all \(Self.clusters * geometry.sectorsPerCluster) of each disk, held against what was "
        + "written and the base.")
    return table
  }

  private var map: Table {
    var table = Table(
      "Whose cluster it is (. the base's, the letter of the machine for its own)",
      ["machine", "=clusters 0 to \(Self.clusters - 1)"])
    for machine in machines {
      let cells = (0..<Self.clusters).map { machine.owned.contains($0) ? machine.name : "." }
      table.add([machine.name, cells.joined()])
    }
    return table
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "base-same", "Is the base the same file, byte for byte, afterwards?",
      .flag(hashBefore == hashAfter), at: "What it shows")
    for machine in machines {
      report.ask(
        "clusters-\(machine.name)", "How many clusters has the overlay of machine \(machine.name)?",
        .number(machine.owned.count), at: "The three machines")
    }
    report.ask(
      "amplification",
      "How many bytes of data does the first write of one sector to a cluster add to an overlay?",
      .number(amplification), points: 2, at: "The three machines")
  }

  private var picture: Picture {
    let (left, cell) = (90.0, 12.0)
    var picture = Picture(
      "Clusters of the base and of the three overlays; grey ones are read from the base.",
      width: left + Double(Self.clusters) * cell + 20, height: 220)
    picture.label(12, 22, "Copy on write", size: 15)
    picture.legend(
      left + 60, 24,
      [
        (Picture.colours[0], "A's own"), (Picture.colours[1], "B's own"),
        (Picture.colours[2], "C's own"), ("#eeeeee", "read from the base"), ("#bbbbbb", "the base"),
      ])
    for (row, machine) in machines.enumerated() {
      let y = 40 + Double(row) * 40
      picture.label(12, y + 18, "overlay \(machine.name)")
      for cluster in 0..<Self.clusters {
        let isOwned = machine.owned.contains(cluster)
        picture.rectangle(
          left + Double(cluster) * cell, y, cell - 1, 26,
          fill: isOwned ? Picture.colours[row] : "#eeeeee",
          tip: "cluster \(cluster): \(isOwned ? machine.name : "the base")")
      }
    }
    picture.label(12, 178, "base")
    for cluster in 0..<Self.clusters {
      picture.rectangle(left + Double(cluster) * cell, 160, cell - 1, 26, fill: "#bbbbbb")
    }
    for cluster in stride(from: 0, to: Self.clusters, by: 8) {
      picture.label(left + Double(cluster) * cell, 204, "\(cluster)", size: 11)
    }
    return picture
  }
}
