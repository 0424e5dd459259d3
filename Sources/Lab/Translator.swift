/// Translates a kernel's code for ring 3, a unit at a time. It knows bytes and addresses alone, nothing of
/// a virtual machine.
///
/// What a translation uses of the guest's flags it leaves as they were, for the kernel may look at them
/// later: MOV, LEA, NOT, PUSH, POP and JRCXZ change none.
struct Translator {
  /// Where things are that translated code uses.
  enum Place {
    /// The virtual interrupt flag: 0x200 or 0, as in RFLAGS.
    static let interruptFlag: UInt32 = 0x20_0000
    static let root: UInt32 = 0x20_0008
    static let savedA: UInt32 = 0x20_0010
    static let savedC: UInt32 = 0x20_0018
    static let index: UInt32 = 0x20_0020
    static let target: UInt32 = 0x20_0028
    /// 1 if a device wants to interrupt, else 0.
    static let pending: UInt32 = 0x20_0030
    static let machineStatus: UInt32 = 0x20_0038
    /// The interrupt table's limit and address, as SIDT stores them.
    static let idt: UInt32 = 0x20_0040
    /// Return addresses of the guest's, by their low byte, and where their translation is.
    static let returns: UInt32 = 0x20_1000
    static let translatedReturns: UInt32 = 0x20_2000
    /// What each port would answer, 8 bytes a port: shadow registers.
    static let inputs: UInt32 = 0x20_3000
    /// The translations.
    static let cache: UInt64 = 0x40_0000
    static let cacheEnd: UInt64 = 0x70_0000
  }

  /// How an instruction was translated.
  enum Way: String { case copied, inline, callout, ending }

  /// One instruction and its translation.
  struct Piece {
    let instruction: GuestInstruction
    let code: [UInt8]
    let way: Way
  }

  /// What the hypervisor has to do at an HLT in the translation, which faults there.
  enum Callout: Equatable {
    /// To do the instruction, and go on behind the HLT unless it leads elsewhere.
    case instruction(GuestInstruction)
    /// To go on at a guest address. The HLT has room for a jump, unless it has to stay.
    case goOn(at: UInt64, stays: Bool = false)
    /// To take the guest's return address from its stack.
    case ret
    /// To let an interrupt in, before the instruction at a guest address.
    case interrupt(before: UInt64)
  }

  /// The translation of a few instructions, up to the next that may go elsewhere.
  struct Unit {
    let start: UInt64
    /// Where it is.
    let place: UInt64
    fileprivate(set) var pieces: [Piece] = []
    /// The HLTs in it, by address.
    fileprivate(set) var callouts: [(place: UInt64, callout: Callout)] = []

    var code: [UInt8] { pieces.flatMap(\.code) }
    var guestBytes: Int { pieces.reduce(0) { $0 + $1.instruction.bytes.count } }
    var end: UInt64 { pieces.last?.instruction.next ?? start }
  }

  /// No unit has more instructions.
  static let longest = 12

  /// Whether returns look into the table of returns.
  let hashesReturns: Bool

  /// The HLT of a callout that a jump can be put over.
  static let stub: [UInt8] = [0xF4, 0x90, 0x90, 0x90, 0x90]

  /// What an IN may become, and as long as that: a load of what the port would answer.
  static func loadInput(_ port: UInt8) -> [UInt8] {
    [0x8A, 0x04, 0x25] + bytes(Place.inputs + UInt32(port) * 8)  // mov al,[place]
  }

  /// A jump from `place` to `target`, as long as a stub.
  static func jump(from place: UInt64, to target: UInt64) -> [UInt8] {
    [0xE9] + bytes(UInt32(truncatingIfNeeded: target &- place &- 5))
  }

  /// Translates the code at `start`, which `fetch` gives up to 15 bytes of, for `place`.
  func unit<Failure: Error>(
    at start: UInt64, place: UInt64, fetch: (UInt64) throws(Failure) -> GuestInstruction
  ) throws(Failure) -> Unit {
    var unit = Unit(start: start, place: place)
    var address = start
    while true {
      let instruction = try fetch(address)
      // An interrupt that STI lets in comes after the next instruction, so that one is in its unit.
      if instruction.kind == .sti && unit.pieces.count == Self.longest - 1 { break }
      address = instruction.next
      if add(instruction, to: &unit) { return unit }
      if unit.pieces.count == Self.longest { break }
    }
    if let last = unit.pieces.popLast() {
      let here = unit.place + UInt64(unit.code.count + last.code.count)
      unit.callouts.append((here, .goOn(at: address)))
      unit.pieces.append(
        Piece(instruction: last.instruction, code: last.code + Self.stub, way: last.way))
    }
    return unit
  }

