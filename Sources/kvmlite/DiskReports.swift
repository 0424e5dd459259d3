import ArgumentParser
import Host
import Storage

extension DiskCommand {
  /// `disk info`.
  struct Info: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Say what an image is, what it is based on and who uses it.",
      discussion: """
        For example:
          kvmlite disk info vm1.qcow2

        Works while the image is in use. With --json it prints an array, the image first, then its \
        base, and so on.
        """)

    @Argument(help: "The image.")
    var path: String

    @Option(help: "Its format. (default: by its magic number)")
    var format: DiskFormat?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      try reporting(writes: false) { () throws(DiskError) in
        var chain: [DiskInformation] = []
        // What is known is told, even where a base is missing.
        defer { if !chain.isEmpty { tell(chain) } }
        try DiskInformation.forEach(of: path, format: format) { chain.append($0) }
      }
    }

    private func tell(_ chain: [DiskInformation]) {
      if json {
        say("[" + chain.map(Self.json).joined(separator: ",\n ") + "]")
      } else {
        say(chain.map(Self.text).joined(separator: "\n\n"))
      }
    }

    private static func text(_ one: DiskInformation) -> String {
      var rows = [
        ("image", printable(one.path)), ("format", one.format.rawValue),
        ("disk size", "\(byteCount(one.size)) (\(one.size) bytes)"),
        ("file's space", byteCount(one.allocated)),
      ]
      if let qcow2 = one.qcow2 {
        rows[1].1 = "qcow2, version \(qcow2.version)"
        rows.append(("clusters", byteCount(qcow2.clusterSize)))
        rows.append(("refcounts", "\(qcow2.refcountBits) bits"))
        rows.append(("compression", qcow2.compression))
        if let base = qcow2.base {
          rows.append(
            ("base", printable(base) + " (\(printable(qcow2.baseFormat ?? "format not told")))"))
        }
        if qcow2.isDirty { rows.append(("state", "not closed; see: kvmlite disk check --repair")) }
        if qcow2.isCorrupt { rows.append(("state", "damaged; see: kvmlite disk check")) }
        if qcow2.baseChanged == true {
          rows.append(("warning", "the base was changed after this was put on it"))
        }
      }
      if !one.users.isEmpty {
        rows.append(("in use by", one.users.map(\.description).joined(separator: ", ")))
      }
      return rows.map { column($0.0, 14) + $0.1 }.joined(separator: "\n")
    }

    private static func json(_ one: DiskInformation) -> String {
      var fields = [
        "\"path\": \(jsonString(one.path))", "\"format\": \(jsonString(one.format.rawValue))",
        "\"size\": \(one.size)", "\"allocated\": \(one.allocated)",
        "\"users\": [\(one.users.map { "\($0.process)" }.joined(separator: ", "))]",
      ]
      if let qcow2 = one.qcow2 {
        fields += [
          "\"version\": \(qcow2.version)", "\"clusterSize\": \(qcow2.clusterSize)",
          "\"refcountBits\": \(qcow2.refcountBits)",
          "\"compression\": \(jsonString(qcow2.compression))",
          "\"base\": \(qcow2.base.map(jsonString) ?? "null")",
          "\"basePath\": \(qcow2.basePath.map(jsonString) ?? "null")",
          "\"baseFormat\": \(qcow2.baseFormat.map(jsonString) ?? "null")",
          "\"baseChanged\": \(qcow2.baseChanged.map { "\($0)" } ?? "null")",
          "\"dirty\": \(qcow2.isDirty)", "\"corrupt\": \(qcow2.isCorrupt)",
        ]
      }
      return "{" + fields.joined(separator: ", ") + "}"
    }
  }

  /// `disk check`.
  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Look for damage in a qcow2 image.",
      discussion: """
        For example:
          kvmlite disk check --repair vm1.qcow2

        Lost space is harmless: it is what a power cut may leave. With --repair it is freed, and \
        wrong refcounts and flags are set right; that loses nothing. What an image can't find any \
        longer stays as it is.

        Exit status: 0 if nothing is wrong (or was mended), 65 if the image is damaged.
        """)

    @Argument(help: "The image.")
    var path: String

    @Flag(help: "Mend what can be mended.")
    var repair = false

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      var isSound = true
      try reporting(writes: repair) { () throws(DiskError) in
        let found = try DiskCheck.run(path, repairs: repair)
        var left = found
        if found.isRepaired { left = try DiskCheck.run(path, repairs: false) }
        isSound = left.isSound
        if json { say(Self.json(found, left)) } else { Self.tell(found, left) }
      }
      if !isSound { throw ExitCode(65) }
    }

    private static func tell(_ found: DiskCheck, _ left: DiskCheck) {
      for text in found.complaints { say(text) }
      if found.complaintCount > found.complaints.count {
        say("and \(found.complaintCount - found.complaints.count) more")
      }
      if found.isMarkedDirty { say("It was not closed: its refcounts may be wrong.") }
      if found.isMarkedCorrupt { say("Somebody found it damaged before.") }
      if found.leakedClusters > 0 {
        say("\(found.leakedClusters) clusters of the file are lost space, which is harmless.")
      }
      if found.hasBitmaps { say("It has dirty bitmaps of QEMU's; lost space isn't looked for.") }
      if found.isRepaired {
        say(
          left.isSound
            ? "Mended."
            : "\(left.complaintCount) things can't be mended: copy what is left with kvmlite disk "
              + "convert.")
      } else if found.isSound {
        say("Nothing is wrong: \(found.dataClusters + found.compressedClusters) clusters of data.")
      } else {
        say("The image is damaged: \(found.complaintCount) things are wrong.")
      }
    }

    private static func json(_ found: DiskCheck, _ left: DiskCheck) -> String {
      """
      {"sound": \(left.isSound), "repaired": \(found.isRepaired), "wrong": \(found.complaintCount), \
      "lost": \(found.lost), "wrongRefcounts": \(found.wrongRefcounts), \
      "wrongFlags": \(found.wrongFlags), "leaked": \(found.leakedClusters), \
      "wrongAfter": \(left.complaintCount), "leakedAfter": \(left.leakedClusters), \
      "data": \(found.dataClusters), "compressed": \(found.compressedClusters), \
      "zero": \(found.zeroClusters), "imageEnd": \(found.imageEnd), \
      "complaints": [\(found.complaints.map(jsonString).joined(separator: ", "))]}
      """
    }
  }

  /// What an image says, without what would move a terminal's cursor.
  static func printable(_ text: String) -> String {
    String(
      String.UnicodeScalarView(
        text.unicodeScalars.map { $0.value < 0x20 || (0x7F..<0xA0).contains($0.value) ? "?" : $0 }))
  }
}
