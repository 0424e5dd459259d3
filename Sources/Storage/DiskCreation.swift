import Host
import Memory

/// A file that becomes an image: it is given its name when it is whole. Until then it has none, so
/// that nothing is left of it however kvmlite ends; on a file system that can't do that it has another.
final class NewDiskFile {
  private enum Place {
    case device
    case unnamed
    case named(String)
  }

  let file: HostDiskFile
  private let path: String
  private let place: Place
  private let replaces: Bool
  // Open, and so locked, up to the end: whoever used it meanwhile would go on with a file that has no
  // name any longer.
  private let replaced: HostDiskFile?

  private static func partialPath(of path: String) -> String {
    path + ".partial-\(LockHolder.currentProcess)"
  }

  /// Opens the place of `path`. Something that has the name already is kept unless `replaces`; a
  /// block device is written in place, and only then.
  init(_ path: String, replaces: Bool) throws(DiskError) {
    self.path = path
    self.replaces = replaces
    let present = try? FileFacts(of: path)
    if present != nil && !replaces {
      throw DiskError(.usage, path, "is there already, and isn't replaced without \(.replacing)")
    }
    if present?.kind == .blockDevice {
      place = .device
      replaced = nil
      file = try DiskImage.openFile(path, isReadOnly: false)
      return
    }
    replaced = present == nil ? nil : try DiskImage.openFile(path, isReadOnly: false)
    do throws(Errno) {
      if let file = try? HostDiskFile(
        FileDescriptor(linkableIn: FileName.directory(of: path)), path: path)
      {
        place = .unnamed
        self.file = file
      } else {
        let name = Self.partialPath(of: path)
        let descriptor = try FileDescriptor(opening: name, [.readWrite, .create, .exclusive])
        place = .named(name)
        file = try HostDiskFile(descriptor, path: name)
      }
    } catch { throw DiskError(.host, path, "can't be made: \(error)") }
  }

  /// Makes everything safe and gives the file its name.
  func commit() throws(DiskError) {
    do throws(StorageError) { try file.flush() } catch { throw DiskError(path, error) }
    do throws(Errno) {
      switch place {
      case .device: return
      case .unnamed:
        try FileName.give(
          file.descriptor, path, replacingBy: replaces ? Self.partialPath(of: path) : nil)
      case .named(let name): try FileName.move(name, to: path, replaces: replaces)
      }
    } catch {
      abandon()
      throw DiskError(error == .exists ? .usage : .host, path, "can't be made: \(error)")
    }
  }

  /// Removes what was written so far.
  func abandon() {
    if case .named(let name) = place { FileName.remove(name) }
  }
}

extension DiskImage {
  /// What a new image is to be.
  package struct NewImage: Sendable {
    /// Its format.
    package var format = DiskFormat.qcow2
    /// The disk's size in bytes; nil for that of the base.
    package var size: UInt64?
    /// The name of the image it is based on, as it will be in the image; only for qcow2.
    package var base: String?
    /// The base's format; nil to look for the magic number of qcow2.
    package var baseFormat: DiskFormat?
    /// How many bytes a cluster has: 512 to 2 MiB, a power of two; only for qcow2.
    package var clusterSize: UInt64 = 65536
    /// Whether what has the name already is replaced.
    package var replaces = false

    /// A qcow2 image.
    package init() {}
  }

  /// Makes an image in which nothing is yet, and returns its size.
  @discardableResult
  package static func create(_ path: String, _ new: NewImage) throws(DiskError) -> UInt64 {
    let clusterBits = try clusterBits(of: new, path)
    let base = try base(of: new, at: path)
    guard let size = new.size ?? base?.opened.store.size else {
      throw DiskError(.usage, path, "how large? It takes \(.size) or, for an overlay, \(.backing)")
    }
    guard size <= 1 << 62 else { throw DiskError(.usage, path, "larger than any disk") }
    let target = try NewDiskFile(path, replaces: new.replaces)
    do throws(DiskError) {
      do throws(StorageError) {
        let size = (size + 511) & ~511
        if new.format == .raw {
          if target.file.growsWithZeros { try target.file.setLength(size) }
        } else {
          let plan = Qcow2Image.Plan(
            size: size, clusterBits: clusterBits,
            base: base.map { ($0.name, $0.opened.format, $0.stamp) })
          _ = try Qcow2Image.make(plan, in: target.file)
        }
      } catch { throw DiskError(path, error) }
      try target.commit()
    } catch {
      target.abandon()
      throw error
    }
    withExtendedLifetime(base) {}
    return (size + 511) & ~511
  }

  private static func clusterBits(of new: NewImage, _ path: String) throws(DiskError) -> Int {
    let size = new.clusterSize
    guard size.nonzeroBitCount == 1, (512...2 << 20).contains(size) else {
      throw DiskError(.usage, path, "a cluster has a power of two of bytes, from 512 to 2M")
    }
    return size.trailingZeroBitCount
  }

  private struct Base {
    var name: String
    // Open, and so locked, until the overlay is there: no file of the chain is replaced by it.
    var opened: Opened
    var stamp: BaseStamp?
  }

  private static func base(of new: NewImage, at path: String) throws(DiskError) -> Base? {
    guard let name = new.base else { return nil }
    guard new.format == .qcow2 else {
      throw DiskError(.usage, path, "a raw image has no base; \(.format, "qcow2") has")
    }
    let (opened, stamp) = try openBase(name, format: new.baseFormat, for: path)
    return Base(name: name, opened: opened, stamp: stamp)
  }

  /// Opens what is to be the base of the image at `path`.
  static func openBase(
    _ name: String, format: DiskFormat?, for path: String
  ) throws(DiskError) -> (Opened, BaseStamp?) {
    guard Qcow2Image.isFileName(name) else {
      throw DiskError(
        .usage, path, "a base's name with a colon would be taken for a protocol's: say ./\(name)")
    }
    let basePath = resolve(name, from: path)
    var options = Options()
    options.isReadOnly = true
    options.format = format
    let opened = try open(basePath, options)
    return (opened, (try? FileFacts(of: basePath)).map { BaseStamp($0) })
  }
}
