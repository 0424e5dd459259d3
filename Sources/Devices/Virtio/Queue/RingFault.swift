/// Why a device can't go on with a queue: the driver broke a rule of the ring or of the device.
///
/// The device answers with DEVICE_NEEDS_RESET (virtio 1.2, 2.1.2).
package struct RingFault: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong.
  package enum Cause: Equatable, Sendable {
    /// The queue's size is not a power of 2, is 0, or is above the device's maximum (2.7).
    case size(UInt16)
    /// A part of the ring is at an address that its alignment forbids (2.7).
    case misaligned(UInt64)
    /// A part of the ring is not in guest memory.
    case ringOutsideMemory(UInt64)
    /// The available index ran ahead of what was used by more than the queue's size.
    case availableIndex(UInt16, next: UInt16)
    /// A descriptor's number is not below the number of descriptors in its table.
    case descriptorNumber(UInt16, count: Int)
    /// A chain has more descriptors than it may: a loop.
    case chainLength(Int)
    /// The buffers of a chain have more bytes together than 32 bits can say (2.7.5).
    case chainBytes
    /// A buffer is not in guest memory.
    case bufferOutsideMemory(address: UInt64, count: UInt32)
    /// A buffer to be read follows one to be written (2.7.4.2).
    case readableAfterWritable
    /// An indirect table where there may be none, or in another one, or with a successor (2.7.5.3).
    case unexpectedIndirect
    /// An indirect table whose length is 0 or not a multiple of 16.
    case indirectLength(UInt32)
    /// A request without the parts that the device's section asks for.
    case request(StaticString)

    /// By what they say.
    package static func == (left: Cause, right: Cause) -> Bool {
      left.sentence == right.sentence
    }
  }

  /// The queue's number.
  package let queue: Int
  /// What is wrong.
  package let cause: Cause

  /// A fault of queue `queue`.
  package init(queue: Int, _ cause: Cause) {
    self.queue = queue
    self.cause = cause
  }

  /// Names the queue and what is wrong with it.
  package var description: String { "queue \(queue): \(cause.sentence)" }
}

extension RingFault.Cause {
  fileprivate var sentence: String {
    switch self {
    case .size(let size): "its size is \(size), which must be a power of 2 and no more than offered"
    case .misaligned(let address): "a part of the ring is at \(hex(address)), which is not aligned"
    case .ringOutsideMemory(let address): "the ring at \(hex(address)) is not all in guest memory"
    case .availableIndex(let index, let next):
      "the available index jumped to \(index), while \(next) is next"
    case .descriptorNumber(let number, let count): "there is no descriptor \(number) of \(count)"
    case .chainLength(let limit): "a chain has more than \(limit) descriptors or loops"
    case .chainBytes: "a chain has more than 4 GiB of buffers"
    case .bufferOutsideMemory(let address, let count):
      "the buffer of \(count) bytes at \(hex(address)) is not in guest memory"
    case .readableAfterWritable: "a buffer to read follows one to write"
    case .unexpectedIndirect: "an indirect table where none may be"
    case .indirectLength(let length): "an indirect table of \(length) bytes"
    case .request(let what): "a request \(what)"
    }
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
