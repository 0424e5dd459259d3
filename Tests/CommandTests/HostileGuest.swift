import TestSupport

/// A guest made at random, which attacks the machine's devices from each of its VCPUs: a flat image for
/// long mode, without an order that it would follow. The same seed gives the same bytes.
struct HostileGuest {
  static let vcpus = 3
  /// The machine that it attacks has so much memory.
  static let memory: UInt32 = 64 << 20

  private static let start: UInt32 = 0x1_0000
  private static let trampoline: UInt32 = 0x1_1000
  private static let entry: UInt32 = 0x1_1100
  private static let gates: UInt32 = 0x1_2000
  private static let bodies: UInt32 = 0x1_4000
  private static let bodySize: UInt32 = 0x4000
  // What the rings are in, and what their descriptors mostly point to.
  private static let rings: UInt32 = 0x4_0000
  private static let data: UInt32 = 0x5_0000

  /// The image, to be loaded at 0x10000.
  private(set) var image: [UInt8] = []
  private var numbers: SplitMix

  init(seed: UInt64) {
    numbers = SplitMix(seed)
    startOthers()
    pad(to: Self.trampoline)
    enterLongMode()
    pad(to: Self.bodies)
    for vcpu in 0..<UInt32(Self.vcpus) { addBody(at: Self.bodies + vcpu * Self.bodySize) }
  }

  private mutating func code(_ bytes: UInt8...) { image += bytes }

