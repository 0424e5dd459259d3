import Devices
import TestSupport
import Testing

// Register offsets by their datasheet names.
private let rbr: UInt64 = 0
private let thr: UInt64 = 0
private let dll: UInt64 = 0
private let ier: UInt64 = 1
private let dlm: UInt64 = 1
private let iir: UInt64 = 2
private let fcr: UInt64 = 2
private let lcr: UInt64 = 3
private let mcr: UInt64 = 4
private let lsr: UInt64 = 5
private let msr: UInt64 = 6
private let scr: UInt64 = 7

private let out2: UInt8 = 0x08
private let loop: UInt8 = 0x10

/// A UART with everything around it recorded.
private struct Rig {
  let line = RecordingLine()
  let sink = RecordingSink()
  let demand = CountingDemand()
  let uart: UART16550A

  init() { uart = UART16550A(line: line, sink: sink, demand: demand) }

  /// FIFOs on with `trigger` (FCR bits 7 and 6), received data interrupts on.
  static func receiving(trigger: UInt8 = 0) -> Rig {
    let rig = Rig()
    rig.uart.put(trigger << 6 | 1, fcr)
    rig.uart.put(0x01, ier)
    rig.uart.put(out2, mcr)
    return rig
  }

  @discardableResult
  func receive(_ text: String) -> Int { uart.receive(Array(text.utf8).span) }

  /// Reads what is there, as a polling driver does.
  func drain() -> String {
    var bytes: [UInt8] = []
    while uart.byte(lsr) & 0x01 != 0 { bytes.append(uart.byte(rbr)) }
    return String(decoding: bytes, as: UTF8.self)
  }
}

@Suite(.limited) struct UARTRegisterTests {
  @Test func `registers after reset are as the datasheet lists them`() {
    let uart = Rig().uart

    let values = [ier, iir, lcr, mcr, lsr, scr].map { uart.byte($0) }

    #expect(values == [0x00, 0x01, 0x00, 0x00, 0x60, 0x00])
    // A terminal is connected: DCD, DSR and CTS, nothing changed.
    #expect(uart.byte(msr) == 0xB0)
  }

  @Test func `a driver finds a 16550A by the usual probes`() {
    let uart = Rig().uart

    uart.put(0x5A, scr)
    uart.put(0xFF, ier)
    uart.put(0x01, fcr)

    #expect(uart.byte(scr) == 0x5A)
    #expect(uart.byte(ier) == 0x0F)
    #expect(uart.byte(iir) & 0xF0 == 0xC0)
    uart.put(0x00, fcr)
    #expect(uart.byte(iir) & 0xF0 == 0x00)
  }

  @Test func `FIFO bits without the enable bit are not programmed`() {
    let rig = Rig()
    rig.uart.put(0xC6, fcr)

    #expect(rig.uart.byte(iir) & 0xF0 == 0x00)
    #expect(rig.uart.receiveRoom == 1)
  }

  @Test func `the divisor latch hides behind DLAB and leaves data and IER alone`() {
    let rig = Rig()
    rig.uart.put(0x83, lcr)
    #expect(rig.uart.byte(dll) == 12)
    rig.uart.put(0x34, dll)
    rig.uart.put(0x12, dlm)
    let latch = [rig.uart.byte(dll), rig.uart.byte(dlm)]
    rig.uart.put(0x03, lcr)

    #expect(latch == [0x34, 0x12])
    #expect(rig.uart.byte(ier) == 0)
    #expect(rig.sink.bytes.isEmpty)
    #expect(rig.uart.byte(lcr) == 0x03)
  }

  @Test func `writes to LSR and MSR change nothing`() {
    let uart = Rig().uart

    uart.put(0xFF, lsr)
    uart.put(0xFF, msr)

    #expect(uart.byte(lsr) == 0x60)
    #expect(uart.byte(msr) == 0xB0)
  }

