import Host

/// What devices have to tell whoever runs the machine.
///
/// Any thread says it, whatever it holds, and never waits; somebody else writes it, when `event` is
/// raised. Of each kind a device's first message is told, and the others are counted: a guest can make
/// them as fast as it likes.
package final class DeviceReports: Sendable {
  /// What a message is about.
  package struct Kind: Sendable {
    fileprivate let name: String
    /// How many are told.
    fileprivate let limit: UInt64

    /// A kind that is told from others by its name.
    package init(_ name: StaticString, limit: UInt64 = 1) {
      (self.name, self.limit) = (name.description, limit)
    }

    /// The driver broke a rule.
    package static let driver = Kind("driver")
    /// What stands behind the device is lost.
    package static let backEnd = Kind("back end")
    /// The host lacks something.
    package static let host = Kind("host")
    /// A program's own words.
    package static let words = Kind("words", limit: 32)
  }

  private struct Key: Hashable {
    let device: String
    let kind: String
  }

  private struct Entry {
    let first: String
    var count: UInt64 = 0
    var told: UInt64 = 0
  }

  private struct State {
    var entries: [Key: Entry] = [:]
    var order: [Key] = []
    var waiting: [String] = []
  }

  /// Devices and kinds are the machine's own, so there are never so many.
  private static let mostKeys = 1024

  /// Raised when there is something to write.
  package let event: Event
  private let state = RankedMutex(.last, State())

  /// Nothing has been said.
  package init() throws(Errno) { event = try Event() }

  /// Says `text` of `device`, a name that no other has.
  package func report(_ kind: Kind, _ device: String, _ text: String) {
    let key = Key(device: device, kind: kind.name)
    let isNew = state.withLock { state in
      if state.entries[key] == nil {
        guard state.order.count < Self.mostKeys else { return false }
        state.entries[key] = Entry(first: text)
        state.order.append(key)
      }
      guard var entry = state.entries[key] else { return false }
      entry.count &+= 1
      let isTold = entry.count <= kind.limit
      if isTold {
        entry.told = entry.count
        state.waiting.append(text)
      }
      state.entries[key] = entry
      return isTold
    }
    if isNew { event.raise() }
  }

  /// What is to be written now, in order.
  package func drain() -> [String] {
    event.consume()
    return state.withLock { state in
      defer { state.waiting = [] }
      return state.waiting
    }
  }

  /// How many more there were of each kind, for the end; counted anew after that.
  package func summary() -> [String] {
    state.withLock { state in
      state.order.compactMap { key in
        guard let entry = state.entries[key], entry.count > entry.told else { return nil }
        state.entries[key]?.count = entry.told
        return "\(entry.count - entry.told) more like this: \(entry.first)"
      }
    }
  }
}
