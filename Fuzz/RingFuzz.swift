import Devices
import Memory

/// Lets a virtqueue loose on arbitrary guest memory and checks that what it hands out is inside.
///
/// The input: a byte of features, a byte for the size, a byte for where the indices start, and then
/// guest memory from 0 on: descriptors, at 0x400 the available ring, at 0x600 the used ring.
@_cdecl("LLVMFuzzerTestOneInput")
public func ringFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard input.count > 3, let memory = try? GuestMemory(ramSize: 16384) else { return 0 }
  let contents = Array(input[3...].prefix(16384))
  try? memory.write(contents.span, at: 0)
  var features: VirtioFeatures = .version1
  if input[0] & 1 != 0 { features.insert(.indirect) }
  if input[0] & 2 != 0 { features.insert(.eventIndex) }
  let size = UInt16(1) << UInt16(input[1] % 7)
  let addresses = VirtQueue.Addresses(descriptors: 0, available: 0x400, used: 0x600)
  guard
    let queue = try? VirtQueue(
      index: 0, size: size, addresses: addresses, features: features, memory: memory,
      start: VirtQueue.Position(UInt16(input[2]) << 8))
  else { preconditionFailure("a sound ring was refused") }
  var chain = DescriptorChain()
  var taken = 0
  while (try? queue.next(&chain)) == true {
    check(chain)
    if chain.readableCount >= 4 { _ = chain.load(chain.readableCount - 4, as: UInt32.self) }
    chain.dropReadable(min(chain.readableCount, 5))
    if let last = chain.takeLastWritable() { last.store(1 as UInt8, 0) }
    chain.fill(from: [1, 2, 3, 4, 5].span)
    check(chain)
    queue.complete(chain.head, written: 1)
    _ = queue.takeInterruptDecision()
    taken += 1
    // A guest may feed the ring by what the device writes; no machine waits for the end of that.
    if taken > 1000 { break }
  }
  _ = queue.awaitDoorbell()
  return 0
}

private func check(_ chain: DescriptorChain) {
  precondition(chain.readable.allSatisfy { $0.count > 0 && $0.count <= 16384 })
  precondition(chain.writable.allSatisfy { $0.count > 0 && $0.count <= 16384 })
  precondition(chain.readable.reduce(0) { $0 + $1.count } == chain.readableCount)
  precondition(chain.writable.reduce(0) { $0 + $1.count } == chain.writableCount)
  precondition(chain.readable.count + chain.writable.count <= 64 + 1024)
}
