import Devices
import Dispatch
import Host
import Synchronization
import TestSupport
import Testing

/// Wakes a thread when the line rises, as an edge-triggered interrupt controller does.
private final class EdgeLine: InterruptLine {
  let edge = DispatchSemaphore(value: 0)

  func set(_ isRaised: Bool) {
    if isRaised { edge.signal() }
  }
}

private final class WakingDemand: ReceiveDemand {
  let room = DispatchSemaphore(value: 0)

  func receiverHasRoom() { room.signal() }
}

private final class NullSink: ByteSink {
  func write(_ bytes: Span<UInt8>) {}
}

/// How a guest's driver takes its bytes.
enum DriverStyle: CaseIterable, CustomTestStringConvertible {
  case drainsWithoutFIFO
  case drainsAtEveryByte
  case drainsAtFourteen
  case takesOneAnInterrupt

  var testDescription: String { "\(self)" }

  var fifoControl: UInt8 {
    switch self {
    case .drainsWithoutFIFO: 0x00
    case .drainsAtEveryByte: 0x01
    case .drainsAtFourteen, .takesOneAnInterrupt: 0xC1
    }
  }
}

@Suite(.limited) struct UARTConcurrencyTests {
  // Where a byte or a wake-up got lost, both threads would wait for ever; they give up instead.
  private static let patience = DispatchTimeInterval.seconds(Int(10 * Deadline.patience))

  @Test(arguments: DriverStyle.allCases)
  func `no byte is lost or reordered between event loop and VCPU`(style: DriverStyle) throws {
    let line = EdgeLine()
    let demand = WakingDemand()
    let uart = UART16550A(line: line, sink: NullSink(), demand: demand)
    uart.put(style.fifoControl, 2)
    uart.put(0x08, 4)
    uart.put(0x01, 1)
    let sent = (0..<Trials.rounds(50_000)).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
    let received = Mutex<[UInt8]>([])

    let guest = try HostThread.start(name: "guest") {
      var bytes: [UInt8] = []
      while bytes.count < sent.count {
        if line.edge.wait(timeout: .now() + Self.patience) == .timedOut { break }
        repeat {
          if uart.byte(5) & 0x01 != 0 { bytes.append(uart.byte(0)) }
        } while style != .takesOneAnInterrupt && uart.byte(5) & 0x01 != 0
      }
      received.withLock { $0 = bytes }
    }
    var position = 0
    while position < sent.count {
      let taken = uart.receive(sent.span.extracting(position..<min(sent.count, position + 40)))
      position += taken
      if taken == 0 && demand.room.wait(timeout: .now() + Self.patience) == .timedOut { break }
    }
    guest.join()

    // Not compared as a whole: a failure would print all of it.
    let bytes = received.withLock { $0 }
    #expect(bytes.count == sent.count)
    #expect(zip(bytes, sent).allSatisfy(==))
  }
}
