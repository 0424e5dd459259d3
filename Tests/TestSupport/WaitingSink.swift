import Devices
import Host

/// Keeps what a guest writes, and lets another thread wait for it.
package final class WaitingSink: ByteSink, @unchecked Sendable {
  // Sound as Sendable: `contents` is only used inside the monitor.
  private let monitor = Monitor()
  private var contents: [UInt8] = []

  /// Makes an empty one.
  package init() {}

  /// Appends `bytes` and wakes whoever waits.
  package func write(_ bytes: Span<UInt8>) {
    monitor.locked {
      for index in bytes.indices { contents.append(bytes[index]) }
      monitor.wakeAll()
    }
  }

  /// Everything so far.
  package var bytes: [UInt8] { monitor.locked { contents } }

  /// Everything so far, as text.
  package var text: String { String(decoding: bytes, as: UTF8.self) }

  /// Waits until at least `count` bytes have come; false if they haven't before the deadline.
  package func wait(forBytes count: Int, _ deadline: Deadline = Deadline()) -> Bool {
    monitor.locked {
      while contents.count < count {
        if !monitor.wait(until: deadline.nanoseconds) { return contents.count >= count }
      }
      return true
    }
  }

  /// Forgets what has come.
  package func forget() { monitor.locked { contents = [] } }

  /// Waits until `byte` has come; false if it hasn't before the deadline.
  package func wait(forByte byte: UInt8, _ deadline: Deadline = Deadline()) -> Bool {
    monitor.locked {
      while !contents.contains(byte) {
        if !monitor.wait(until: deadline.nanoseconds) { return contents.contains(byte) }
      }
      return true
    }
  }
}
