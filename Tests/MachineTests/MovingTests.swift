import Boot
import Devices
import Guests
import Host
import Machine
import Memory
import Storage
import TestSupport
import Testing

/// Machines that are saved at some moment and go on as others.
@Suite("A machine that is moved", .needsKVM, .limited)
struct MovingTests {
  /// A guest with what it needs, and what it must come to.
  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    var buses: [VMConfiguration.Disk.Bus] = []
    /// Where it is not as the guest's source says.
    var output: String?
    var testDescription: String { name }
  }

  static let cases: [Case] = [
    // Everything at once, with two disks.
    Case(
      name: "juggle", buses: [.mmio, .ide],
      output: String(repeating: ".", count: 32) + "\nall right, 2404042880\n"),
    Case(name: "tick"), Case(name: "echo-irq"), Case(name: "rtc-irq"), Case(name: "smp"),
    Case(name: "string-io"),
    Case(name: "ide-dma", buses: [.ide]), Case(name: "ide-pio", buses: [.ide]),
    Case(
      name: "virtio-block", buses: [.mmio], output: "sectors: 128\nwritten\nread back, all right\n"),
  ]

  /// What `example`'s guest has, in whichever machine it is.
  struct Rig {
    let console = ConsoleBuffer()
    let disks: [RAMDisk]
    private(set) var setup: Setup

    init(_ guest: Guest, _ example: Case) {
      disks = example.buses.map { _ in RAMDisk(sectors: 128) }
      setup = Setup(guest.image, mode: guest.mode, console: console)
      setup.vcpuCount = guest.cpus
      setup.memorySize = 8 << 20
      for (disk, bus) in zip(disks, example.buses) { setup.add(disk, bus: bus) }
    }

    /// The first machine: what is typed goes to that one.
    func makeMachine(_ guest: Guest) throws -> Machine {
      var first = setup
      first.type(guest.input)
      return try first.makeMachine()
    }
  }

  /// What became of a guest, however often it was moved.
  private struct End {
    var output: [UInt8] = []
    var disks: [[UInt8]] = []
    var status: Int32 = -1
    var outcome = ""
    var moves = 0
  }

  /// How a machine's memory gets to the next one.
  private enum Way: CaseIterable { case moved, copied, folder, onto }

  /// Takes `saved`, of which the guest's memory is `memory`, there; `kept` are the folders it was in.
  private func carry(
    _ saved: SavedMachine, _ memory: GuestMemory, _ way: Way, _ kept: inout [TemporaryDirectory]
  ) throws -> (SavedMachine, RestoredMemory) {
    switch way {
    case .moved: return (try SavedMachine(bytes: saved.bytes), .moved(memory))
    case .copied:
      return (try SavedMachine(bytes: saved.bytes), .copied(try SavedMemory(copying: memory)))
    case .folder:
      let directory = try TemporaryDirectory()
      try Self.write(saved, memory, to: directory.path)
      let saved = try SavedFolder.open(directory.path)
      let (machine, file) = (saved.machine, saved.memory)
      try file.verify()
      return (machine, .file(file))
    case .onto:
      let directory = try TemporaryDirectory()
      try Self.write(saved, memory, to: directory.path, onto: kept.last?.path)
      kept.append(directory)
      var chain = SavedChain()
      try chain.open(directory.path)
      #expect(chain.links.map(\.path) == kept.suffix(chain.links.count).reversed().map(\.path))
      if chain.links.count == SavedChain.longest {
        kept = [try Self.flatten(chain)]
        chain = SavedChain()
        try chain.open(kept[0].path)
        #expect(chain.links.count == 1)
      }
      try chain.memory.verify()
      return (chain.links[0].machine, .file(chain.memory))
    }
  }

  private static func file(_ name: String, in path: String) throws -> FileDescriptor {
    try FileDescriptor(opening: "\(path)/\(name)", [.readWrite, .create, .exclusive])
  }

  private static func write(
    _ saved: SavedMachine, _ memory: GuestMemory, to path: String, onto base: String? = nil
  ) throws {
    let onto = try base.map { (path) throws in
      var chain = SavedChain()
      try chain.open(path)
      return HeldMachine.Onto(
        path: path, files: chain.links.flatMap { [$0.files.state, $0.files.memory] })
    }
    try SavedFolder.write(
      saved, memory, Resources(), state: file(SavedFolder.state, in: path),
      memory: file(SavedFolder.memory, in: path), onto: onto)
  }

  private static func flatten(_ chain: SavedChain) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    try chain.flatten(
      state: file(SavedFolder.state, in: directory.path),
      memory: file(SavedFolder.memory, in: directory.path)
    ) { _, _ in }
    return directory
  }

  /// Runs `guest` and moves it up to `moves` times, each at a moment of `random`'s choice.
  private func run(
    _ guest: Guest, _ example: Case, moves: Int, _ way: Way, _ random: inout SplitMix
  ) throws -> End {
    let rig = Rig(guest, example)
    var machine = try rig.makeMachine(guest)
    var end = End()
    var kept: [TemporaryDirectory] = []
    while true {
      let mover = try end.moves < moves ? Mover(machine.commands, after: Self.pause(&random)) : nil
      let outcome = machine.run()
      guard let saved = try mover?.result() else {
        (end.status, end.outcome) = (outcome.exitStatus, "\(outcome)")
        break
      }
      end.moves += 1
      let (next, memory) = try carry(saved, machine.memory, way, &kept)
      machine = try Machine(restoring: next, memory, rig.setup.resources, rig.setup.options)
    }
    (end.output, end.disks) = (rig.console.bytes, rig.disks.map(\.bytes))
    return end
  }

  /// So many nanoseconds, mostly few.
  private static func pause(_ random: inout SplitMix) -> UInt64 {
    UInt64.random(in: 0..<(1 << UInt64.random(in: 10...22, using: &random)), using: &random)
  }

  @Test("prints, computes and writes as if it never had been", arguments: cases)
  func randomMoments(example: Case) throws {
    let guest = try #require(Guest.named(example.name))
    var random = SplitMix(UInt64(example.name.utf8.reduce(0) { $0 &* 31 &+ Int($1) }))
    let alone = try run(guest, example, moves: 0, .moved, &random)
    let output = example.output.map { Array($0.utf8) }
    #expect(output.map { $0 == alone.output } ?? guest.expectedOutput.matches(alone.output))
    var moves = 0
    var rounds = 0
    // A guest may end before its first move now and then.
    while moves < Trials.rounds(100), rounds < 1000 {
      let moved = try run(
        guest, example, moves: 10, Way.allCases[rounds % Way.allCases.count], &random)
      let text = String(decoding: moved.output, as: UTF8.self)
      try #require(
        moved.output == alone.output, "\(text) after \(moved.moves) moves: \(moved.outcome)")
      try #require(moved.status == alone.status, "\(moved.outcome)")
      try #require(moved.disks == alone.disks)
      moves += moved.moves
      rounds += 1
    }
    #expect(moves >= Trials.rounds(100))
  }

  // MARK: What was typed

  @Test("has what was typed and not yet read")
  func typed() throws {
    let guest = try #require(Guest.named("echo-irq"))
    let console = ConsoleBuffer()
    var setup = Setup(guest.image, mode: guest.mode, console: console)
    setup.type(guest.input)
    let first = try setup.makeMachine()
    let mover = try Mover(first.commands, after: 0)
    _ = first.run()
    let saved = try #require(try mover.result())
    setup.type(Array("never".utf8))

    let second = try Machine(
      restoring: saved, .moved(first.memory), setup.resources, setup.options)
    let outcome = second.run()

    #expect(guest.expectedOutput.matches(console.bytes), "\(console.text)")
    #expect(outcome.exitStatus == Int32(guest.expectedStatus))
  }

  @Test("sleeps on, and is woken by its clock")
  func suspended() throws {
    let guest = try #require(Guest.named("suspend"))
    let console = ConsoleBuffer()
    let setup = Setup(guest.image, mode: guest.mode, console: console)
    let first = try setup.makeMachine()
    let commands = first.commands
    let mover = try Mover(commands, after: 0) {
      while commands.state != .suspended && commands.state != .ended { HostThread.yield() }
    }
    _ = first.run()
    let saved = try #require(try mover.result())
    #expect(console.text == "Going to sleep.\n")

    let outcome = try Machine(
      restoring: saved, .moved(first.memory), setup.resources, setup.options
    )
    .run()

    #expect(outcome.kind == "poweredOff")
    #expect(guest.expectedOutput.matches(console.bytes), "\(console.text)")
  }

  @Test("has its clocks where they stood, or where they would be", arguments: [false, true])
  func clocks(countsAbsence: Bool) throws {
    let guest = try #require(Guest.named("spin"))
    let setup = Setup(guest.image, mode: guest.mode, console: ConsoleBuffer())
    let first = try setup.makeMachine()
    let mover = try Mover(first.commands, after: 0)
    _ = first.run()
    let saved = try #require(try mover.result())
    // As if it had been saved an hour ago.
    let hour: UInt64 = 3_600_000_000_000
    let field = Array("host-now".utf8) + [8, 0, 0, 0]
    let earlier = SavedMachine(
      sections: saved.sections.map { section in
        var bytes = section.bytes
        let places = bytes.indices.filter { bytes[$0...].starts(with: field) }
        for place in places {
          let value = (place + field.count)..<(place + field.count + 8)
          let then = bytes[value].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) } - hour
          for (shift, index) in value.enumerated() {
            bytes[index] = UInt8(truncatingIfNeeded: then >> UInt64(8 * shift))
          }
        }
        return SavedMachine.Section(name: section.name, version: section.version, bytes: bytes)
      })
    #expect(earlier != saved)

    let second = try Machine(
      restoring: earlier, .moved(first.memory), setup.resources, setup.options,
      countsAbsence: countsAbsence)

    func clock(_ machine: SavedMachine) throws -> UInt64 {
      let engine = try #require(machine.sections.first { $0.name == "engine" })
      return try StateReader(engine.bytes).read("KVM_GET_CLOCK")
    }
    let passed = try clock(second.save()) - clock(saved)
    #expect((passed >= hour) == countsAbsence, "\(passed)")
  }

  // MARK: Once restored

  @Test("can be reset, and starts as it did")
  func reset() throws {
    // Writes a letter, the next one each time, and spins: a reset loads the first one again.
    let guest: [UInt8] = [
      0xA0, 0x10, 0x00,  //        00: mov al,ds:0x10
      0xFE, 0x06, 0x10, 0x00,  //  03: inc BYTE PTR ds:0x10
      0xE6, 0xE9,  //              07: out 0xe9,al
      0xB9, 0x00, 0x40,  //        09: mov cx,0x4000
      0xE2, 0xFE,  //              0c: loop 0xc
      0xEB, 0xF0,  //              0e: jmp 0x0
      0x41,  //                    10: the letter
    ]
    let console = WaitingSink()
    var setup = Setup(guest, mode: .real, console: console)
    setup.restartsAtReset = true
    let first = try setup.makeMachine()
    let mover = try Mover(first.commands, after: 0) { _ = console.wait(forBytes: 3) }
    _ = first.run()
    let saved = try #require(try mover.result())
    let count = console.bytes.count
    let second = try Machine(
      restoring: saved, .moved(first.memory), setup.resources, setup.options)
    let (commands, control) = (second.commands, second.control)
    let resetter = try HostThread.start(name: "reset") {
      _ = console.wait(forBytes: count + 2)
      commands.send(.reset)
      commands.send(.inspect { _ in control.stop(.user) })
    }
    let outcome = second.run()
    resetter.join()

    #expect(outcome.kind == "stopped")
    let letters = console.bytes
    let alone = letters.indices.map { UInt8(truncatingIfNeeded: 0x41 + $0) }
    #expect(letters.count >= count + 2 && letters == alone)
    #expect(try second.memory.read(1, at: 0x10010) == [0x41])
  }

  // MARK: Damage

  /// A machine with a disk that was saved, and all to restore it with.
  private func saved() throws -> (saved: SavedMachine, memory: GuestMemory, setup: Setup) {
    var setup = Setup(TestGuest.spin, mode: .real)
    setup.memorySize = 1 << 20
    setup.add(RAMDisk(sectors: 8))
    let machine = try setup.makeMachine()
    let mover = try Mover(machine.commands, after: 0)
    _ = machine.run()
    return (try #require(try mover.result()), machine.memory, setup)
  }

  @Test("travels as bytes, in which nothing can be changed")
  func bytes() throws {
    let saved = try saved().saved
    let bytes = saved.bytes
    #expect(try SavedMachine(bytes: bytes) == saved)
    var random = SplitMix(7)
    for _ in 0..<Trials.rounds(200) {
      var damaged = bytes
      let place = Int.random(in: damaged.indices, using: &random)
      damaged[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
      #expect(throws: RestoreError.self, "byte \(place)") { try SavedMachine(bytes: damaged) }
      let end = Int.random(in: damaged.indices, using: &random)
      #expect(throws: RestoreError.self, "first \(end)") {
        try SavedMachine(bytes: Array(bytes.prefix(end)))
      }
    }
    #expect(throws: RestoreError.self) { try SavedMachine(bytes: bytes + [0]) }
    let error = #expect(throws: RestoreError.self) { try SavedMachine(bytes: Array("PK".utf8)) }
    #expect(error?.description == "this is no saved machine")
  }

  @Test("is refused with the name of the part that is missing, unknown or can't be")
  func parts() throws {
    let (saved, memory, setup) = try saved()
    func refusal(_ change: (inout [SavedMachine.Section]) -> Void) throws -> String {
      var sections = saved.sections
      change(&sections)
      do throws(RestoreError) {
        _ = try Machine(
          restoring: SavedMachine(sections: sections), .moved(memory), setup.resources,
          setup.options)
        return "nothing"
      } catch { return "\(error)" }
    }
    #expect(try refusal { _ in } == "nothing")
    for section in saved.sections {
      let name = section.name
      #expect(
        try refusal { $0.removeAll { $0.name == name } }
          == "the saved machine is damaged: it lacks \(name)")
      guard name != "spec", name != "input" else { continue }
      let cut = SavedMachine.Section(name: name, version: 1, bytes: section.bytes + [9])
      #expect(
        try refusal { $0[$0.firstIndex(of: section) ?? 0] = cut }.contains("damaged: \(name): "))
    }
    #expect(
      try refusal { $0.append(.init(name: "device/disk7", version: 1, bytes: [])) }
        == "the saved machine has device/disk7, which it has no device for")
    let engine = try #require(saved.sections.first { $0.name == "engine" })
    let newer = SavedMachine.Section(name: "engine", version: 2, bytes: engine.bytes)
    #expect(
      try refusal { $0[$0.firstIndex(of: engine) ?? 0] = newer }
        == "engine was saved in form 2, which this kvmlite doesn't know")
  }

  @Test("is refused, or runs, whatever bytes its parts have")
  func hostile() throws {
    let (saved, memory, setup) = try saved()
    var random = SplitMix(11)
    var refused = 0
    for _ in 0..<Trials.rounds(60) {
      let sections = saved.sections.map { section in
        var bytes = section.bytes
        for _ in 0..<3 where !bytes.isEmpty && Bool.random(using: &random) {
          bytes[Int.random(in: bytes.indices, using: &random)] = .random(
            in: 0...255, using: &random)
        }
        return SavedMachine.Section(name: section.name, version: 1, bytes: bytes)
      }
      do throws(RestoreError) {
        _ = try Machine(
          restoring: SavedMachine(sections: sections), .moved(memory), setup.resources,
          setup.options)
      } catch { refused += 1 }
    }
    #expect(refused > 0)
  }

  /// Says `s` and then, again and again, whether CPUID tells of a hypervisor (leaf 1, ECX bit 31).
  private static let asking: [UInt8] = [
    0xB0, 0x73, 0xE6, 0xE9,  //  mov al, 's'; out 0xE9, al
    0x66, 0xB8, 1, 0, 0, 0, 0x0F, 0xA2,  //  mov eax, 1; cpuid
    0x66, 0xC1, 0xE9, 31, 0x80, 0xC1, 0x30,  //  shr ecx, 31; add cl, '0'
    0x88, 0xC8, 0xE6, 0xE9, 0xEB, 0xEB,  //  mov al, cl; out 0xE9, al; jmp to the mov eax
  ]

  @Test("goes on with the features that it had, after a reset too, and not where those lack")
  func features() throws {
    let first = WaitingSink()
    var setup = Setup(Self.asking, mode: .real, console: first)
    setup.memorySize = 1 << 20
    let machine = try setup.makeMachine()
    let mover = try Mover(machine.commands, after: 0) { _ = first.wait(forBytes: 3) }
    _ = machine.run()
    let saved = try #require(try mover.result())
    #expect(first.text.contains(/^s1+$/))

    /// A machine that goes on with `change` made to the ECX of leaf 1 (Intel SDM vol 2A, CPUID).
    func restored(_ change: (inout [UInt8], Int) -> Void) throws -> Machine {
      var sections = saved.sections
      let index = try #require(sections.firstIndex { $0.name == "engine" })
      var bytes = sections[index].bytes
      let start = try #require(bytes.firstRange(of: Array("KVM_SET_CPUID2".utf8))).upperBound + 4
      let entries = stride(from: start, to: bytes.count, by: 28)
      let leaf = try #require(entries.first { bytes[$0] == 1 && bytes[$0 + 3] == 0 })
      change(&bytes, leaf + 20)
      sections[index] = .init(name: "engine", version: 1, bytes: bytes)
      return try Machine(
        restoring: SavedMachine(sections: sections), .moved(machine.memory), setup.resources,
        setup.options)
    }
    let second = WaitingSink()
    setup.resources.console?.output = .sink(second)
    let other = try restored { $0[$1 + 3] &= 0x7F }
    let commands = other.commands
    let last = try Mover(commands, after: 0) {
      _ = second.wait(forBytes: 2)
      commands.send(.reset)
      var count = 3
      while second.wait(forBytes: count), !second.text.contains(/s./) { count += 1 }
    }
    _ = other.run()
    _ = try last.result()
    #expect(second.text.contains(/^0+s0+$/), "\(second.text)")

    // A reserved bit, which no host has.
    let error = try #require(throws: RestoreError.self) { _ = try restored { $0[$1 + 2] |= 1 } }
    #expect(
      "\(error)" == "this host can't go on with the saved machine: it lacks CPUID 1 ECX[16] "
        + "(a machine whose cpu is baseline needs less)")
  }

  @Test("has all of its processor's state, its controllers' and its timer's")
  func engine() throws {
    let (saved, memory, setup) = try saved()
    var sections = saved.sections
    let index = try #require(sections.firstIndex { $0.name == "engine" })
    var bytes = sections[index].bytes
    /// Where the value of the field `name` is.
    func place(_ name: String) throws -> Int {
      let name = [UInt8(name.utf8.count)] + Array(name.utf8)
      return try #require(bytes.firstRange(of: name)).upperBound + 4
    }
    let patches: [(name: String, offset: Int, value: UInt8)] = [
      ("KVM_GET_MP_STATE", 0, 3), ("KVM_GET_REGS", 15 * 8, 0x5A), ("KVM_GET_SREGS", 0, 0x60),
      ("KVM_GET_XSAVE2", 160, 7), ("KVM_GET_XSAVE2", 512, 3), ("KVM_GET_DEBUGREGS", 8, 0x11),
      ("KVM_GET_LAPIC", 0x370, 0x33), ("KVM_GET_VCPU_EVENTS", 14, 1),
    ]
    for patch in patches { bytes[try place(patch.name) + patch.offset] = patch.value }
    sections[index] = .init(name: "engine", version: 1, bytes: bytes)

    let machine = try Machine(
      restoring: SavedMachine(sections: sections), .moved(memory), setup.resources, setup.options)
    let again = try machine.save().sections[index].bytes

    let (old, new) = try (StateReader(bytes), StateReader(again))
    #expect(again.count == bytes.count)
    for patch in patches {
      let at = try place(patch.name) + patch.offset
      #expect(again[at] == patch.value, "\(patch.name) at \(patch.offset)")
    }
    for name: StaticString in [
      "KVM_GET_MP_STATE", "KVM_GET_REGS", "KVM_GET_SREGS", "KVM_GET_DEBUGREGS",
      "KVM_GET_VCPU_EVENTS",
    ] {
      #expect(
        try new.group("vcpu0").readBytes(name) == old.group("vcpu0").readBytes(name), "\(name)")
    }
    for chip in 0...2 {
      let name = "KVM_GET_IRQCHIP \(chip)"
      var (before, after) = try (
        old.group(name).readBytes("chip"), new.group(name).readBytes("chip")
      )
      // Which inputs are raised: the timer goes on (struct kvm_pic_state, kvm_ioapic_state).
      for byte in chip < 2 ? 0..<2 : 16..<20 { (before[byte], after[byte]) = (0, 0) }
      #expect(before == after, "\(name)")
    }
    #expect(try new.read("KVM_GET_CLOCK", as: UInt64.self) >= old.read("KVM_GET_CLOCK"))
    // What devices have is as it was, but for the time.
    for (before, after) in zip(saved.sections, try machine.save().sections)
    where !["engine", "device/rtc", "device/power"].contains(before.name) {
      #expect(before == after)
    }
  }

  @Test("goes on from a folder, in which damage is found")
  func folder() throws {
    let (saved, memory, setup) = try saved()
    let directory = try TemporaryDirectory()
    let path = directory.path
    try memory.write([1, 2, 3].span, at: 0x8_1000)
    try Self.write(saved, memory, to: path)
    func file(_ name: String) throws -> FileDescriptor {
      try FileDescriptor(opening: "\(path)/\(name)", [.readWrite])
    }
    func machine() throws(RestoreError) -> Machine {
      let saved = try SavedFolder.open(path)
      let (machine, memory) = (saved.machine, saved.memory)
      return try Machine(restoring: machine, .file(memory), setup.resources, setup.options)
    }
    // What one machine writes no other sees, nor the file.
    let (first, second) = (try machine(), try machine())
    try first.memory.write([9].span, at: 0x8_1000)
    #expect(try second.memory.read(3, at: 0x8_1000) == [1, 2, 3])
    try SavedFolder.open(path).memory.verify()

    try file(SavedFolder.memory).writeAll([7].span, at: 0x9_0000)
    let damaged = try #require(throws: RestoreError.self) {
      try SavedFolder.open(path).memory.verify()
    }
    #expect(
      "\(damaged)"
        == "the saved machine is damaged: its memory at \(GuestAddress(0x9_0000)) isn't what was saved"
    )
    try file(SavedFolder.memory).setLength(0x8_0000)
    #expect(throws: RestoreError.self) { _ = try machine() }

    let length = try file(SavedFolder.state).status().count
    try file(SavedFolder.state).setLength(UInt64(length - 1))
    #expect(throws: RestoreError.self) { _ = try SavedFolder.open(path) }
    try file(SavedFolder.state).setLength(0)
    let empty = try #require(throws: RestoreError.self) { _ = try SavedFolder.open(path) }
    #expect("\(empty)" == "this is no saved machine")
  }

  @Test("is refused, or runs, whatever its folder says of memory")
  func hostileFolder() throws {
    let (saved, memory, setup) = try saved()
    let directory = try TemporaryDirectory()
    try Self.write(saved, memory, to: directory.path)
    let path = "\(directory.path)/\(SavedFolder.state)"
    let whole = try SavedMachine(bytes: WholeFile.contents(of: path, limit: 1 << 30))
    var random = SplitMix(17)
    var refused = 0
    for _ in 0..<Trials.rounds(200) {
      let sections = whole.sections.map { section in
        guard ["memory", "disks", "origin"].contains(section.name) else { return section }
        var bytes = section.bytes
        // Numbers of regions are at the beginning; behind them are checksums.
        for _ in 0..<3 {
          let end = min(120, bytes.count)
          bytes[.random(in: 0..<end, using: &random)] = .random(in: 0...255, using: &random)
        }
        return SavedMachine.Section(name: section.name, version: 1, bytes: bytes)
      }
      let file = try FileDescriptor(opening: path, [.writeOnly, .truncate])
      try file.writeAll(SavedMachine(sections: sections).bytes.span)
      do throws(RestoreError) {
        let saved = try SavedFolder.open(directory.path)
        let (machine, memory) = (saved.machine, saved.memory)
        try? memory.verify()
        _ = try Machine(restoring: machine, .file(memory), setup.resources, setup.options)
      } catch { refused += 1 }
    }
    #expect(refused > 0)
  }

  @Test("has on disk only the pages that were changed since the save that it was made onto")
  func onto() throws {
    let (saved, memory, setup) = try saved()
    let folders = try (0..<3).map { _ in try TemporaryDirectory() }
    let paths = folders.map(\.path)
    func fill(_ address: GuestAddress, _ count: Int, _ byte: UInt8) throws {
      try memory.write([UInt8](repeating: byte, count: count).span, at: address)
    }
    try fill(0x2_0000, 0x8_0000, 1)
    try Self.write(saved, memory, to: paths[0])
    // Two pages, one that was zero, one that is zero now, and a stretch.
    try fill(0x3_0FFF, 2, 2)
    try fill(0xC_0000, 1, 4)
    try fill(0x4_0000, 0x1000, 0)
    try fill(0x5_0000, 0x4_0000, 3)
    try Self.write(saved, memory, to: paths[1], onto: paths[0])
    try fill(0x3_0FFF, 1, 1)
    try Self.write(saved, memory, to: paths[2], onto: paths[1])

    let contents = try memory.read(1 << 20, at: 0)
    var chain = SavedChain()
    try chain.open(paths[2])
    #expect(chain.links.map(\.base?.pages.count) == [1, 68, nil])
    try chain.memory.verify()
    let flat = try Self.flatten(chain)
    for chain in [chain.memory, try SavedFolder.open(flat.path).memory] {
      let (first, second) = try (
        Machine(restoring: saved, .file(chain), setup.resources, setup.options),
        Machine(restoring: saved, .file(chain), setup.resources, setup.options)
      )
      try first.memory.write([9].span, at: 0x5_0000)
      #expect(try second.memory.read(1 << 20, at: 0) == contents)
    }
    // What the guest gives back of it is gone from its memory, and so from its next save.
    let restored = try Machine(
      restoring: saved, .file(chain.memory), setup.resources, setup.options)
    #expect(try restored.memory.giveBack(at: 0x5_0800, count: 0x3_1800) == 0x3_1000)
    #expect(try restored.memory.giveBack(at: 0x9_1000, count: 0x1000) == 0x1000)
    #expect(
      try restored.memory.read(0x801, at: 0x5_0800) == [UInt8](repeating: 3, count: 0x800) + [0])
    #expect(try restored.memory.read(0x2001, at: 0x9_0000).filter { $0 == 0 }.count == 0x1000)
    let smaller = try TemporaryDirectory()
    try Self.write(saved, restored.memory, to: smaller.path)
    func allocated(_ folder: TemporaryDirectory) throws -> UInt64 {
      try FileFacts(of: folder.path + "/memory").allocated
    }
    // The file system may take a few blocks of its own.
    #expect(try allocated(smaller) + 0x3_0000 <= allocated(flat))
  }

  @Test("is refused where a save that it needs is missing, another one, or damaged")
  func ontoOther() throws {
    let (saved, memory, _) = try saved()
    let folders = try (0..<4).map { _ in try TemporaryDirectory() }
    let paths = folders.map(\.path)
    func refusal(_ path: String) -> String {
      do throws(RestoreError) {
        try SavedFolder.open(path).memory.verify()
        return "nothing"
      } catch { return "\(error)" }
    }
    for (path, base) in zip(paths, [nil, paths[0], paths[1]]) {
      try memory.write([UInt8](repeating: 1, count: 0x1000).span, at: 0x3_0000)
      try Self.write(saved, memory, to: path, onto: base)
    }
    #expect(refusal(paths[2]) == "nothing")
    let state = paths[0] + "/state"
    let bytes = try WholeFile.contents(of: state, limit: 1 << 30)
    func change(_ bytes: [UInt8]) throws {
      try FileDescriptor(opening: state, [.writeOnly, .truncate]).writeAll(bytes.span)
    }
    try change(Array(bytes.dropLast()))
    #expect(
      refusal(paths[2]).hasPrefix("it was made onto \(paths[0]): the saved machine is damaged"))
    try change(bytes)
    // The same machine, but not the same save.
    try Self.write(saved, memory, to: paths[3])
    try change(try WholeFile.contents(of: paths[3] + "/state", limit: 1 << 30))
    #expect(
      refusal(paths[2])
        == "it was made onto a save that was at \(paths[0]), where there is another one now")
    try change(bytes)
    try FileDescriptor(opening: paths[0] + "/memory", [.readWrite]).writeAll([7].span, at: 0x3_0000)
    #expect(refusal(paths[2]).contains("its memory at \(GuestAddress(0x3_0000)) isn't"))
    FileName.remove(paths[0] + "/memory")
    #expect(refusal(paths[2]).hasPrefix("it was made onto \(paths[0]), which can't be read: "))
  }

  @Test("needs no more saves than there may be, even if they are made onto each other")
  func endlessChain() throws {
    let (saved, memory, _) = try saved()
    let (first, second) = (try TemporaryDirectory(), try TemporaryDirectory())
    try Self.write(saved, memory, to: first.path)
    try Self.write(saved, memory, to: second.path, onto: first.path)
    // One that says of itself that it was made onto itself.
    let path = second.path + "/state"
    let machine = try SavedMachine(bytes: WholeFile.contents(of: path, limit: 1 << 30))
    var sections = machine.sections.filter { $0.name != "origin" }
    let origin = try SavedMachine(
      bytes: WholeFile.contents(of: first.path + "/state", limit: 1 << 30)
    )
    .sections.first { $0.name == "origin" }
    sections.append(try #require(origin))
    try FileDescriptor(opening: path, [.writeOnly, .truncate])
      .writeAll(SavedMachine(sections: sections).bytes.span)
    FileName.remove(first.path + "/state")
    FileName.remove(first.path + "/memory")
    for name in ["state", "memory"] {
      let bytes = try WholeFile.contents(of: "\(second.path)/\(name)", limit: 1 << 30)
      try FileDescriptor(opening: "\(first.path)/\(name)", [.writeOnly, .create])
        .writeAll(bytes.span)
    }
    let error = #expect(throws: RestoreError.self) { try SavedFolder.open(second.path) }
    #expect("\(try #require(error))".contains("more than \(SavedChain.longest) in all"))
  }

  @Test("is refused with memory of another size")
  func otherMemory() throws {
    let (saved, _, setup) = try saved()
    let other = try GuestMemory(ramSize: 2 << 20)
    let error = #expect(throws: RestoreError.self) {
      try Machine(restoring: saved, .moved(other), setup.resources, setup.options)
    }
    #expect(error?.description == "the memory isn't that of the saved machine")
  }

  @Test("leaves the pages of its memory that are zero behind")
  func sparse() throws {
    let memory = try GuestMemory(ramSize: 4 << 20, roms: [(0xFFFF_0000, [1, 2, 3])])
    try memory.write([5, 6].span, at: 0x1FFF)
    try memory.write([7].span, at: 0x3F_FFFF)
    let copy = try SavedMemory(copying: memory)
    #expect(copy.byteCount == 4 * 4096)
  }
}
