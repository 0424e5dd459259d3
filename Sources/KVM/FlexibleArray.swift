/// Runs `body` on a C structure that starts with a 32-bit count of elements and ends in an array of
/// them: `kvm_cpuid2`, `kvm_msrs`, `kvm_msr_list`, `kvm_irq_routing`.
///
/// There is room for `capacity` elements, the first of which are `elements`; `array` is CKVM's
/// accessor of the array. Returns what `body` did and the elements as the kernel left them.
func withFlexibleArray<Structure, Element>(
  _ array: (UnsafeMutablePointer<Structure>?) -> UnsafeMutablePointer<Element>?,
  _ elements: [Element], capacity: Int? = nil,
  _ body: (UnsafeMutablePointer<Structure>) -> Int32
) -> (result: Int32, elements: [Element]) {
  let capacity = max(capacity ?? 0, elements.count)
  let size = MemoryLayout<Structure>.size + capacity * MemoryLayout<Element>.stride
  // One zeroed block of the size that the kernel is told of; all below stays inside it because no
  // more than `capacity` elements are copied in or out.
  let block = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
  defer { unsafe block.deallocate() }
  unsafe block.initializeMemory(as: UInt8.self, repeating: 0, count: size)
  unsafe block.storeBytes(of: UInt32(capacity), as: UInt32.self)
  let structure = unsafe block.assumingMemoryBound(to: Structure.self)
  guard let first = unsafe array(structure) else { return (-1, []) }
  for index in elements.indices { unsafe first[index] = elements[index] }
  let result = unsafe body(structure)
  let count = unsafe min(Int(block.load(as: UInt32.self)), capacity)
  return unsafe (result, Array(UnsafeBufferPointer(start: first, count: count)))
}
