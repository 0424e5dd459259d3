import Host
import Memory

/// A copy of a guest's memory, without the pages that are zero.
package struct SavedMemory: Sendable {
  private struct Run: Sendable {
    let start: GuestAddress
    let bytes: [UInt8]
  }

  private let ramSize: UInt64
  private let roms: [(start: GuestAddress, contents: [UInt8])]
  private let runs: [Run]

  /// Copies `memory`, whose guest stands still.
  package init(copying memory: GuestMemory) throws(GuestMemory.OutOfBounds) {
    ramSize = memory.ramSize
    var roms: [(start: GuestAddress, contents: [UInt8])] = []
    var runs: [Run] = []
    for region in memory.regions {
      guard region.kind == .ram else {
        roms.append((region.start, try memory.read(Int(region.count), at: region.start)))
        continue
      }
      for range in try Self.used(memory.view(at: region.start, count: region.count)) {
        let start = GuestAddress(region.start.value + UInt64(range.lowerBound))
        runs.append(Run(start: start, bytes: try memory.read(range.count, at: start)))
      }
    }
    self.roms = roms
    self.runs = runs
  }

  /// Whole pages of `view` that aren't all zero, neighbours together.
  private static func used(_ view: MemoryView) -> [Range<Int>] {
    let page = Int(GuestMemory.pageSize)
    var ranges: [Range<Int>] = []
    for start in stride(from: 0, to: view.count, by: page) {
      let end = min(start + page, view.count)
      guard !view.isZero(from: start, count: end - start) else { continue }
      if let last = ranges.last, last.upperBound == start {
        ranges[ranges.count - 1] = last.lowerBound..<end
      } else {
        ranges.append(start..<end)
      }
    }
    return ranges
  }

  /// Memory with these contents; other processes can have it if it `isShareable`.
  func makeMemory(isShareable: Bool) throws(Errno) -> GuestMemory {
    let memory = try GuestMemory(ramSize: ramSize, roms: roms, isShareable: isShareable)
    // A copy of memory of this size is inside it.
    for run in runs { try? memory.write(run.bytes.span, at: run.start) }
    return memory
  }

  /// How many bytes it takes.
  package var byteCount: Int {
    runs.reduce(0) { $0 + $1.bytes.count } + roms.reduce(0) { $0 + $1.contents.count }
  }
}

/// The memory that a restored machine goes on with.
package enum RestoredMemory: Sendable {
  /// That of the machine which was saved, which doesn't run any more.
  case moved(GuestMemory)
  /// A copy.
  case copied(SavedMemory)
  /// A file, which isn't changed.
  case file(SavedMemoryFile)

  /// Whether the machine that was saved, or more than one of these, may go on as well.
  var isFork: Bool { if case .moved = self { false } else { true } }

  func memory(size: UInt64, isShareable: Bool) throws(RestoreError) -> GuestMemory {
    let memory: GuestMemory
    switch self {
    case .moved(let given): memory = given
    case .copied(let saved):
      do { memory = try saved.makeMemory(isShareable: isShareable) } catch {
        throw .machine(.host("can't reserve \(size >> 20) MiB of memory: \(error)"))
      }
    case .file(let file): memory = try file.makeMemory(isShareable: isShareable)
    }
    guard memory.ramSize == size else { throw .memory }
    return memory
  }
}