  private mutating func word(_ value: UInt32) {
    image += (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  private mutating func pad(to address: UInt32) {
    image += [UInt8](repeating: 0x90, count: Int(address - Self.start) - image.count)
  }

  private mutating func any<Element>(_ elements: [Element]) -> Element {
    elements[Int(numbers.next() % UInt64(elements.count))]
  }

  private mutating func below(_ bound: UInt32) -> UInt32 {
    UInt32(truncatingIfNeeded: numbers.next() % UInt64(bound))
  }

  // MARK: Getting all VCPUs to their bodies

  /// INIT and SIPI to all others (SDM 3, 11.6.1), which leave page tables and code for them.
  private mutating func startOthers() {
    code(0x0F, 0x20, 0xD8)  // mov rax,cr3
    code(0x89, 0x04, 0x25)  // mov [0x11f00],eax
    word(Self.trampoline + 0xF00)
    for command in [0xC4500, 0xC4600 | Self.trampoline >> 12, 0xC4600 | Self.trampoline >> 12] {
      store(0xFEE0_0300, 4, command)
    }
    code(0xE9)  // jmp to where all others begin, too
    word(Self.entry - Self.start - UInt32(image.count) - 4)
  }

  private mutating func enterLongMode() {
    code(0xFA)  //                               cli
    code(0x2E, 0x66, 0x0F, 0x01, 0x16, 0x20, 0x0F)  // lgdt cs:[0xf20]
    code(0x66, 0xB8, 0x20, 0x00, 0x00, 0x00)  // mov eax,0x20
    code(0x0F, 0x22, 0xE0)  //                   mov cr4,eax
    code(0x66, 0x2E, 0xA1, 0x00, 0x0F)  //       mov eax,cs:[0xf00]
    code(0x0F, 0x22, 0xD8)  //                   mov cr3,eax
    code(0x66, 0xB9, 0x80, 0x00, 0x00, 0xC0)  // mov ecx,0xc0000080
    code(0x0F, 0x32)  //                         rdmsr
    code(0x66, 0x0D, 0x00, 0x01, 0x00, 0x00)  // or eax,0x100
    code(0x0F, 0x30)  //                         wrmsr
    code(0x66, 0xB8, 0x11, 0x00, 0x00, 0x80)  // mov eax,0x80000011
    code(0x0F, 0x22, 0xC0)  //                   mov cr0,eax
    code(0x66, 0xEA)  //                         jmp 0x8:0x11100
    word(Self.entry)
    code(0x08, 0x00)
    pad(to: Self.entry)
    enterBody()
    pad(to: Self.trampoline + 0xF20)
    code(0x0F, 0x00)  // the GDT's limit and base
    word(Self.trampoline + 0xF30)
    pad(to: Self.trampoline + 0xF30)
    for half: UInt32 in [0, 0, 0, 0x0020_9A00] { word(half) }
    pad(to: Self.trampoline + 0xF40)
    code(0xFF, 0x0F)  // the IDT's limit and base
    word(Self.gates)
    word(0)
    pad(to: Self.gates)
    for _ in 0..<256 {
      for part in [0x8_0000 | Self.entry & 0xFFFF, Self.entry & 0xFFFF_0000 | 0x8E00, 0, 0] {
        word(part)
      }
    }
  }

  /// Where a VCPU begins, and again after each interrupt and exception.
  private mutating func enterBody() {
    code(0x0F, 0x01, 0x1C, 0x25)  // lidt [0x11f40]
    word(Self.trampoline + 0xF40)
    store(0xFEE0_00B0, 4, 0)  //     the end of an interrupt
    code(0xBB)  //                   mov ebx,0xfee00020
    word(0xFEE0_0020)
    code(0x8B, 0x03)  //             mov eax,[rbx]: this VCPU's APIC ID
    code(0xC1, 0xE8, 24)  //         shr eax,24
    code(0xC1, 0xE0, 14)  //         shl eax,14
    code(0x05)  //                   add eax,0x14000
    word(Self.bodies)
    code(0x8D, 0xA0)  //             lea esp,[rax+0x20000]
    word(0x2_0000)
    code(0xFF, 0xE0)  //             jmp rax
  }

  // MARK: The attack

  /// One VCPU's: R15 holds numbers that look random, others each time round.
  private mutating func addBody(at address: UInt32) {
    pad(to: address)
    code(0x49, 0xBF)  // mov r15,...
    word(below(.max))
    word(below(.max))
    let loop = image.count
    for function in [8, 9] + (2..<8).map({ $0 * 8 }) {
      configure(UInt32(function), 4, width: 2, 7)  // command: ports, memory, bus master
    }
    while image.count - Int(address - Self.start) < Int(Self.bodySize) - 0x400 {
      code(0x4D, 0x69, 0xFF)  // imul r15,r15,...
      word(below(.max) | 5)
      code(0x49, 0x81, 0xC7)  // add r15,...
      word(below(1 << 31))
      attack()
    }
    if below(2) == 0 { addEnding() }
    code(0xE9)  // jmp to the loop's start
    word(UInt32(bitPattern: Int32(loop - image.count - 4)))
  }

  private mutating func attack() {
    switch below(20) {
    case 0..<6: accessPort()
    case 6..<11: accessMemory()
    case 11..<14: setUpQueue()
    case 14: driveDisk()
    case 15: repeatPort()
    case 16, 17:
      configure(any([0, 8, 9, 16, 24, 32, 40, 48, 56]), below(64) * 4, width: any([1, 2, 4]))
    case 18: below(3) == 0 ? code(any([0xFB, 0xFA])) : setBusMaster()  // sti, cli
    default:
      code(0xB9)  // mov ecx,...; loop to itself: no exit at all
      word(below(100_000) + 1)
      code(0xE2, 0xFE)
    }
  }

  /// EAX: a value of note, a random one, or one that is another each time.
  private mutating func loadValue() {
    guard below(3) > 0 else {
      code(0x44, 0x89, 0xF8)  // mov eax,r15d
      return
    }
    let known: [UInt32] = [
      0, 1, 2, 3, 4, 7, 0xB, 0xF, 0x10, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x8000_0000, .max,
      Self.rings, Self.data, Self.memory - 1, 0xC010_0000, 0xFEE0_0000,
    ]
    code(0xB8)  // mov eax,...
    word(below(2) == 0 ? any(known) : below(.max))
  }

  private static let ports: [ClosedRange<UInt32>] = [
    0x20...0x21, 0x40...0x43, 0x60...0x61, 0x70...0x71, 0x80...0x80, 0xA0...0xA1, 0xE9...0xE9,
    0x170...0x177, 0x1F0...0x1F7, 0x376...0x376, 0x3F6...0x3F6, 0x3F8...0x3FF, 0x4D0...0x4D1,
    0x510...0x511, 0x600...0x603, 0x608...0x60B, 0xCF8...0xCF8, 0xCFC...0xCFF, 0xC000...0xC00F,
  ]

  private mutating func loadPort() {
    let range = any(Self.ports)
    code(0xBA)  // mov edx,...
    word(range.lowerBound + below(UInt32(range.count)))
  }

  private mutating func accessPort() {
    loadPort()
    loadValue()
    image += any([[0xEE], [0x66, 0xEF], [0xEF], [0xEC], [0x66, 0xED], [0xED]])  // out, in
  }

  /// A string, to and from memory.
  private mutating func repeatPort() {
    loadPort()
    code(0xBE)  // mov esi,...
    word(Self.data + below(0x1_0000))
    code(0xBF)  // mov edi,...
    word(Self.data + below(0x1_0000))
    code(0xB9)  // mov ecx,...
    word(below(0x300))
    image += any([[0xF3, 0x6C], [0x66, 0xF3, 0x6D], [0xF3, 0x6D]])  // rep ins
    image += any([[0xF3, 0x6E], [0x66, 0xF3, 0x6F], [0xF3, 0x6F]])  // rep outs
  }

  private mutating func accessMemory() {
    let place: UInt32
    switch below(8) {
    case 0: place = 0xC000_0000 + below(0x10_0000)  // PCI's configuration as memory
    case 1: place = 0xC010_0000 + below(0x1200)  // virtio on MMIO, and behind it
    case 2: place = 0xFEC0_0000 + any([0, 0x10])  // the IOAPIC
    case 3: place = 0xFEE0_0000 + below(0x30) * 16  // the local APIC, without its ICR
    case 4: place = 0xC101_4000 + below(0x5000)  // MSI-X tables
    case 5: place = Self.rings + below(0x4000)
    default: place = 0xC100_0000 + below(5) * 0x4000 + below(4) * 0x1000 + below(0x60)
    }
    code(0xBB)  // mov ebx,...
    word(place)
    loadValue()
    image += any([
      [0x88, 0x03], [0x66, 0x89, 0x03], [0x89, 0x03], [0x48, 0x89, 0x03],  // mov [rbx],al ... rax
      [0x8A, 0x03], [0x66, 0x8B, 0x03], [0x8B, 0x03], [0x48, 0x8B, 0x03],  // mov al ... rax,[rbx]
      [0x87, 0x03],  // xchg [rbx],eax
    ])
  }

  private mutating func store(_ address: UInt32, _ width: Int, _ value: UInt32) {
    code(0xBB)  // mov ebx,...
    word(address)
    code(0xB8)  // mov eax,...
    word(value)
    image += width == 1 ? [0x88, 0x03] : width == 2 ? [0x66, 0x89, 0x03] : [0x89, 0x03]
  }

  private mutating func output(_ port: UInt32, _ width: Int, _ value: UInt32) {
    code(0xBA)  // mov edx,...
    word(port)
    code(0xB8)  // mov eax,...
    word(value)
    image += width == 1 ? [0xEE] : width == 2 ? [0x66, 0xEF] : [0xEF]
  }

  /// A configuration register of a PCI function: `value`, or any.
  private mutating func configure(
    _ function: UInt32, _ register: UInt32, width: Int, _ value: UInt32? = nil
  ) {
    output(0xCF8, 4, 0x8000_0000 | function << 8 | register)
    output(0xCFC, width, value ?? any([0, .max, 0xC100_0000, 0xC001, below(.max)]))
  }

  // MARK: Queues

  /// Where a descriptor points to: mostly to data, else to where it hurts.
  private mutating func place() -> UInt32 {
    below(4) > 0
      ? Self.data + below(0x1000) * 16
      : any([
        0, 0x1000, Self.start, Self.rings, Self.memory - 8, 0xC010_0000, 0xFFFF_F000, below(.max),
      ])
  }

  /// A device with a queue as its driver would set it up, but for what is random in it.
  private mutating func setUpQueue() {
    let queue = below(4), size: UInt32 = any([1, 4, 16, 32, 3, 0x8000, 0xFFFF])
    let ring = below(8) > 0 ? Self.rings + queue * 0x1000 : place()
    let areas = [ring, ring + 0x400, ring + 0x800]
    for index in 0..<4 { addDescriptor(ring + UInt32(index) * 16, next: UInt32(index) + 1) }
    store(Self.data + below(16) * 16, 4, below(12))  // a block request's kind
    store(ring + 0x404, 4, below(4) | below(8) << 16)
    store(ring + 0x400, 4, any([1, 2, 4, 0x8000, 0xFFFF]) << 16)
    let device = below(6)
    let base = device == 5 ? 0xC010_0000 : 0xC100_0000 + device * 0x4000
    device == 5
      ? driveMMIO(base, queue, size, areas) : drivePCI(base, queue, size, areas)
  }

  private mutating func addDescriptor(_ address: UInt32, next: UInt32) {
    store(address, 4, place())
    store(address + 4, 4, below(16) == 0 ? below(.max) : 0)
    store(address + 8, 4, any([0, 1, 16, 512, 4096, 0x1_0000, .max]))
    let link = below(8) == 0 ? below(0x1_0000) : next
    store(address + 12, 4, any([0, 1, 1, 2, 3, 3, 4, 5, 7]) | link << 16)
  }

  private mutating func driveMMIO(
    _ base: UInt32, _ queue: UInt32, _ size: UInt32, _ areas: [UInt32]
  ) {
    if below(2) == 0 { store(base + 0x70, 4, 0) }
    store(base + 0x70, 4, 3)
    store(base + 0x24, 4, 1)
    store(base + 0x20, 4, any([1, 1, 1, 3, below(.max)]))
    store(base + 0x70, 4, 0xB)
    store(base + 0x30, 4, queue)
    store(base + 0x38, 4, size)
    for (index, area) in areas.enumerated() {
      store(base + 0x80 + UInt32(index) * 16, 4, area)
      store(base + 0x84 + UInt32(index) * 16, 4, 0)
    }
    store(base + 0x44, 4, 1)
    store(base + 0x70, 4, 0xF)
    store(base + 0x50, 4, queue)
  }

  private mutating func drivePCI(
    _ base: UInt32, _ queue: UInt32, _ size: UInt32, _ areas: [UInt32]
  ) {
    if below(2) == 0 { store(base + 0x14, 1, 0) }
    store(base + 0x14, 1, 3)
    store(base + 0x08, 4, 1)
    store(base + 0x0C, 4, any([1, 1, 1, 3, below(.max)]))
    store(base + 0x14, 1, 0xB)
    store(base + 0x16, 2, queue)
    store(base + 0x18, 2, size)
    store(base + 0x1A, 2, below(6))
    for (index, area) in areas.enumerated() {
      store(base + 0x20 + UInt32(index) * 8, 4, area)
      store(base + 0x24 + UInt32(index) * 8, 4, 0)
    }
    store(base + 0x1C, 2, 1)
    store(base + 0x14, 1, 0xF)
    for step: UInt32 in [2, 4] { store(base + 0x3000 + queue * step, 2, queue) }
  }

  // MARK: IDE

  private mutating func driveDisk() {
    let channel: UInt32 = any([0x1F0, 0x1F0, 0x170])
    output(channel + 6, 1, any([0xE0, 0xF0, 0x40, below(256)]))
    for register: UInt32 in 2...5 {
      output(channel + register, 1, any([0, 0, 1, 255, below(256)]))
    }
    output(
      channel + 7, 1,
      any([0x20, 0x24, 0x30, 0x34, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xE7, 0xEC, 0xEF, below(256)]))
    code(0xBA)  // mov edx,...
    word(channel)
    code(0xBF)  // mov edi,...
    word(Self.data)
    code(0xBE)  // mov esi,...
    word(Self.data)
    code(0xB9)  // mov ecx,...
    word(any([1, 128, 256, 1000]))
    // rep insw, outsw, insd, outsd
    image += any([[0x66, 0xF3, 0x6D], [0x66, 0xF3, 0x6F], [0xF3, 0x6D], [0xF3, 0x6F]])
  }

  /// A table of what DMA is to move, and its start.
  private mutating func setBusMaster() {
    for entry: UInt32 in 0..<3 {
      store(Self.rings + 0x8000 + entry * 8, 4, place())
      store(Self.rings + 0x8004 + entry * 8, 4, below(0x1_0000) | (entry == 2 ? 0x8000_0000 : 0))
    }
    let channel: UInt32 = any([0xC000, 0xC008])
    output(channel + 4, 4, below(8) == 0 ? place() : Self.rings + 0x8000)
    output(channel, 1, any([1, 9]))
    if below(2) == 0 { output(channel, 1, 0) }
  }

  /// What ends the machine or resets it, once in many rounds.
  private mutating func addEnding() {
    code(0x41, 0xF7, 0xC7)  // test r15d,...
    word(0x3FF0_0000)
    code(0x75, 11)  // jne behind the write
    switch below(5) {
    case 0: output(0xF4, 1, 0x10)
    case 1: output(0x64, 1, 0xFE)
    case 2: output(0x92, 1, 1)
    case 3: output(0xCF9, 1, 6)
    default: output(0x604, 1, below(256))
    }
  }
}
