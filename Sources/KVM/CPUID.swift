import CKVM

/// What the CPUID instruction answers in a guest: one entry for each leaf and subleaf.
package struct CPUID: Sendable {
  /// One leaf or subleaf. Corresponds to `struct kvm_cpuid_entry2`.
  package typealias Entry = kvm_cpuid_entry2

  /// The entries, in no particular order.
  package var entries: [Entry]

  /// Takes entries as they are.
  package init(entries: [Entry]) { self.entries = entries }

  /// Changes every entry of `leaf`.
  package mutating func update(leaf: UInt32, _ change: (inout Entry) -> Void) {
    for index in entries.indices where entries[index].function == leaf { change(&entries[index]) }
  }

  /// The entry of `leaf` and `subleaf`, if there is one.
  package func entry(_ leaf: UInt32, _ subleaf: UInt32 = 0) -> Entry? {
    entries.first { $0.function == leaf && $0.index == subleaf }
  }
}
