/// A device on a bus: what it answers to reads and what it does on writes.
///
/// A device doesn't know where it stands: it sees offsets from its own start. It is called by the
/// threads of all VCPUs, and by the event loop, so one with state guards it; look-up on the bus takes
/// no lock. Nothing a guest does may make it trap.
package protocol Device: AnyObject, Sendable {
  /// The name that traces and tables show, such as `uart`.
  var name: StaticString { get }

  /// The name of who answers at `offset`, for traces; nil if nobody does. Other than `name` only where
  /// a device stands for others, as a window does.
  func name(at offset: UInt64) -> StaticString?

  /// The widest access the device takes in one piece, in bytes: 1, 2, 4 or 8. The bus cuts wider
  /// ones into pieces, as an ISA bridge does.
  var widestAccess: Int { get }

  /// Answers a read of `width` bytes (1, 2, 4 or 8) at `offset`.
  func read(offset: UInt64, width: Int) -> UInt64

  /// Takes a write of `width` bytes (1, 2, 4 or 8) at `offset`; the value's higher bytes are zero.
  func write(offset: UInt64, width: Int, value: UInt64)

  /// Answers one repeated read (REP INS) of `offset`: fills `bytes`, in order, by accesses of `width`
  /// bytes, no more than `widestAccess`.
  func read(offset: UInt64, width: Int, into bytes: inout MutableSpan<UInt8>)

  /// Takes the bytes of one repeated write (REP OUTS) to `offset`, in order, by accesses of `width`
  /// bytes, no more than `widestAccess`.
  func write(offset: UInt64, width: Int, bytes: Span<UInt8>)
}

extension Device {
  /// The device itself.
  package func name(at offset: UInt64) -> StaticString? { name }

  /// Byte-wide, as ISA devices are.
  package var widestAccess: Int { 1 }

  /// One read after another.
  package func read(offset: UInt64, width: Int, into bytes: inout MutableSpan<UInt8>) {
    readOneByOne(offset: offset, width: width, into: &bytes)
  }

  /// One write after another.
  package func write(offset: UInt64, width: Int, bytes: Span<UInt8>) {
    writeOneByOne(offset: offset, width: width, bytes: bytes)
  }

  /// Answers a repeated read by single ones.
  func readOneByOne(offset: UInt64, width: Int, into bytes: inout MutableSpan<UInt8>) {
    var index = 0
    while index &+ width <= bytes.count {
      let value = read(offset: offset, width: width)
      for byte in 0..<width {
        bytes[index] = UInt8(truncatingIfNeeded: value >> UInt64(byte * 8))
        index &+= 1
      }
    }
  }

  /// Takes a repeated write as single ones.
  func writeOneByOne(offset: UInt64, width: Int, bytes: Span<UInt8>) {
    var index = 0
    while index &+ width <= bytes.count {
      var value: UInt64 = 0
      for byte in 0..<width { value |= UInt64(bytes[index &+ byte]) << UInt64(byte * 8) }
      write(offset: offset, width: width, value: value)
      index &+= width
    }
  }
}

/// One interrupt input of the machine, as a device sees it.
package protocol InterruptLine: AnyObject, Sendable {
  /// Raises or lowers the line. Called by any thread.
  func set(_ isRaised: Bool)
}

/// Where a device's bytes go: a terminal, a file, a test's buffer.
package protocol ByteSink: AnyObject, Sendable {
  /// Takes all of `bytes`, and returns when they are on their way. Called by any thread.
  func write(_ bytes: Span<UInt8>)
}

/// What a guest can ask of the machine it runs on, through one device or another.
package protocol MachineControl: AnyObject, Sendable {
  /// Ends the run as if the power were switched off.
  func requestPowerOff()
  /// Suspends the machine to RAM: all but memory, and what wakes it, loses its state.
  func requestSuspend()
  /// Resets the machine, as its reset line would.
  func requestReset()
  /// Ends the run with `(value << 1) | 1` as the exit status, of which 8 bits are kept.
  func requestExit(_ value: UInt32)
}