  @Test func `MCR keeps five bits`() {
    let uart = Rig().uart

    uart.put(0xFF, mcr)

    #expect(uart.byte(mcr) == 0x1F)
  }
}

@Suite(.limited) struct UARTTransmitTests {
  @Test func `a byte to THR comes out, with no set-up at all`() {
    let rig = Rig()

    for byte in "Hi\n".utf8 { rig.uart.put(byte, thr) }

    #expect(rig.sink.bytes == Array("Hi\n".utf8))
    #expect(rig.uart.byte(lsr) == 0x60)
  }

  @Test func `a repeated write to THR comes out in one call`() {
    let rig = Rig()

    rig.uart.write(offset: thr, width: 1, bytes: Array("hello".utf8).span)

    #expect(rig.sink.calls == [Array("hello".utf8)])
  }

  @Test func `a repeated write with DLAB set is no text`() {
    let rig = Rig()
    rig.uart.put(0x80, lcr)

    rig.uart.write(offset: thr, width: 1, bytes: [1, 2, 3].span)

    #expect(rig.sink.calls.isEmpty)
    #expect(rig.uart.byte(dll) == 3)
  }

  @Test func `a repeated write to another register lands there`() {
    let rig = Rig()

    rig.uart.write(offset: scr, width: 1, bytes: [7, 8].span)

    #expect(rig.uart.byte(scr) == 8)
    #expect(rig.sink.calls.isEmpty)
  }

  @Test func `the transmitter's interrupt comes when enabled, and reading IIR clears it`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)

    rig.uart.put(0x02, ier)

    #expect(rig.line.levels == [true])
    #expect(rig.uart.byte(iir) == 0x02)
    #expect(rig.line.levels == [true, false])
    #expect(rig.uart.byte(iir) == 0x01)
  }

  @Test func `the transmitter's interrupt comes back after each byte`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)
    rig.uart.put(0x02, ier)
    _ = rig.uart.byte(iir)

    rig.uart.put(0x41, thr)

    #expect(rig.line.isRaised)
    #expect(rig.uart.byte(iir) == 0x02)
  }

  @Test func `a driver that never reads IIR gets an edge for each byte`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)
    rig.uart.put(0x02, ier)

    rig.uart.put(0x41, thr)
    rig.uart.put(0x42, thr)

    #expect(rig.line.levels == [true, false, true, false, true])
  }

  @Test func `enabling the transmitter's interrupt anew raises it anew, as Linux tests for`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)
    rig.uart.put(0x02, ier)
    _ = rig.uart.byte(iir)
    rig.uart.put(0x00, ier)

    rig.uart.put(0x02, ier)

    #expect(rig.uart.byte(iir) == 0x02)
  }

  @Test func `a repeated write raises the transmitter's interrupt once`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)
    rig.uart.put(0x02, ier)
    _ = rig.uart.byte(iir)

    rig.uart.write(offset: thr, width: 1, bytes: Array("hello".utf8).span)

    #expect(rig.line.levels == [true, false, true])
  }
}

@Suite(.limited) struct UARTReceiveTests {
  @Test func `without FIFOs one byte is taken and the rest refused`() {
    let rig = Rig()

    let taken = rig.receive("abc")

    #expect(taken == 1)
    #expect(rig.uart.receiveRoom == 0)
    #expect(rig.uart.byte(lsr) == 0x61)
    #expect(rig.uart.byte(rbr) == UInt8(ascii: "a"))
    #expect(rig.uart.byte(lsr) == 0x60)
  }

  @Test func `with FIFOs sixteen bytes are taken and come out in order`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    #expect(rig.uart.receiveRoom == 16)

    let taken = rig.receive("0123456789abcdefXYZ")

