import Synchronization

/// The bases under an open image, as they were when it was opened: they must not change while it's in
/// use, and locks keep only those out who look at them.
package final class BaseWatch: Sendable {
  private let files: [HostDiskFile]
  private let changed = Mutex<Set<String>>([])

  init(_ files: [HostDiskFile]) { self.files = files }

  /// The names of those that were written since, each of them once. A block device doesn't tell.
  package func newlyChanged() -> [String] {
    var found: [String] = []
    for file in files where file.facts.kind == .regular {
      guard let now = try? file.descriptor.facts(), BaseStamp(now) != BaseStamp(file.facts) else {
        continue
      }
      if changed.withLock({ $0.insert(file.path).inserted }) { found.append(file.path) }
    }
    return found
  }
}