  /// Adds an instruction's translation; true if it ends the unit.
  private func add(_ instruction: GuestInstruction, to unit: inout Unit) -> Bool {
    let here = unit.place + UInt64(unit.code.count)
    let followsSTI = unit.pieces.last?.instruction.kind == .sti
    func append(_ code: [UInt8], _ way: Way) {
      unit.pieces.append(Piece(instruction: instruction, code: code, way: way))
    }
    func note(_ callout: Callout, at offset: Int) {
      unit.callouts.append((here + UInt64(offset), callout))
    }
    if let code = Self.inline(instruction) {
      let way: Way = instruction.kind == .same ? .copied : .inline
      guard followsSTI || instruction.kind == .popFlags else {
        append(code, way)
        return false
      }
      note(.interrupt(before: instruction.next), at: code.count + Self.interruptOffset)
      append(code + Self.interruptTest, way)
      return false
    }
    switch instruction.kind {
    case .in:
      note(.instruction(instruction), at: 0)
      append([0xF4] + [UInt8](repeating: 0x90, count: Self.loadInput(0).count - 1), .callout)
      return false
    case .jump(let target):
      note(.goOn(at: target, stays: followsSTI), at: 0)
      append(Self.stub, .ending)
    case .branch(let condition, let target):
      // 0f 8x  jcc over the first stub
      let code = [0x0F, 0x80 | condition] + Self.bytes(UInt32(Self.stub.count))
      note(.goOn(at: instruction.next, stays: followsSTI), at: code.count)
      note(.goOn(at: target, stays: followsSTI), at: code.count + Self.stub.count)
      append(code + Self.stub + Self.stub, .ending)
    case .call(let target):
      // 68 id  push the guest's own return address
      let code = [0x68] + Self.bytes(UInt32(truncatingIfNeeded: instruction.next))
      note(.goOn(at: target, stays: followsSTI), at: code.count)
      append(code + Self.stub, .ending)
    case .ret:
      let looksUp = hashesReturns && !followsSTI
      // The miss is where the probe says; without one it's all there is.
      note(.ret, at: looksUp ? Self.missOffset : 0)
      append(looksUp ? Self.probe : [0xF4], .ending)
    default:
      note(.instruction(instruction), at: 0)
      let leadsElsewhere = instruction.kind == .halt || instruction.kind == .interruptReturn
      append([0xF4], leadsElsewhere ? .ending : .callout)
      return leadsElsewhere
    }
    return true
  }

  /// The translation of an instruction that needs no callout; nil for others.
  private static func inline(_ instruction: GuestInstruction) -> [UInt8]? {
    switch instruction.kind {
    case .same: instruction.bytes
    case .cli: setFlag(false)
    case .sti: setFlag(true)
    case .pushFlags: pushFlags
    case .popFlags: popFlags
    case .moveFromCS(let register): constant(8, register)
    case .moveFromCR3(let register): load(Place.root, register)
    case .storeMachineStatus(let register): load(Place.machineStatus, register)
    case .storeIDT(let address): storeIDT(address)
    default: nil
    }
  }

  // MARK: Code