    #expect(taken == 16)
    #expect(rig.drain() == "0123456789abcdef")
  }

  @Test func `turning the FIFOs off empties them, as turning them on does`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.receive("abc")

    rig.uart.put(0x00, fcr)

    #expect(rig.uart.byte(lsr) == 0x60)
    #expect(rig.uart.receiveRoom == 1)
    rig.receive("d")
    #expect(rig.uart.byte(rbr) == UInt8(ascii: "d"))
  }

  @Test func `a refused feeder is called once, when the guest makes room`() {
    let rig = Rig()
    rig.receive("ab")
    #expect(rig.demand.count == 0)

    _ = rig.uart.byte(rbr)
    _ = rig.uart.byte(rbr)

    #expect(rig.demand.count == 1)
  }

  @Test func `a feeder that was not refused is left in peace`() {
    let rig = Rig()
    rig.receive("a")

    _ = rig.drain()
    rig.uart.put(0x07, fcr)

    #expect(rig.demand.count == 0)
  }

  @Test func `a feeder that asked and heard 0 is called too`() {
    let rig = Rig()
    rig.receive("a")
    #expect(rig.uart.receiveRoom == 0)

    _ = rig.uart.byte(rbr)

    #expect(rig.demand.count == 1)
  }

  @Test func `resetting the FIFO, or turning it on, makes room for a refused feeder`() {
    let rig = Rig()
    rig.receive("ab")
    rig.uart.put(0x01, fcr)
    #expect(rig.demand.count == 1)
    rig.receive("0123456789abcdefXYZ")

    rig.uart.put(0x03, fcr)

    #expect(rig.demand.count == 2)
    #expect(rig.drain() == "")
  }

  @Test func `a reset of the machine makes room for a refused feeder, and so does a restore`()
    throws
  {
    let rig = Rig()
    rig.receive("ab")
    var empty = StateWriter()
    Rig().uart.save(to: &empty)

    rig.uart.reset()
    #expect(rig.demand.count == 1)
    #expect(rig.uart.unread == [])
    rig.receive("ab")
    try rig.uart.restore(from: StateReader(empty.bytes))

    #expect(rig.demand.count == 2)
    #expect(rig.uart.unread == [])
  }

  @Test func `FCR written again without a reset keeps the data`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.receive("keep")

    rig.uart.put(0xC1, fcr)

    #expect(rig.drain() == "keep")
  }

  @Test func `resetting the transmit FIFO leaves received data alone`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.receive("keep")

    rig.uart.put(0x05, fcr)

    #expect(rig.drain() == "keep")
  }

  @Test(arguments: [(0 as UInt8, 1), (1, 4), (2, 8), (3, 14)])
  func `IIR tells data at the trigger level from a time-out below it`(code: UInt8, level: Int) {
    let rig = Rig.receiving(trigger: code)

    rig.receive(String(repeating: "x", count: level))

    #expect(rig.uart.byte(iir) == 0xC4)
    _ = rig.uart.byte(rbr)
    #expect(rig.uart.byte(iir) == (level == 1 ? 0xC1 : 0xCC))
  }

  @Test func `a byte raises the interrupt and reading it lowers it`() {
    let rig = Rig.receiving()

    rig.receive("a")
    _ = rig.uart.byte(rbr)

    #expect(rig.line.levels == [true, false])
  }

  @Test func `a driver that takes one byte an interrupt gets an edge for each below the trigger`() {
    let rig = Rig.receiving(trigger: 3)

    rig.receive("abc")
    for _ in 0..<3 { _ = rig.uart.byte(rbr) }

    #expect(rig.line.levels == [true, false, true, false, true, false])
  }

  @Test func `reading an empty receiver gives the last byte again and no trouble`() {
    let rig = Rig.receiving()
    rig.receive("z")

    let bytes = [rig.uart.byte(rbr), rig.uart.byte(rbr)]

    #expect(bytes == Array("zz".utf8))
    #expect(rig.uart.receiveRoom == 16)
  }

  @Test func `a break shows in LSR when its character reaches the top`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.uart.put(0x04, ier)
    rig.uart.put(out2, mcr)
    rig.receive("a")

    #expect(rig.uart.receiveBreak())

    #expect(rig.uart.byte(lsr) == 0xE1)
    #expect(rig.line.isRaised == false)
    _ = rig.uart.byte(rbr)
    #expect(rig.line.isRaised)
    #expect(rig.uart.byte(iir) == 0xC6)
    #expect(rig.uart.byte(lsr) == 0xF1)
    #expect(rig.uart.byte(lsr) == 0x61)
    #expect(rig.uart.byte(rbr) == 0)
    #expect(rig.line.isRaised == false)
  }

  // Linux 6.12, drivers/tty/serial/8250/8250_port.c: serial8250_do_startup, serial8250_do_set_termios.
  @Test func `nothing is lost while Linux sets the port up, where its driver is waited for`() {
    let rig = Rig()
    rig.uart.awaitDriver()
    var waiting = Array("ls\nexit\n".utf8)[...]
    func offer() { waiting = waiting.dropFirst(rig.uart.receive(Array(waiting).span)) }
    let clear: [(UInt64, UInt8?)] = [(lsr, nil), (rbr, nil), (iir, nil), (msr, nil)]
    let steps =
      [(fcr, 1), (fcr, 7), (fcr, 0)] + clear + [(lsr, nil), (lcr, 3), (mcr, out2)] + clear
      + [(ier, 0x05), (lcr, 0x83), (dll, 1), (dlm, 0), (lcr, 3), (fcr, 1), (fcr, 0x81)]

    offer()
    for (register, value) in steps {
      if let value { rig.uart.put(value, register) } else { _ = rig.uart.byte(register) }
      offer()
    }

    #expect(rig.demand.count > 0)
    #expect(rig.drain() == "ls\nexit\n" && waiting.isEmpty)
    // A port that is closed keeps what comes for the next who opens it.
    rig.uart.put(0x00, ier)
    #expect(rig.receive("a") == 0)
    rig.uart.reset()
    #expect(rig.receive("a") == 0)
  }

  @Test func `a break finds no room in a full receiver`() {
    let rig = Rig()
    rig.receive("a")

    #expect(rig.uart.receiveBreak() == false)
  }
}

