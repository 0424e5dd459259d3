import Devices
import Synchronization
import TestSupport
import Testing

@testable import Machine

@Suite("The input pump", .limited)
struct InputTests {
  /// Takes half of what it is given.
  private final class SlowReceiver: ByteReceiver {
    let taken = Mutex<[UInt8]>([])
    var unread: [UInt8] { [] }

    func receive(_ bytes: Span<UInt8>) -> Int {
      let count = (bytes.count + 1) / 2
      taken.withLock { for index in 0..<count { $0.append(bytes[index]) } }
      return count
    }
  }

  @Test("passes all on, in order, and keeps none of what the guest has read")
  func slowGuest() throws {
    let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 / 251) }
    let receiver = SlowReceiver()
    let pump = try InputPump(.bytes(bytes), RunControl())
    pump.receiver = receiver
    for _ in 0..<3 { pump.feed() }
    #expect(pump.pending.count == 1 << 17)
    #expect(pump.unread == Array(bytes.suffix(1 << 17)))
    for _ in 0..<20 { pump.feed() }
    #expect(pump.pending.isEmpty)
    #expect(receiver.taken.withLock { $0 } == bytes)
  }
}
