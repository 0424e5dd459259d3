import Memory

/// Follows a chain through the descriptor table and at most one indirect table (virtio 1.2, 2.7.5).
struct DescriptorWalk {
  /// More descriptors than a queue has a chain may have in an indirect table; but there is an end.
  static let mostIndirect = 1024

  private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
  }

  let queue: Int
  let table: MemoryView
  let memory: GuestMemory
  let allowsIndirect: Bool

  /// Puts the buffers of the chain that starts with descriptor `head` into `chain`.
  func collect(_ head: UInt16, into chain: inout DescriptorChain) throws(RingFault) {
    chain.restart(at: head)
    var table = table
    var limit = table.count / 16
    var isIndirect = false
    var number = head
    var seen = 0
    var total: UInt64 = 0
    while true {
      guard Int(number) < table.count / 16 else {
        throw fault(.descriptorNumber(number, count: table.count / 16))
      }
      guard seen < limit else { throw fault(.chainLength(limit)) }
      seen += 1
      let place = Int(number) * 16
      let address = table.load(place, as: UInt64.self)
      let length = table.load(place + 8, as: UInt32.self)
      let flags = table.load(place + 12, as: UInt16.self)
      let next = table.load(place + 14, as: UInt16.self)
      if flags & Flag.indirect != 0 {
        guard allowsIndirect, !isIndirect, flags & Flag.next == 0 else {
          throw fault(.unexpectedIndirect)
        }
        guard length > 0, length % 16 == 0 else { throw fault(.indirectLength(length)) }
        table = try view(address, length, isWritten: false)
        (isIndirect, number, seen) = (true, 0, 0)
        limit = min(table.count / 16, Self.mostIndirect)
        continue
      }
      total += UInt64(length)
      guard total <= UInt64(UInt32.max) else { throw fault(.chainBytes) }
      try add(address, length, isWritten: flags & Flag.write != 0, to: &chain)
      guard flags & Flag.next != 0 else { return }
      number = next
    }
  }

  private func add(
    _ address: UInt64, _ length: UInt32, isWritten: Bool, to chain: inout DescriptorChain
  ) throws(RingFault) {
    let view = try view(address, length, isWritten: isWritten)
    if isWritten {
      if length > 0 { chain.addWritable(view) }
    } else {
      guard chain.writable.isEmpty else { throw fault(.readableAfterWritable) }
      if length > 0 { chain.addReadable(view) }
    }
  }

  private func view(
    _ address: UInt64, _ length: UInt32, isWritten: Bool
  ) throws(RingFault) -> MemoryView {
    do {
      let start = GuestAddress(address)
      return isWritten
        ? try memory.writableView(at: start, count: UInt64(length))
        : try memory.view(at: start, count: UInt64(length))
    } catch { throw fault(.bufferOutsideMemory(address: address, count: length)) }
  }

  private func fault(_ cause: RingFault.Cause) -> RingFault { RingFault(queue: queue, cause) }
}