@Suite(.limited) struct UARTInterruptTests {
  @Test func `the interrupt waits for nothing but IER: OUT2 is no gate`() {
    let rig = Rig()
    rig.uart.put(0x01, ier)
    rig.receive("a")
    #expect(rig.line.levels == [true])
    #expect(rig.uart.byte(iir) == 0x04)

    rig.uart.put(out2, mcr)
    rig.uart.put(0x00, mcr)

    #expect(rig.line.levels == [true])
    _ = rig.uart.byte(rbr)
    #expect(rig.line.levels == [true, false])
  }

  @Test func `an interrupt that is off in IER leaves the line alone`() {
    let rig = Rig()
    rig.uart.put(out2, mcr)

    rig.receive("a")
    rig.uart.put(0x41, thr)

    #expect(rig.line.levels == [])
    #expect(rig.uart.byte(iir) == 0x01)
  }

  @Test func `IIR tells the most urgent interrupt first`() {
    let rig = Rig()
    // In loopback: overrun, data, an empty transmitter and changed modem lines at once.
    rig.uart.put(loop | out2 | 0x02, mcr)
    rig.uart.put(0x0F, ier)
    rig.uart.put(0x41, thr)
    rig.uart.put(0x42, thr)

    var seen = [rig.uart.byte(iir)]
    _ = rig.uart.byte(lsr)
    seen.append(rig.uart.byte(iir))
    _ = rig.uart.byte(rbr)
    seen.append(rig.uart.byte(iir))
    seen.append(rig.uart.byte(iir))
    _ = rig.uart.byte(msr)
    seen.append(rig.uart.byte(iir))

    #expect(seen == [0x06, 0x04, 0x02, 0x00, 0x01])
    #expect(rig.line.isRaised == false)
  }

