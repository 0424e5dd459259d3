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
public enum DiskImage {
  /// How an image is opened.
  public struct Options: Sendable {
    /// Its format; nil to look for the magic number of qcow2.
    public var format: DiskFormat?
    /// Whether writes are refused.
    public var isReadOnly = false
    /// Whether writes are kept beside the image, and thrown away in the end.
    public var isSnapshot = false

    /// To be read and written, its format looked for.
    public init() {}
  }

  /// Opens the image called `path` and locks it.
  public static func open(_ path: String, _ options: Options) throws(DiskError) -> any BlockStore {
    let isReadOnly = options.isReadOnly || options.isSnapshot
    let file = try openFile(path, isReadOnly: isReadOnly)
    let format: DiskFormat
    if let told = options.format { format = told } else { format = try guessFormat(file) }
    do throws(StorageError) {
      switch format {
      case .raw:
        return try RawDisk(file, isReadOnly: isReadOnly, wasGuessed: options.format == nil)
      case .qcow2: throw .corrupt("qcow2 isn't read yet")
      }
    } catch { throw DiskError(path, error) }
  }

  static func openFile(_ path: String, isReadOnly: Bool) throws(DiskError) -> HostDiskFile {
    let file: HostDiskFile
    do throws(Errno) { file = try HostDiskFile(path, isReadOnly: isReadOnly) } catch {
      throw DiskError(opening: path, error)
    }
    try ImageLock.take(file, isReadOnly: isReadOnly)
    return file
  }

  private static func guessFormat(_ file: HostDiskFile) throws(DiskError) -> DiskFormat {
    var start = [UInt8](repeating: 0, count: 4)
    var span = start.mutableSpan
    do throws(StorageError) { _ = try file.read(into: &span, at: 0) } catch {
      throw DiskError(file.path, error)
    }
    return start == Qcow2Header.magic ? .qcow2 : .raw
  }
}
