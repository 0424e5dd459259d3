import ArgumentParser
import Glibc
import Host
import Sandbox
import Storage

/// `kvmlite disk`: makes disk images and looks after them.
struct DiskCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disk", abstract: "Make disk images, look into them, mend and convert them.",
    discussion: """
      Images are raw, the disk's bytes as they are, or qcow2, QEMU's copy-on-write format: it \
      takes the space of what was written, and can be an overlay that keeps only what differs from \
      another image, its base. A base must not change while it has overlays.

      A typical start: kvmlite disk create --backing debian.qcow2 vm1.qcow2; kvmlite --disk \
      vm1.qcow2 ...

      Exit status: 0 done, 64 wrong options or a file that would be overwritten, 65 malformed or \
      damaged image, 66 unreadable image or in use, 71 the host failed.
      """,
    subcommands: [
      Create.self, Info.self, Check.self, Map.self, Convert.self, Commit.self, Rebase.self,
    ])

  /// Runs `body`; a disk's error becomes a message and a status. An image may be anybody's: from here on
  /// this process does nothing but what disks need, and without `writes` it changes no file.
  static func reporting(
    writes: Bool = true, _ body: () throws(DiskError) -> Void
  ) throws {
    RunSandbox.tell(
      Confinement.enterFilter(SystemCalls.diskFilter(process: getpid(), writes: writes)))
    do throws(DiskError) { try body() } catch {
      let failure = Failure(error)
      Message.error(failure.message)
      throw ExitCode(failure.status)
    }
  }

  /// The format that a new image's name asks for.
  static func format(_ told: DiskFormat?, of path: String) throws(DiskError) -> DiskFormat {
    if let told { return told }
    if path.hasSuffix(".qcow2") { return .qcow2 }
    if path.hasSuffix(".raw") || path.hasSuffix(".img") { return .raw }
    throw DiskError(
      usage: path, "its name doesn't say which format is wanted: --format raw or --format qcow2")
  }

  /// Writes a line to standard output, or ends the command where that can't be written.
  static func say(_ text: String) {
    do { try Message.output(text + "\n") } catch { exit(withError: error) }
  }

  /// `disk create`.
  struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make an empty disk image, or an overlay on another.",
      discussion: """
        For example:
          kvmlite disk create --size 20G data.qcow2
          kvmlite disk create --backing debian.qcow2 vm1.qcow2

        An overlay is as large as its base without --size. The base's name is kept as it is given: a \
        relative one is relative to the overlay's directory.
        """)

    @Argument(help: "The image to be made.")
    var path: String

    @Option(name: .shortAndLong, help: "The disk's size: a number with K, M, G or T.")
    var size: MemorySize?

    @Option(
      name: .shortAndLong, help: ArgumentHelp("The image it is an overlay on.", valueName: "base"))
    var backing: String?

    @Option(help: ArgumentHelp("The base's format. (default: by its magic number)"))
    var backingFormat: DiskFormat?

    @Option(help: "The format: raw or qcow2. (default: by the name; qcow2 for an overlay)")
    var format: DiskFormat?

    @Option(help: "The size of a cluster of qcow2: 512 to 2M. (default: 64K)")
    var clusterSize: MemorySize?

    @Flag(help: "Replace a file that is there already.")
    var force = false

    func run() throws {
      try reporting { () throws(DiskError) in
        var new = DiskImage.NewImage()
        new.format =
          if backing != nil && format == nil { .qcow2 } else {
            try DiskCommand.format(format, of: path)
          }
        new.size = size?.bytes
        new.base = backing
        new.baseFormat = backingFormat
        new.clusterSize = clusterSize?.bytes ?? new.clusterSize
        new.replaces = force
        let bytes = try DiskImage.create(path, new)
        Message.note("made \(path): \(new.format.rawValue), \(byteCount(bytes))")
      }
    }
  }

  /// `disk convert`.
  struct Convert: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Copy a disk to a new image, of the same or the other format.",
      discussion: """
        For example:
          kvmlite disk convert vm1.qcow2 vm1.raw

        The new image stands on its own: what the old one's bases held is copied into it. Zeros take \
        no space. It gets its name only when it is whole.
        """)

    @Argument(help: "The image to be read.")
    var input: String

    @Argument(help: "The image to be made.")
    var output: String

    @Option(help: "The new image's format: raw or qcow2. (default: by its name)")
    var format: DiskFormat?

    @Option(help: "The old image's format. (default: by its magic number)")
    var inputFormat: DiskFormat?

    @Option(help: "The size of a cluster of qcow2: 512 to 2M. (default: 64K)")
    var clusterSize: MemorySize?

    @Flag(help: "Replace a file that is there already.")
    var force = false

    func run() throws {
      try reporting { () throws(DiskError) in
        var new = DiskImage.NewImage()
        new.format = try DiskCommand.format(format, of: output)
        new.clusterSize = clusterSize?.bytes ?? new.clusterSize
        new.replaces = force
        var bar = ProgressBar()
        defer { bar.end() }
        try DiskImage.convert(input, format: inputFormat, to: output, new) { bar.show($0, of: $1) }
      }
    }
  }

  /// `disk commit`.
  struct Commit: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write an overlay's contents into its base, and empty the overlay.",
      discussion: """
        For example:
          kvmlite disk commit vm1.qcow2

        Everything else that has the same base is damaged by it: a commit is for a base that has one \
        overlay. An interrupted commit loses nothing; do it again.
        """)

    @Argument(help: "The overlay.")
    var path: String

    func run() throws {
      try reporting { () throws(DiskError) in
        var bar = ProgressBar()
        defer { bar.end() }
        let bytes = try DiskImage.commit(path) { bar.show($0, of: $1) }
        bar.end()
        Message.note("wrote \(byteCount(bytes)) of \(path) into its base; it is empty now")
      }
    }
  }

  /// `disk rebase`.
  struct Rebase: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Put an overlay on another base, or on none.",
      discussion: """
        For example:
          kvmlite disk rebase --backing new-base.qcow2 vm1.qcow2
          kvmlite disk rebase --no-backing vm1.qcow2
          kvmlite disk rebase --unsafe --backing moved/debian.qcow2 vm1.qcow2

        What the disk holds stays the same: what differs between the old base and the new one is \
        copied into the overlay. With --unsafe only the base's name is changed, for a base that was \
        moved; with a base of other contents that damages the disk.
        """)

    @Argument(help: "The overlay.")
    var path: String

    @Option(name: .shortAndLong, help: ArgumentHelp("The new base.", valueName: "base"))
    var backing: String?

    @Flag(help: "No base: the image holds all of the disk itself.")
    var noBacking = false

    @Option(help: "The new base's format. (default: by its magic number)")
    var backingFormat: DiskFormat?

    @Flag(help: "Change only the name.")
    var unsafe = false

    func validate() throws {
      guard (backing != nil) != noBacking else {
        throw ValidationError("one of --backing BASE and --no-backing is needed")
      }
    }

    func run() throws {
      try reporting { () throws(DiskError) in
        var bar = ProgressBar()
        defer { bar.end() }
        try DiskImage.rebase(
          path, to: backing, format: backingFormat, isUnsafe: `unsafe`
        ) { bar.show($0, of: $1) }
      }
    }
  }
}

extension DiskFormat: ExpressibleByArgument {}

/// A number of bytes for people: `20 GiB`.
func byteCount(_ bytes: UInt64) -> String {
  let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  var unit = 0
  while unit + 1 < units.count, bytes >> UInt64(10 * (unit + 1)) > 0 { unit += 1 }
  let shift = UInt64(10 * unit)
  let whole = bytes >> shift
  let tenths = unit == 0 ? 0 : ((bytes >> (shift - 10) & 1023) * 10) >> 10
  return tenths == 0 ? "\(whole) \(units[unit])" : "\(whole).\(tenths) \(units[unit])"
}