  @Test func `reading IIR for a more urgent interrupt keeps the transmitter's`() {
    let rig = Rig.receiving()
    rig.uart.put(0x03, ier)
    rig.receive("a")

    #expect(rig.uart.byte(iir) == 0xC4)
    _ = rig.uart.byte(rbr)
    #expect(rig.uart.byte(iir) == 0xC2)
  }
}

@Suite(.limited) struct UARTLoopbackTests {
  @Test func `what is sent in loopback is received and does not come out`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.uart.put(loop, mcr)

    rig.uart.put(0x41, thr)
    rig.uart.write(offset: thr, width: 1, bytes: Array("BC".utf8).span)

    #expect(rig.drain() == "ABC")
    #expect(rig.sink.bytes.isEmpty)
  }

  @Test func `in loopback nothing from outside is taken, and afterwards its feeder is called`() {
    let rig = Rig()
    rig.uart.put(loop, mcr)
    #expect(rig.uart.receiveRoom == 0)
    #expect(rig.receive("a") == 0)
    #expect(rig.uart.receiveBreak() == false)

    rig.uart.put(0x00, mcr)

    #expect(rig.demand.count == 1)
    #expect(rig.receive("a") == 1)
  }

  @Test(arguments: [(0x02 as UInt8, 0x10 as UInt8), (0x01, 0x20), (0x04, 0x40), (0x08, 0x80)])
  func `each modem output comes back as its input`(output: UInt8, input: UInt8) {
    let uart = Rig().uart

    uart.put(loop | output, mcr)

    #expect(uart.byte(msr) & 0xF0 == input)
  }

  @Test func `a changed modem line shows its delta bit until MSR is read`() {
    let uart = Rig().uart
    uart.put(loop, mcr)
    // CTS, DSR and DCD fell as the terminal was disconnected.
    #expect(uart.byte(msr) == 0x0B)
    #expect(uart.byte(msr) == 0x00)

    uart.put(loop | 0x02, mcr)

    #expect(uart.byte(msr) == 0x11)
    #expect(uart.byte(msr) == 0x10)
  }

  @Test func `a ring shows only when it ends`() {
    let uart = Rig().uart
    uart.put(loop, mcr)
    _ = uart.byte(msr)

    uart.put(loop | 0x04, mcr)
    #expect(uart.byte(msr) == 0x40)
    uart.put(loop, mcr)

    #expect(uart.byte(msr) == 0x04)
  }

  @Test func `modem interrupts work in loopback`() {
    let rig = Rig()
    rig.uart.put(loop | out2, mcr)
    _ = rig.uart.byte(msr)
    rig.uart.put(0x08, ier)

    rig.uart.put(loop | out2 | 0x01, mcr)

    #expect(rig.line.levels == [true])
    #expect(rig.uart.byte(iir) == 0x00)
    _ = rig.uart.byte(msr)
    #expect(rig.line.levels == [true, false])
  }

  @Test func `without FIFOs an overrun loses the older byte`() {
    let rig = Rig()
    rig.uart.put(loop, mcr)

    rig.uart.put(0x41, thr)
    rig.uart.put(0x42, thr)

    #expect(rig.uart.byte(lsr) == 0x63)
    #expect(rig.uart.byte(lsr) == 0x61)
    #expect(rig.uart.byte(rbr) == 0x42)
  }

  @Test func `with FIFOs an overrun loses the byte too many`() {
    let rig = Rig()
    rig.uart.put(0x01, fcr)
    rig.uart.put(loop, mcr)

    rig.uart.write(offset: thr, width: 1, bytes: Array("0123456789abcdef!".utf8).span)

    #expect(rig.uart.byte(lsr) == 0x63)
    #expect(rig.drain() == "0123456789abcdef")
  }
}
