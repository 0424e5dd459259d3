import Devices
import Host
import Storage

// What a save has of disks: not their contents, but what their files were like, so that a machine isn't
// restored on disks that were written since.

extension VMConfiguration {
  /// What of it can't be saved, in words; nil if all can.
  package var unsavable: String? {
    for device in devices {
      switch device.kind {
      case .disk(let disk) where disk.isSnapshot:
        return "\(device.id): what its guest writes is to be thrown away (snapshot)"
      case .disk(let disk) where disk.socket != nil:
        return "\(device.id): another process has its state (vhost-user)"
      default: break
      }
    }
    return nil
  }
}

extension Resources {
  /// Writes out what disks have in memory, and returns what their files are like then. It waits for the
  /// host.
  func stampDisks() throws(SaveError) -> [UInt8] {
    var stamps: [SavedDisk] = []
    for (id, store) in disks.sorted(by: { $0.key < $1.key }) {
      do throws(StorageError) { try store.flush() } catch { throw .disk(id, error) }
      guard let disk = store as? ReportingDisk else { continue }
      do { stamps += try disk.stamps().map { SavedDisk(id: id, stamp: $0) } } catch {
        throw .disk(id, .host(error))
      }
    }
    return SavedDisk.bytes(of: stamps)
  }
}

/// What one file of a disk was like.
struct SavedDisk {
  /// The disk's.
  let id: String
  let stamp: DiskStamp

  /// Files, each before what it is based on, as a section.
  static func bytes(of stamps: [SavedDisk]) -> [UInt8] {
    var state = StateWriter()
    state.write("count", UInt32(stamps.count))
    for (number, file) in stamps.enumerated() {
      state.group("file\(number)") {
        $0.write("id", Array(file.id.utf8))
        $0.write("path", Array(file.stamp.path.utf8))
        $0.write("stamp", file.stamp.data)
      }
    }
    return state.bytes
  }
}

extension SavedMachine {
  /// A machine has fewer files than that.
  private static let mostFiles: UInt32 = 1 << 16

  /// What the files of its disks were like; none where that wasn't saved.
  func savedDisks() throws(RestoreError) -> [SavedDisk] {
    guard sections.contains(where: { $0.name == Name.disks }) else { return [] }
    var disks: [SavedDisk] = []
    let fields = try fields(Name.disks)
    do throws(StateError) {
      for number in 0..<(try fields.read("count", in: 0...Self.mostFiles)) {
        let file = try fields.group("file\(number)")
        func text(_ name: StaticString) throws(StateError) -> String {
          String(decoding: try file.readBytes(name, limit: 1 << 16), as: UTF8.self)
        }
        let stamp = DiskStamp(path: try text("path"), data: try file.readBytes("stamp", limit: 64))
        disks.append(SavedDisk(id: try text("id"), stamp: stamp))
      }
    } catch { throw .section(Name.disks, error) }
    return disks
  }

  /// Refuses disks that aren't what they were.
  func checkDisks(_ resources: Resources) throws(RestoreError) {
    let saved = Dictionary(grouping: try savedDisks(), by: \.id).mapValues { $0.map(\.stamp) }
    for (id, then) in saved.sorted(by: { $0.key < $1.key }) {
      guard let disk = resources.disks[id] as? ReportingDisk else { continue }
      let now: [DiskStamp]
      do { now = try disk.stamps() } catch { throw .file(error) }
      guard now.map(\.data) != then.map(\.data) else { continue }
      let changed = zip(then, now).first { $0.data != $1.data }?.1
      throw .disk(id, (changed ?? then[0]).path)
    }
  }
}