  fileprivate static func bytes(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32($0 * 8)) }
  }

  /// c7 04 25  mov dword ptr [flag],0 or 0x200
  private static func setFlag(_ isOn: Bool) -> [UInt8] {
    [0xC7, 0x04, 0x25] + bytes(Place.interruptFlag) + bytes(isOn ? 0x200 : 0)
  }

  /// b8+r  mov r32,value
  private static func constant(_ value: UInt32, _ register: UInt8) -> [UInt8] {
    (register > 7 ? [0x41] : []) + [0xB8 | register & 7] + bytes(value)
  }

  /// 48 8b  mov r64,[place]
  private static func load(_ place: UInt32, _ register: UInt8) -> [UInt8] {
    [register > 7 ? 0x4C : 0x48, 0x8B, 0x04 | (register & 7) << 3, 0x25] + bytes(place)
  }

  /// 48 89  mov [place],r64
  private static func store(_ place: UInt32, _ register: UInt8) -> [UInt8] {
    [0x48, 0x89, 0x04 | register << 3, 0x25] + bytes(place)
  }

  private static let pushFlags: [UInt8] =
    [
      0x9C,  //                          pushfq, the guest's value
      0x9C,  //                          pushfq, to have the flags back
      0x50,  //                          push rax
      0x48, 0x8B, 0x44, 0x24, 0x10,  //  mov rax,[rsp+16]
      0x25, 0xFF, 0xFD, 0xFF, 0xFF,  //  and eax,~0x200
      0x0B, 0x04, 0x25,  //              or eax,[flag]
    ] + bytes(Place.interruptFlag) + [
      0x48, 0x89, 0x44, 0x24, 0x10,  //  mov [rsp+16],rax
      0x58,  //                          pop rax
      0x9D,  //                          popfq
    ]

  private static let popFlags: [UInt8] =
    [
      0x50,  //                          push rax
      0x48, 0x8B, 0x44, 0x24, 0x08,  //  mov rax,[rsp+8]
      0x25, 0x00, 0x02, 0x00, 0x00,  //  and eax,0x200
      0x89, 0x04, 0x25,  //              mov [flag],eax
    ] + bytes(Place.interruptFlag) + [
      0x58,  //                          pop rax
      0x9D,  //                          popfq: all flags but the interrupt flag
    ]

  /// Leaves if the virtual interrupt flag is set and an interrupt is pending.
  private static let interruptTest: [UInt8] =
    store(Place.savedC, 1) + [0x8B, 0x0C, 0x25] + bytes(Place.pending) + [  // mov ecx,[pending]
      0xE3, UInt8(loadSize + 2 + restoreC.count + 1),  //                     jrcxz out
      0x8B, 0x0C, 0x25,  //                                                   mov ecx,[flag]
    ] + bytes(Place.interruptFlag) + [0xE3, UInt8(restoreC.count + 1)]  //    jrcxz out
    + restoreC + [0xF4] + restoreC  //                                        hlt; out:
  private static let restoreC = load(Place.savedC, 1)
  private static let loadSize = 7
  private static let interruptOffset = interruptTest.count - restoreC.count - 1

  /// Stores the virtual IDTR, 10 bytes, where `address` says.
  private static func storeIDT(_ address: [UInt8]) -> [UInt8] {
    store(Place.savedA, 0) + store(Place.savedC, 1) + address + load(Place.idt, 1) + [
      0x48, 0x89, 0x08,  //        mov [rax],rcx
    ] + load(Place.idt + 8, 1) + [
      0x66, 0x89, 0x48, 0x08,  //  mov [rax+8],cx
    ] + restore
  }

  /// Looks the return address up, without touching the flags.
  private static let probe: [UInt8] = look + restore + [0xF4] + hit
  private static let missOffset = look.count + restore.count
  private static let restore = load(Place.savedC, 1) + load(Place.savedA, 0)
  private static let look: [UInt8] =
    store(Place.savedA, 0) + store(Place.savedC, 1) + [
      0x48, 0x8B, 0x0C, 0x24,  //        mov rcx,[rsp]
      0x0F, 0xB6, 0xC1,  //              movzx eax,cl
    ] + store(Place.index, 0) + [0x48, 0x8B, 0x04, 0xC5] + bytes(Place.returns) + [
      //                                 mov rax,[returns+rax*8]
      0x48, 0xF7, 0xD0,  //              not rax
      0x48, 0x8D, 0x4C, 0x01, 0x01,  //  lea rcx,[rcx+rax+1]: 0 if they are equal
      0xE3, UInt8(restore.count + 1),  // jrcxz hit
    ]
  private static let hit: [UInt8] =
    load(Place.index, 0) + [0x48, 0x8B, 0x04, 0xC5] + bytes(Place.translatedReturns)
    + store(Place.target, 0) + restore + [
      0x48, 0x8D, 0x64, 0x24, 0x08,  //  lea rsp,[rsp+8]
      0xFF, 0x24, 0x25,  //              jmp [target]
    ] + bytes(Place.target)
}
