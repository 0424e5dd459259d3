import KVM
import Machine
import Memory

/// A linear address followed through the guest's page tables, entry by entry, as the processor would,
/// but without leaving a trace: accessed and dirty bits stay as they are.
///
/// Intel SDM vol 3, chapter 4 "Paging".
package struct PageWalk: Sendable {
  /// How the guest translates.
  package enum Mode: String, Sendable {
    /// Not at all: linear is physical.
    case none = "no paging"
    /// Two levels of 32-bit entries.
    case legacy = "32-bit paging"
    /// Three levels of 64-bit entries.
    case pae = "PAE paging"
    /// Four levels.
    case fourLevel = "4-level paging"
    /// Five levels.
    case fiveLevel = "5-level paging"
  }

  /// One entry that was read.
  package struct Step: Sendable {
    /// The table's name, such as `PDPT`.
    package let table: String
    /// Which of its entries.
    package let index: Int
    /// Where that entry is.
    package let address: GuestAddress
    /// The entry.
    package let entry: UInt64
    /// Whether it maps a page, rather than leading to a table.
    package let isLeaf: Bool

    /// Its bits by letter: Present, Writable, User, Accessed, Dirty, Large, Global, NX.
    package var flags: String {
      let letters: [(bit: UInt64, letter: String)] = [
        (1 << 0, "P"), (1 << 1, "W"), (1 << 2, "U"), (1 << 5, "A"), (1 << 6, "D"), (1 << 7, "L"),
        (1 << 8, "G"), (1 << 63, "NX"),
      ]
      // Above the leaf, dirty and global mean nothing, and in a 4 KiB leaf bit 7 is another's.
      return letters.filter { letter in
        guard entry & letter.bit != 0 else { return false }
        if letter.letter == "L" { return isLeaf && table != "PT" }
        return isLeaf || !["D", "G"].contains(letter.letter)
      }.map(\.letter).joined(separator: " ")
    }
  }

  /// Where it led.
  package enum Result: Sendable, Equatable {
    /// To this guest-physical address, in a page of so many bytes.
    case mapped(GuestAddress, pageSize: UInt64)
    /// The last entry isn't present: a page fault.
    case notPresent
    /// A table is where the guest has no memory.
    case tableOutsideMemory(GuestAddress)
    /// The address has bits that a linear address of this mode can't have.
    case notCanonical
  }

  /// The linear address.
  package let linear: UInt64
  /// How the guest translates.
  package let mode: Mode
  /// CR3.
  package let root: UInt64
  /// The entries that were read, from the top.
  package let steps: [Step]
  /// Where they led.
  package let result: Result

  /// What the leaf and all above it allow: writing, ring 3, and executing.
  package var isWritable: Bool { protects.allSatisfy { $0.entry & 1 << 1 != 0 } }
  /// Whether ring 3 may use the page.
  package var isForUser: Bool { protects.allSatisfy { $0.entry & 1 << 2 != 0 } }
  /// Whether code on the page can run.
  package var isExecutable: Bool { steps.allSatisfy { $0.entry >> 63 == 0 } || mode == .legacy }

  // A PDPT entry of PAE has no rights to give.
  private var protects: [Step] { steps.filter { mode != .pae || $0.table != "PDPT" } }

  /// Walks from `linear` with the tables that `special` leads to.
  package init(_ linear: UInt64, _ special: SpecialRegisters, _ memory: GuestMemory) {
    let mode = Self.mode(special)
    (self.mode, root) = (mode, special.cr3)
    let levels = Self.levels(mode)
    self.linear = mode == .fourLevel || mode == .fiveLevel ? linear : linear & 0xFFFF_FFFF
    let linear = self.linear
    guard let top = levels.first else {
      steps = []
      result = .mapped(GuestAddress(linear), pageSize: GuestMemory.pageSize)
      return
    }
    guard mode == .legacy || mode == .pae || Self.isCanonical(linear, bits: top.shift + 9) else {
      (steps, result) = ([], .notCanonical)
      return
    }
    var steps: [Step] = []
    var result = Result.notPresent
    let isLegacy = mode == .legacy
    var table =
      special.cr3 & (mode == .pae ? 0xFFFF_FFE0 : isLegacy ? 0xFFFF_F000 : Self.addressBits)
    for level in levels {
      let index = Int(linear >> UInt64(level.shift)) & (level.count - 1)
      let address = GuestAddress(table &+ UInt64(index * (isLegacy ? 4 : 8)))
      guard let view = try? memory.view(at: address, count: isLegacy ? 4 : 8) else {
        result = .tableOutsideMemory(address)
        break
      }
      // Loaded once: the guest may be changing it.
      let entry =
        isLegacy ? UInt64(view.load(0, as: UInt32.self)) : view.load(0, as: UInt64.self)
      let isLarge = entry & 1 << 7 != 0 && level.mayBeLarge(special)
      let isLeaf = isLarge || level.shift == 12
      steps.append(
        Step(table: level.name, index: index, address: address, entry: entry, isLeaf: isLeaf))
      guard entry & 1 != 0 else { break }
      if isLeaf {
        let size = UInt64(1) << UInt64(level.shift)
        var frame = entry & (isLegacy ? 0xFFFF_F000 : Self.addressBits) & ~(size - 1)
        // A 4 MiB page has address bits 32 to 39 in bits 13 to 20 (PSE-36).
        if isLegacy && isLarge { frame |= (entry >> 13 & 0xFF) << 32 }
        result = .mapped(GuestAddress(frame | linear & (size - 1)), pageSize: size)
        break
      }
      table = entry & (isLegacy ? 0xFFFF_F000 : Self.addressBits)
    }
    (self.steps, self.result) = (steps, result)
  }

  private static let addressBits: UInt64 = 0x000F_FFFF_FFFF_F000

  private static func isCanonical(_ address: UInt64, bits: Int) -> Bool {
    let high = Int64(bitPattern: address) >> Int64(bits - 1)
    return high == 0 || high == -1
  }

  private static func mode(_ special: SpecialRegisters) -> Mode {
    guard special.cr0 & ControlBit.paging != 0 else { return .none }
    guard special.cr4 & ControlBit.physicalAddressExtension != 0 else { return .legacy }
    guard special.efer & ControlBit.longModeActive != 0 else { return .pae }
    return special.cr4 & 1 << 12 != 0 ? .fiveLevel : .fourLevel
  }

  private struct Level {
    let name: String
    let shift: Int
    let count: Int

    /// Whether bit 7 of an entry makes it a page.
    func mayBeLarge(_ special: SpecialRegisters) -> Bool {
      switch shift {
      case 21: true
      case 22: special.cr4 & 1 << 4 != 0
      case 30: special.efer & ControlBit.longModeActive != 0
      default: false
      }
    }
  }

  private static func levels(_ mode: Mode) -> [Level] {
    let lower = [
      Level(name: "PD", shift: 21, count: 512), Level(name: "PT", shift: 12, count: 512),
    ]
    let long =
      [Level(name: "PML4", shift: 39, count: 512), Level(name: "PDPT", shift: 30, count: 512)]
      + lower
    return switch mode {
    case .none: []
    case .legacy:
      [Level(name: "PD", shift: 22, count: 1024), Level(name: "PT", shift: 12, count: 1024)]
    case .pae: [Level(name: "PDPT", shift: 30, count: 4)] + lower
    case .fourLevel: long
    case .fiveLevel: [Level(name: "PML5", shift: 48, count: 512)] + long
    }
  }
}

extension Machine {
  /// Follows `linear` through the page tables of VCPU `vcpu`, whose thread must not run; nil where
  /// there is no such VCPU or KVM doesn't give its registers.
  package func walk(_ linear: UInt64, vcpu: Int = 0) -> PageWalk? {
    specialRegisters(ofVCPU: vcpu).map { PageWalk(linear, $0, memory) }
  }
}
