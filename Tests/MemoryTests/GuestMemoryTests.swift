import Host
import Memory
import TestSupport
import Testing

@Suite("Guest memory", .limited)
struct GuestMemoryTests {
  private let mebibyte: UInt64 = 1 << 20

  @Test func smallGuestHasOneRegion() throws {
    let memory = try GuestMemory(ramSize: 4096)
    #expect(memory.regions.map(\.start) == [0])
    #expect(memory.regions.map(\.count) == [4096])
    #expect(memory.ramSize == 4096)
  }

  @Test func ramGoesAroundTheHoleBelow4GiB() throws {
    let exact = try GuestMemory(ramSize: 0xC000_0000)
    #expect(exact.regions.map(\.count) == [0xC000_0000])

    let memory = try GuestMemory(ramSize: 0xC000_1000)
    #expect(memory.regions.map(\.start) == [0, 0x1_0000_0000])
    #expect(memory.regions.map(\.count) == [0xC000_0000, 0x1000])
    _ = try memory.view(at: 0xBFFF_F000, count: 4096)
    _ = try memory.view(at: 0x1_0000_0000, count: 4096)
    for (address, count) in [
      (0xBFFF_FFFF, 2), (0xC000_0000, 1), (0xFEE0_0000, 4), (0xFFFF_FFFF, 1), (0xFFFF_FFFF, 2),
      (0x1_0000_0000, 4097), (0x1_0000_1000, 1),
    ] as [(UInt64, UInt64)] {
      let error = #expect(throws: GuestMemory.OutOfBounds.self) {
        try memory.view(at: GuestAddress(address), count: count)
      }
      #expect(error?.address.value == address && error?.count == count)
    }
  }

  @Test func viewsReachExactlyToTheEdges() throws {
    let memory = try GuestMemory(ramSize: mebibyte)
    #expect(try memory.view(at: 0, count: mebibyte).count == 1 << 20)
    #expect(try memory.view(at: 0xFFFFF, count: 1).count == 1)
    // Nothing, at the end, is still inside.
    #expect(try memory.view(at: 0x100000, count: 0).count == 0)
    for (address, count) in [
      (0, mebibyte + 1), (1, mebibyte), (0xFFFFF, 2), (0x100000, 1), (0x100001, 0),
      (UInt64.max, 1), (UInt64.max, UInt64.max), (1, UInt64.max), (0, UInt64.max),
      (0x8000_0000_0000_0000, 1),
    ] as [(UInt64, UInt64)] {
      #expect(throws: GuestMemory.OutOfBounds.self) {
        try memory.view(at: GuestAddress(address), count: count)
      }
    }
  }

  @Test func outOfBoundsNamesTheRange() throws {
    let memory = try GuestMemory(ramSize: mebibyte)
    let error = try #require(throws: GuestMemory.OutOfBounds.self) {
      try memory.view(at: 0xC000_0000, count: 16)
    }
    #expect(error.description.contains("16 bytes"))
    #expect(error.description.contains("0xc0000000"))
  }

  @Test func writesAreReadBack() throws {
    let memory = try GuestMemory(ramSize: mebibyte)
    let bytes: [UInt8] = [1, 2, 3, 4, 5]
    try memory.write(bytes.span, at: 0xFFFFB)
    #expect(try memory.read(5, at: 0xFFFFB) == bytes)
    #expect(try memory.read(6, at: 0xFFFFA) == [0] + bytes)
    #expect(throws: GuestMemory.OutOfBounds.self) { try memory.write(bytes.span, at: 0xFFFFC) }
    #expect(throws: GuestMemory.OutOfBounds.self) { try memory.read(5, at: 0xFFFFC) }
    // The refused write wrote nothing.
    #expect(try memory.read(5, at: 0xFFFFB) == bytes)
    #expect(try memory.read(0, at: 0x100000) == [])
    try memory.write([UInt8]().span, at: 0x100000)
  }

  @Test func sixtyFourGiBCostNothingUntilTouched() throws {
    let memory = try GuestMemory(ramSize: 64 << 30)
    #expect(memory.regions.map(\.count) == [3 << 30, 61 << 30])
    #expect(memory.touchedBytes() == 0)
    let last = GuestAddress((65 << 30) - 1)
    try memory.write([0x5A].span, at: last)
    #expect(try memory.read(1, at: last) == [0x5A])
    // A page, or a huge page where the host gives one.
    #expect((4096...(2 << 20)).contains(memory.touchedBytes()))
  }

  @Test func touchedBytesGrowWithWhatIsWritten() throws {
    let memory = try GuestMemory(ramSize: 2 << 20)
    #expect(memory.touchedBytes() == 0)
    for page in 0..<16 as Range<UInt64> {
      try memory.write([1].span, at: GuestAddress(page * 0x10000))
      // Below 2 MiB no huge page is asked for: each write costs one page.
      #expect(memory.touchedBytes() == Int(page + 1) * 4096)
    }
    try memory.write([2].span, at: 0)
    #expect(memory.touchedBytes() == 16 * 4096)
  }

  @Test func regionsStartWhereAHugePageCan() throws {
    // Several, for a kernel that doesn't align may hit the boundary by chance.
    let memories = try (1...4).map { try GuestMemory(ramSize: 0xC000_0000 + UInt64($0) * 4096) }
    for region in memories.flatMap(\.regions) {
      // Only the number is looked at.
      #expect(unsafe Int(bitPattern: region.mapping.base) % Mapping.hugePageSize == 0)
    }
    // Aligning has left both ends of each region mapped.
    for memory in memories {
      for address in [0, 0xBFFF_FFFF, 0x1_0000_0000, 0x1_0000_0FFF] as [GuestAddress] {
        try memory.write([1].span, at: address)
      }
    }
  }

  @Test func romIsARegionOfItsOwn() throws {
    let contents = [UInt8](repeating: 0xEA, count: 4097)
    let memory = try GuestMemory(ramSize: 0xC000_1000, roms: [(0xFFFF_0000, contents)])
    #expect(memory.regions.map(\.start) == [0, 0xFFFF_0000, 0x1_0000_0000])
    #expect(memory.regions.map(\.kind) == [.ram, .rom, .ram])
    // Padded with zeros to whole pages.
    #expect(memory.regions[1].count == 8192)
    #expect(try memory.read(2, at: 0xFFFF_1000) == [0xEA, 0])
    #expect(try memory.read(1, at: 0xFFFF_1FFF) == [0])
    #expect(throws: GuestMemory.OutOfBounds.self) { try memory.view(at: 0xFFFF_2000, count: 1) }
    // ROM doesn't count as touched, and is not RAM.
    #expect(memory.touchedBytes() == 0)
    #expect(memory.ramSize == 0xC000_1000)
  }

  @Test func neighbouringRegionsAreNotOneView() throws {
    let rom = [UInt8](repeating: 0xEA, count: 4096)
    let memory = try GuestMemory(ramSize: 4096, roms: [(0x1000, rom)])
    _ = try memory.view(at: 0x1000, count: 4096)
    #expect(throws: GuestMemory.OutOfBounds.self) { try memory.view(at: 0xFFF, count: 2) }
  }
}

