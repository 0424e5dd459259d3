import KVM

/// A VCPU's registers as JSON: a number for each, by the names that `struct kvm_regs` and
/// `struct kvm_sregs` have for them.
package enum RegisterNames {
  private typealias Path<Root, Value> = WritableKeyPath<Root, Value> & Sendable

  private static let general: [(String, any Path<Registers, UInt64>)] = [
    ("rax", \.rax), ("rbx", \.rbx), ("rcx", \.rcx), ("rdx", \.rdx), ("rsi", \.rsi), ("rdi", \.rdi),
    ("rsp", \.rsp), ("rbp", \.rbp), ("r8", \.r8), ("r9", \.r9), ("r10", \.r10), ("r11", \.r11),
    ("r12", \.r12), ("r13", \.r13), ("r14", \.r14), ("r15", \.r15), ("rip", \.rip),
    ("rflags", \.rflags),
  ]

  private static let control: [(String, any Path<SpecialRegisters, UInt64>)] = [
    ("cr0", \.cr0), ("cr2", \.cr2), ("cr3", \.cr3), ("cr4", \.cr4), ("cr8", \.cr8),
    ("efer", \.efer), ("apic_base", \.apic_base), ("gdt_base", \.gdt.base),
    ("idt_base", \.idt.base),
  ]

  private static let limits: [(String, any Path<SpecialRegisters, UInt16>)] = [
    ("gdt_limit", \.gdt.limit), ("idt_limit", \.idt.limit),
  ]

  private static let segments: [(String, any Path<SpecialRegisters, Segment>)] = [
    ("cs", \.cs), ("ds", \.ds), ("es", \.es), ("fs", \.fs), ("gs", \.gs), ("ss", \.ss),
    ("tr", \.tr), ("ldt", \.ldt),
  ]

  private static let flags: [(String, any Path<Segment, UInt8>)] = [
    ("type", \.type), ("present", \.present), ("dpl", \.dpl), ("db", \.db), ("s", \.s), ("l", \.l),
    ("g", \.g), ("avl", \.avl), ("unusable", \.unusable),
  ]

  private static func member(_ name: String, _ number: some FixedWidthInteger) -> JSON.Member {
    JSON.Member(name, JSON(.unsigned(UInt64(number))))
  }

  // MARK: To JSON

  /// The general registers.
  package static func json(_ registers: Registers) -> JSON {
    JSON(.object(general.map { member($0.0, registers[keyPath: $0.1]) }))
  }

  /// Control registers, tables, and segments with their hidden parts.
  package static func json(_ registers: SpecialRegisters) -> JSON {
    let segments = segments.map { name, path in
      let segment = registers[keyPath: path]
      let numbers = [
        member("selector", segment.selector), member("base", segment.base),
        member("limit", segment.limit),
      ]
      return JSON.Member(
        name, JSON(.object(numbers + flags.map { member($0.0, segment[keyPath: $0.1]) })))
    }
    return JSON(
      .object(
        control.map { member($0.0, registers[keyPath: $0.1]) }
          + limits.map { member($0.0, registers[keyPath: $0.1]) } + segments))
  }

  // MARK: From JSON

  private static func number<Number: FixedWidthInteger>(_ json: JSON?, _ name: String) -> Number? {
    guard case .unsigned(let number)? = json?[name]?.value else { return nil }
    return Number(exactly: number)
  }

  private static func fill<Root, Value: FixedWidthInteger>(
    _ root: inout Root, _ names: [(String, any Path<Root, Value>)], _ json: JSON?
  ) -> Bool {
    for (name, path) in names {
      guard let value: Value = number(json, name) else { return false }
      root[keyPath: path] = value
    }
    return true
  }

  /// The general registers that `json` has; nil if one is missing or no number.
  package static func general(_ json: JSON?) -> Registers? {
    var registers = Registers()
    return fill(&registers, general, json) ? registers : nil
  }

  /// The others, likewise.
  package static func special(_ json: JSON?) -> SpecialRegisters? {
    var registers = SpecialRegisters()
    guard fill(&registers, control, json), fill(&registers, limits, json) else { return nil }
    for (name, path) in segments {
      var segment = Segment()
      guard let selector: UInt16 = number(json?[name], "selector"),
        let base: UInt64 = number(json?[name], "base"),
        let limit: UInt32 = number(json?[name], "limit"),
        fill(&segment, flags, json?[name])
      else { return nil }
      (segment.selector, segment.base, segment.limit) = (selector, base, limit)
      registers[keyPath: path] = segment
    }
    return registers
  }
}
