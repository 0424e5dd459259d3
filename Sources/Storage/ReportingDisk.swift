import Host
import Memory
import Synchronization

/// A disk that tells its user what went wrong: a guest sees no more than an I/O error.
///
/// Each kind of error is told once; a guest may try again for ever. After flushes it is told, too, if
/// what the disk is based on was changed.
package final class ReportingDisk: BlockStore {
  private enum Operation: String {
    case read, write, flush
    case clear = "write zeros"
    case discard
  }

  private struct Kind: Hashable {
    var operation: Operation
    var error: String
  }

  // More kinds than any disk should have: images choose the words in which they are damaged.
  private static let mostKinds = 16

  private let store: any BlockStore
  private let name: String
  private let bases: BaseWatch
  let files: [HostDiskFile]
  private let report: @Sendable (Advice) -> Void
  private let told = Mutex<Set<Kind>>([])

  /// What was opened, whose errors go to `report` in words that begin with `name`. It is called by
  /// the threads that use the disk.
  package init(
    _ opened: DiskImage.Opened, name: String, report: @escaping @Sendable (Advice) -> Void
  ) {
    store = opened.store
    bases = opened.bases
    files = opened.files
    self.name = name
    self.report = report
  }

  /// How many bytes the disk has.
  package var size: UInt64 { store.size }
  /// Whether writes are refused.
  package var isReadOnly: Bool { store.isReadOnly }

  /// Fills memory with the bytes from `offset` on.
  package func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    do throws(StorageError) { try store.read(into: segments, at: offset) } catch {
      throw tell(.read, error, at: offset)
    }
  }

  /// Writes bytes from `offset` on.
  package func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    do throws(StorageError) { try store.write(from: segments, at: offset) } catch {
      throw tell(.write, error, at: offset)
    }
  }

  /// Returns when all that was written is on stable storage.
  package func flush() throws(StorageError) {
    do throws(StorageError) { try store.flush() } catch { throw tell(.flush, error) }
    for base in bases.newlyChanged() {
      report("\(name): its base \(base) was changed meanwhile: what it holds may be damaged")
    }
  }

  /// Makes a range read as zeros.
  package func writeZeroes(
    at offset: UInt64, count: UInt64, mayUnmap: Bool
  ) throws(StorageError) {
    do throws(StorageError) {
      try store.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap)
    } catch { throw tell(.clear, error, at: offset) }
  }

  /// Lets the contents of a range go.
  package func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    do throws(StorageError) { try store.discard(at: offset, count: count) } catch {
      throw tell(.discard, error, at: offset)
    }
  }

  /// Tells of `error` if it is the first of its kind, and returns it.
  private func tell(
    _ operation: Operation, _ error: StorageError, at offset: UInt64? = nil
  ) -> StorageError {
    // These two are the guest's own doing.
    if error == .outOfRange || error == .readOnly { return error }
    let isNew = told.withLock { told in
      guard told.count < Self.mostKinds else { return false }
      return told.insert(Kind(operation: operation, error: "\(error)")).inserted
    }
    guard isNew else { return error }
    let place = offset.map { " at byte \($0)" } ?? ""
    report(
      "\(name): \(operation.rawValue)\(place) failed: \(error.message) (the guest has an I/O error; "
        + "others like it are not told of)")
    return error
  }
}
