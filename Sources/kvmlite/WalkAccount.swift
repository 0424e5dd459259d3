import Inspect
import Machine
import Memory

/// Prints walks of the guest's page tables, for `--walk`.
struct WalkAccount {
  let machine: Machine

  /// Follows `linear` on the first VCPU and tells each entry.
  func tell(_ linear: UInt64) {
    guard let walk = machine.walk(linear) else {
      Message.note("the registers of VCPU 0 can't be read, so nothing can be walked")
      return
    }
    Message.heading(
      "\(GuestAddress(walk.linear)): \(walk.mode.rawValue), CR3 = "
        + "\(GuestAddress(walk.root))")
    for step in walk.steps {
      Message.line(
        "  " + column(step.table, 5) + rightColumn("\(step.index)", 5) + "  "
          + column("at \(step.address)", 16) + column(GuestAddress(step.entry).description, 20)
          + step.flags)
    }
    Message.line("  " + result(walk))
  }

  private func result(_ walk: PageWalk) -> String {
    switch walk.result {
    case .mapped(let address, let size):
      let page = walk.mode == .none ? "" : ", in a page of \(sizeText(size))"
      guard let slot = machine.memoryMap.slot(at: address),
        let place = machine.memory.location(of: address)
      else { return "guest-physical \(address)\(page): no memory there" }
      let offset = GuestAddress(address.value - slot.addresses.lowerBound)
      return "guest-physical \(address)\(page); slot \(slot.number), offset \(offset); in kvmlite "
        + "\(GuestAddress(place.hostAddress))"
    case .notPresent: return "not present: a page fault"
    case .tableOutsideMemory(let address): return "the entry at \(address) is outside memory"
    case .notCanonical: return "no address of this mode: its high bits are not copies of one bit"
    }
  }

  private func sizeText(_ size: UInt64) -> String {
    size >= 1 << 30
      ? "\(size >> 30) GiB" : size >= 1 << 20 ? "\(size >> 20) MiB" : "\(size >> 10) KiB"
  }
}
