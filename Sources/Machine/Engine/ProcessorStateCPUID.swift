import Devices
import KVM

/// What CPUID answers to a guest, as a part of its machine's state: a processor has the same features for as
/// long as the guest may use them.
extension CPUID {
  /// `KVM_MAX_CPUID_ENTRIES`.
  private static let mostEntries = 256

  /// Writes each entry's leaf, subleaf, flags, EAX, EBX, ECX and EDX, four bytes each.
  func save(to state: inout StateWriter) {
    var bytes: [UInt8] = []
    for entry in entries {
      for word in [
        entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx,
      ] { bytes.append(number: word) }
    }
    state.write("KVM_SET_CPUID2", bytes)
  }

  /// Reads them.
  init(from state: StateReader) throws(StateError) {
    let bytes = try state.readBytes("KVM_SET_CPUID2")
    let size = 28
    guard bytes.count % size == 0, bytes.count / size <= Self.mostEntries else {
      throw .size("KVM_SET_CPUID2", bytes: bytes.count)
    }
    self.init(
      entries: stride(from: 0, to: bytes.count, by: size).map { start in
        func word(_ number: Int) -> UInt32 { bytes.number(at: start + 4 * number) }
        var entry = Entry()
        (entry.function, entry.index, entry.flags) = (word(0), word(1), word(2))
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (word(3), word(4), word(5), word(6))
        return entry
      })
  }

  // MARK: Whether a host has it

  /// The words whose bits are features (Intel SDM vol 2A, CPUID; AMD APM vol 3, E; Linux,
  /// Documentation/virt/kvm/x86/cpuid.rst). OSXSAVE and OSPKE are CR4's, and are left out.
  private static let featureWords: [Word] = [
    Word(1, 0, "ECX", { $0.ecx }, changing: 1 << 27), Word(1, 0, "EDX", { $0.edx }),
    Word(7, 0, "EBX", { $0.ebx }),
    Word(7, 0, "ECX", { $0.ecx }, changing: 1 << 4), Word(7, 0, "EDX", { $0.edx }),
    Word(7, 1, "EAX", { $0.eax }),
    Word(0xD, 0, "EAX", { $0.eax }), Word(0xD, 1, "EAX", { $0.eax }),
    Word(0x4000_0001, 0, "EAX", { $0.eax }),
    Word(0x8000_0001, 0, "ECX", { $0.ecx }), Word(0x8000_0001, 0, "EDX", { $0.edx }),
    Word(0x8000_0007, 0, "EDX", { $0.edx }), Word(0x8000_0008, 0, "EBX", { $0.ebx }),
  ]

  private struct Word: Sendable {
    let leaf: UInt32
    let subleaf: UInt32
    let register: String
    let value: @Sendable (Entry) -> UInt32
    /// Bits that come and go while a guest runs.
    let changing: UInt32

    init(
      _ leaf: UInt32, _ subleaf: UInt32, _ register: String,
      _ value: @escaping @Sendable (Entry) -> UInt32, changing: UInt32 = 0
    ) {
      (self.leaf, self.subleaf, self.register) = (leaf, subleaf, register)
      (self.value, self.changing) = (value, changing)
    }
  }

  /// What a guest may count on here that isn't there in `other`, each in words; nothing if it can move.
  func features(beyond other: CPUID) -> [String] {
    func maker(_ cpuid: CPUID) -> [UInt32] {
      cpuid.entry(0).map { [$0.ebx, $0.edx, $0.ecx] } ?? []
    }
    guard maker(self) == maker(other) else { return ["a processor of the same maker"] }
    var lacks: [String] = []
    for word in Self.featureWords {
      let mine = entry(word.leaf, word.subleaf).map(word.value) ?? 0
      let others = other.entry(word.leaf, word.subleaf).map(word.value) ?? 0
      let lack = mine & ~others & ~word.changing
      for bit in 0..<32 where lack & 1 << bit != 0 {
        let subleaf = word.subleaf == 0 ? "" : ".\(word.subleaf)"
        lacks.append("CPUID \(String(word.leaf, radix: 16))\(subleaf) \(word.register)[\(bit)]")
      }
    }
    let (mine, others) = (entry(0x8000_0008)?.eax ?? 0, other.entry(0x8000_0008)?.eax ?? 0)
    if mine & 0xFF > others & 0xFF { lacks.append("\(mine & 0xFF) bits of physical address") }
    if mine >> 8 & 0xFF > others >> 8 & 0xFF {
      lacks.append("\(mine >> 8 & 0xFF) bits of linear address")
    }
    return lacks
  }
}