@Suite("Memory that other processes are given", .limited)
struct ShareableMemoryTests {
  @Test("is the same by its file, can't be cut, and goes back to the host")
  func shareable() throws {
    let memory = try GuestMemory(ramSize: 4 << 20, isShareable: true)
    let mapping = memory.regions[0].mapping
    let number = try #require(mapping.fileNumber)
    let file = FileDescriptor(borrowing: number)
    let other = try Mapping(shared: file, offset: 1 << 20, count: 1 << 20)
    try memory.write([1, 2, 3].span, at: GuestAddress(1 << 20))
    #expect(MemoryView(other).load(2, as: UInt8.self) == 3)
    #expect(throws: Errno.self) { try FileDescriptor(borrowing: number).setLength(0) }
    #expect(throws: Errno.self) { try FileDescriptor(borrowing: number).setLength(8 << 20) }

    #expect(try memory.giveBack(at: GuestAddress(1 << 20), count: 1 << 20) == 1 << 20)
    #expect(memory.touchedBytes() == 0)
    #expect(MemoryView(other).load(2, as: UInt8.self) == 0)
  }

  @Test("is asked for: other memory has no file")
  func plain() throws {
    #expect(try GuestMemory(ramSize: 1 << 20).regions[0].mapping.fileNumber == nil)
  }

  @Test("isn't in core dumps, whether others may be given it or not")
  func dumps() throws {
    let mappings = [try Mapping(anonymous: 1 << 20), try Mapping(shareable: 1 << 20)]
    let file = try FileDescriptor(opening: "/proc/self/smaps", [.readOnly])
    let lines = String(
      decoding: try WholeFile.contents(of: file, limit: 16 << 20), as: UTF8.self
    ).split(separator: "\n")
    for mapping in mappings {
      // Neighbours of the same kind are one range.
      let index = try #require(
        lines.firstIndex { line in
          let range = line.prefix { $0 != " " }.split(separator: "-").map { UInt64($0, radix: 16) }
          guard range.count == 2, let start = range[0], let end = range[1] else { return false }
          return (start..<end).contains(mapping.address)
        })
      let flags = try #require(lines[index...].first { $0.hasPrefix("VmFlags:") })
      #expect(flags.split(separator: " ").contains("dd"), "\(flags)")
    }
  }
}
