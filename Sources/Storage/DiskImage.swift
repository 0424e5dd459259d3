import Host
import Memory

/// The formats of disk images.
public enum DiskFormat: String, CaseIterable, Sendable {
  /// The disk's bytes as they are.
  case raw
  /// QEMU's copy-on-write format, version 2 or 3.
  case qcow2
}

/// Opens disk images.
package enum DiskImage {
  /// How an image is opened.
  package struct Options: Sendable {
    /// Its format; nil to look for the magic number of qcow2.
    package var format: DiskFormat?
    /// Whether writes are refused.
    package var isReadOnly = false
    /// Whether writes are kept beside the image, and thrown away in the end.
    package var isSnapshot = false
    /// The open file, by number, that is the image, which isn't opened by its name then.
    package var descriptor: Int32?
    /// Whether the locks of those who use the image are ignored, for a look at it.
    package var ignoresLocks = false

    /// To be read and written, its format looked for.
    package init() {}
  }

  /// An image that was opened.
  package struct Opened: Sendable {
    /// What is in it.
    package let store: any BlockStore
    /// Its format.
    package let format: DiskFormat
    /// What its user should know, in words.
    package let warnings: [Advice]
    /// What it is based on.
    package let bases: BaseWatch
    /// Its own file and those of what it is based on.
    let files: [HostDiskFile]
  }

  /// How many images may be under one another.
  static let deepestChain = 64

  /// Opens the image called `path`, with what it is based on, and locks all of them.
  package static func open(_ path: String, _ options: Options) throws(DiskError) -> Opened {
    var chain = Chain(ignoresLocks: options.ignoresLocks)
    let isReadOnly = options.isReadOnly || options.isSnapshot
    let file = try openFile(
      path, options.descriptor, isReadOnly: isReadOnly, ignoresLocks: options.ignoresLocks)
    let (store, format) = try chain.open(file, format: options.format, isReadOnly: isReadOnly)
    let opened = Opened(
      store: store, format: format, warnings: chain.warnings,
      bases: BaseWatch(Array(chain.files.dropFirst())), files: chain.files)
    return options.isSnapshot ? try overlay(on: opened) : opened
  }

  /// A disk that begins as `base` and keeps what is written in a file of its own, without a name, that
  /// `makeFile` makes; others may have theirs on the same.
  package static func overlay(
    on base: Opened, by makeFile: Errand = Errand(.makeUnnamed(HostEnvironment.temporaryDirectory))
  ) throws(DiskError) -> Opened {
    Opened(
      store: try Qcow2Image.temporary(over: base.store, by: makeFile), format: base.format,
      warnings: base.warnings, bases: BaseWatch(base.files), files: base.files)
  }

  static func openFile(
    _ path: String, _ descriptor: Int32? = nil, isReadOnly: Bool, ignoresLocks: Bool = false
  ) throws(DiskError) -> HostDiskFile {
    let file: HostDiskFile
    do throws(Errno) {
      file =
        if let descriptor {
          try HostDiskFile(InheritedFiles.copy(of: descriptor), path: path)
        } else {
          try HostDiskFile(path, isReadOnly: isReadOnly)
        }
    } catch { throw DiskError(opening: path, error) }
    guard isReadOnly || file.descriptor.openedFor().writes else {
      throw DiskError(.unusable, path, "open for reading alone, which needs \(.readOnly)")
    }
    if !ignoresLocks { try ImageLock.take(file, isReadOnly: isReadOnly) }
    return file
  }

  /// The format of an open file: qcow2 if it has its magic number, else raw; throws for others that are
  /// known.
  static func guessFormat(_ file: HostDiskFile) throws(DiskError) -> DiskFormat {
    var start = [UInt8](repeating: 0, count: ForeignImage.size)
    var span = start.mutableSpan
    do throws(StorageError) {
      let came = try file.read(into: &span, at: 0)
      // What can't be seen now could be anything, and would be written over as raw.
      guard try came == min(start.count, Int(clamping: file.length())) else { throw .truncated }
    } catch { throw DiskError(file.path, error) }
    if let foreign = ForeignImage(start) { throw foreign.error(file.path) }
    return start.starts(with: Qcow2Header.magic) ? .qcow2 : .raw
  }

  /// What a name in the image at `path` means: relative ones are relative to it.
  static func resolve(_ name: String, from path: String) -> String {
    guard !name.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return name }
    return path[...slash] + name
  }
}

/// Images that are opened one under another.
struct Chain {
  let ignoresLocks: Bool
  var warnings: [Advice] = []
  /// The images' files, each before what it is based on.
  private(set) var files: [HostDiskFile] = []
  private var seen: Set<FileIdentity> = []

  init(ignoresLocks: Bool = false) { self.ignoresLocks = ignoresLocks }

  mutating func open(
    _ file: HostDiskFile, format: DiskFormat?, isReadOnly: Bool
  ) throws(DiskError) -> (any BlockStore, DiskFormat) {
    let path = file.path
    guard seen.insert(file.facts.identity).inserted else {
      throw DiskError(.malformed, path, "is its own backing file, over others or by itself")
    }
    guard seen.count <= DiskImage.deepestChain else {
      throw DiskError(.malformed, path, "more than \(DiskImage.deepestChain) images on one another")
    }
    files.append(file)
    let actual: DiskFormat
    if let format { actual = format } else { actual = try DiskImage.guessFormat(file) }
    if actual == .raw {
      do throws(StorageError) {
        return (
          try RawDisk(file, isReadOnly: isReadOnly, wasGuessed: format == nil), actual
        )
      } catch { throw DiskError(path, error) }
    }
    let header = try Qcow2Image.header(of: file)
    let base = try openBase(of: header, at: path)
    let isDamaged = header.incompatible & Qcow2Header.Incompatible.corrupt != 0
    if isDamaged {
      warnings.append(
        "\(path): is marked as damaged: it can only be read, and what is read may be wrong; "
          + "what mends it: \(.repair)")
    }
    do throws(StorageError) {
      let disk = try Qcow2Disk(file, header, base: base, isReadOnly: isReadOnly || isDamaged)
      return (disk, actual)
    } catch { throw DiskError(path, error) }
  }

  private mutating func openBase(
    of header: Qcow2Header, at path: String
  ) throws(DiskError) -> (any BlockStore)? {
    guard let name = header.backingName else { return nil }
    let (basePath, format) = try Qcow2Image.base(of: header, at: path)
    do throws(DiskError) {
      let file = try DiskImage.openFile(basePath, isReadOnly: true, ignoresLocks: ignoresLocks)
      let base = try open(file, format: format, isReadOnly: true).0
      if let stamp = header.baseStamp, let facts = try? FileFacts(of: basePath),
        stamp != BaseStamp(facts)
      {
        warnings.append(
          "\(path): its base \(name) was changed after this was put on it: what it holds may be "
            + "damaged; if the base is what it was, what says so: \(.rebase)")
      }
      return base
    } catch {
      throw DiskError(error.kind, path, "its backing file: \(error.advice)")
    }
  }
}
