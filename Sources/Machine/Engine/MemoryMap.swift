import Host
import KVM
import Memory

/// What memory the guest finds where, and the one owner of the numbers of KVM's slots.
///
/// It changes only while the machine stands still. Whoever has to know of each slot listens; KVM is one
/// of them, with another VM after each reset.
package final class MemoryMap: Sendable {
  /// A stretch of a region that the guest has, without gaps.
  package struct Slot: Sendable {
    /// KVM's number for it.
    package let number: UInt32
    /// The region that it is of.
    package let region: GuestMemory.Region
    /// Which part of the region, by offsets.
    package let part: Range<UInt64>

    /// Where the guest has it.
    package var addresses: Range<UInt64> {
      region.start.value + part.lowerBound..<region.start.value + part.upperBound
    }
  }

  private struct State {
    /// By rising address.
    var slots: [Slot] = []
    var listeners: [any MemoryListener] = []
    var kvm: KVMSlots?
    var logsDirtyPages = false
    var hasLostLog = false

    /// KVM goes first: what it refuses nobody needs to hear of.
    var allListeners: [any MemoryListener] { (kvm.map { [$0] } ?? []) + listeners }

    /// Adds what of `region` is at `addresses`.
    mutating func add(_ region: GuestMemory.Region, in addresses: Range<UInt64>) {
      let start = region.start.value
      let part = (start..<start + region.count).clamped(to: addresses)
      guard !part.isEmpty else { return }
      slots.append(
        Slot(
          number: UInt32(slots.count), region: region,
          part: part.lowerBound - start..<part.upperBound - start))
    }
  }

  private let state: RankedMutex<State>

  /// All of `memory` but what is in `hole`.
  init(_ memory: GuestMemory, hole: Range<UInt64>) {
    var state = State()
    for region in memory.regions {
      state.add(region, in: 0..<hole.lowerBound)
      state.add(region, in: hole.upperBound..<UInt64.max)
    }
    self.state = RankedMutex(.memoryMap, state)
  }

  // MARK: Looking

  /// All slots, by rising address.
  package var slots: [Slot] { state.withLock { $0.slots } }

  /// The slot that has `address`; nil where the guest has no memory.
  package func slot(at address: GuestAddress) -> Slot? {
    slots.first { $0.addresses.contains(address.value) }
  }

  // MARK: Changing

  /// Gives the guest all of `region` and returns its slot. Nobody may have it already, nor a listener
  /// refuse it.
  @discardableResult
  package func add(_ region: GuestMemory.Region) throws(MemoryMapError) -> Slot {
    try state.withLock { (state) throws(MemoryMapError) in
      guard region.count > 0, let end = region.start.advanced(by: region.count) else {
        throw .overlap
      }
      let range = region.start.value..<end.value
      guard !state.slots.contains(where: { $0.addresses.overlaps(range) }) else { throw .overlap }
      let taken = Set(state.slots.map(\.number))
      let number = (0...UInt32(taken.count)).first { !taken.contains($0) } ?? UInt32(taken.count)
      let slot = Slot(number: number, region: region, part: 0..<region.count)
      var told: [any MemoryListener] = []
      for listener in state.allListeners {
        do throws(MemoryMapError) { try listener.slotAdded(slot) } catch {
          for listener in told { listener.slotRemoved(slot) }
          throw error
        }
        told.append(listener)
      }
      let place = state.slots.firstIndex { $0.addresses.lowerBound > range.lowerBound }
      state.slots.insert(slot, at: place ?? state.slots.count)
      return slot
    }
  }

  /// Takes the slot `number` away from the guest; nothing happens if there is none.
  package func remove(slot number: UInt32) {
    state.withLock { state in
      guard let index = state.slots.firstIndex(where: { $0.number == number }) else { return }
      let slot = state.slots.remove(at: index)
      for listener in state.allListeners { listener.slotRemoved(slot) }
    }
  }

  // MARK: Listening

  /// Tells `listener` of each slot there is, and of changes from now on.
  package func add(_ listener: any MemoryListener) throws(MemoryMapError) {
    try state.withLock { (state) throws(MemoryMapError) in
      for slot in state.slots { try listener.slotAdded(slot) }
      state.listeners.append(listener)
    }
  }

  /// Makes all slots in `vm`, which has none: it is the guest's from now on.
  func connect(to vm: VM) throws(KVMError) {
    try state.withLock { (state) throws(KVMError) in
      let kvm = KVMSlots(vm)
      for slot in state.slots {
        try kvm.set(slot, logsDirtyPages: state.logsDirtyPages && slot.region.kind == .ram)
      }
      state.kvm = kvm
      // What was in the last one's log is gone with it.
      state.hasLostLog = state.logsDirtyPages
    }
  }

  // MARK: Dirty pages

  /// Notes from now on which pages of RAM the guest writes, or no longer. What kvmlite itself writes for
  /// the guest's devices is not in it.
  package func setDirtyLogging(_ isOn: Bool) throws(KVMError) {
    try state.withLock { (state) throws(KVMError) in
      guard isOn != state.logsDirtyPages else { return }
      for slot in state.slots where slot.region.kind == .ram {
        try state.kvm?.set(slot, logsDirtyPages: isOn)
      }
      (state.logsDirtyPages, state.hasLostLog) = (isOn, false)
    }
  }

  /// The pages of RAM that the guest has written since the last call, by their addresses; nil if nobody
  /// knows, since it has another VM.
  package func takeDirtyPages() throws(KVMError) -> [GuestAddress]? {
    try state.withLock { (state) throws(KVMError) in
      guard !state.hasLostLog else {
        state.hasLostLog = false
        return nil
      }
      guard state.logsDirtyPages, let kvm = state.kvm else { return [] }
      var pages: [GuestAddress] = []
      for slot in state.slots where slot.region.kind == .ram {
        pages += try kvm.takeDirtyPages(of: slot)
      }
      return pages
    }
  }
}

/// Whoever has to know which memory the guest has.
package protocol MemoryListener: AnyObject, Sendable {
  /// The guest has `slot` from now on, unless this throws.
  func slotAdded(_ slot: MemoryMap.Slot) throws(MemoryMapError)
  /// The guest has it no longer.
  func slotRemoved(_ slot: MemoryMap.Slot)
}

/// Why the guest can't have some memory.
package enum MemoryMapError: Error, Equatable, Sendable {
  /// It has other memory there, or there are no such addresses.
  case overlap
  /// KVM refuses.
  case kvm(KVMError)
  /// A listener refuses, in words.
  case refused(String)
}

/// The slots of a VM.
private final class KVMSlots: MemoryListener {
  private let vm: VM

  init(_ vm: VM) { self.vm = vm }

  func set(_ slot: MemoryMap.Slot, logsDirtyPages: Bool) throws(KVMError) {
    try vm.setMemory(
      slot: slot.number, slot.region, part: slot.part, logsDirtyPages: logsDirtyPages)
  }

  func slotAdded(_ slot: MemoryMap.Slot) throws(MemoryMapError) {
    do { try set(slot, logsDirtyPages: false) } catch { throw .kvm(error) }
  }

  func slotRemoved(_ slot: MemoryMap.Slot) {
    // It is there, so KVM takes it away.
    try? vm.removeMemory(slot: slot.number)
  }

  func takeDirtyPages(of slot: MemoryMap.Slot) throws(KVMError) -> [GuestAddress] {
    let count = (slot.part.upperBound - slot.part.lowerBound) / GuestMemory.pageSize
    let log = try vm.dirtyLog(slot: slot.number, pages: Int(count))
    var pages: [GuestAddress] = []
    for (index, word) in log.enumerated() where word != 0 {
      for bit in 0..<64 where word >> UInt64(bit) & 1 != 0 {
        let offset = UInt64(index * 64 + bit) * GuestMemory.pageSize
        pages.append(GuestAddress(slot.addresses.lowerBound + offset))
      }
    }
    return pages
  }
}
