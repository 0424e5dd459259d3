import Memory
import Storage

/// Work for a channel's thread: what needs the disk, and so may wait for the host.
struct IDEJob {
  enum Kind {
    /// Fills the buffer.
    case read
    /// Writes what is in the buffer.
    case write
    /// Reads sectors and forgets them.
    case verify
    /// Between the disk and guest memory, with the table of regions there.
    case dma(table: UInt32, isWrite: Bool)
    /// Tells the disk of the ranges that are listed in guest memory, in `count` blocks.
    case trim(table: UInt32)
    /// Brings everything to stable storage.
    case flush
  }

  var kind: Kind
  var drive: Int
  var lba: UInt64 = 0
  /// Sectors.
  var count = 0
  /// Whether a flush follows: without a write cache it does.
  var flushes = false
  /// Which start of the bus master it is for.
  var run: UInt64 = 0

  struct Result {
    /// How many sectors went well, from the first on.
    var sectors = 0
    var hasFailed = false
    /// Of DMA, how the table ended.
    var table: PRDTable.End?
  }
}

/// Does jobs, on the channel's thread.
struct IDEJobRunner {
  let stores: [any BlockStore]
  let memory: GuestMemory
  let buffer: MemoryView
  /// Whether the bus master may use memory: Bus Master Enable.
  let mayMaster: @Sendable () -> Bool

  func run(_ job: IDEJob) -> IDEJob.Result {
    let store = stores[job.drive]
    var result: IDEJob.Result
    switch job.kind {
    case .read:
      result = move(store, [buffer.slice(0, count: job.count * 512)], job, isWrite: false)
    case .write:
      result = move(store, [buffer.slice(0, count: job.count * 512)], job, isWrite: true)
    case .verify: result = verify(store, job)
    // Without it nothing moves, and the bus master stays active for ever.
    case .dma where !mayMaster(), .trim where !mayMaster(): return .init(table: .hasMore)
    case .dma(let table, let isWrite): result = dma(store, job, table, isWrite: isWrite)
    case .trim(let table): result = trim(store, job, table)
    case .flush: result = IDEJob.Result()
    }
    if job.flushes, !result.hasFailed {
      do { try store.flush() } catch { result.hasFailed = true }
    }
    return result
  }

  /// Moves all of `segments` in one go or, if that fails, all before the first sector that can't be
  /// moved.
  private func move(
    _ store: any BlockStore, _ segments: [MemoryView], _ job: IDEJob, isWrite: Bool
  ) -> IDEJob.Result {
    func attempt(_ segments: [MemoryView], _ lba: UInt64) -> Bool {
      do {
        if isWrite {
          try store.write(from: segments, at: lba * 512)
        } else {
          try store.read(into: segments, at: lba * 512)
        }
        return true
      } catch { return false }
    }
    let count = segments.byteCount / 512
    if count == 0 || attempt(segments, job.lba) { return .init(sectors: count) }
    // What lies before `done` has been moved; a sector before `end` can't be.
    var done = 0
    var end = count
    while end - done > 1 {
      let half = (end - done) / 2
      let part = segments.slice(done * 512, count: half * 512)
      if attempt(part, job.lba + UInt64(done)) { done += half } else { end = done + half }
    }
    return .init(sectors: done, hasFailed: true)
  }

  private func verify(_ store: any BlockStore, _ job: IDEJob) -> IDEJob.Result {
    var done = 0
    while done < job.count {
      let count = min(job.count - done, buffer.count / 512)
      var part = job
      part.lba += UInt64(done)
      let result = move(store, [buffer.slice(0, count: count * 512)], part, isWrite: false)
      done += result.sectors
      if result.hasFailed { return .init(sectors: done, hasFailed: true) }
    }
    return .init(sectors: done)
  }

  private func dma(
    _ store: any BlockStore, _ job: IDEJob, _ table: UInt32, isWrite: Bool
  ) -> IDEJob.Result {
    let regions = PRDTable(
      at: table, in: memory, byteCount: job.count * 512, isToMemory: !isWrite)
    // Only whole sectors are moved: a drive has read or written none of the one that is cut off.
    let whole = regions.segments.byteCount / 512 * 512
    let segments =
      whole == regions.segments.byteCount
      ? regions.segments : regions.segments.slice(0, count: whole)
    var result = move(store, segments, job, isWrite: isWrite)
    result.table = regions.end
    return result
  }

  /// Entries of 8 bytes: 48 bits of LBA and 16 of how many sectors, where 0 is no range (ACS-2,
  /// 7.10.3.2).
  private func trim(_ store: any BlockStore, _ job: IDEJob, _ table: UInt32) -> IDEJob.Result {
    let regions = PRDTable(
      at: table, in: memory, byteCount: job.count * 512, isToMemory: false)
    guard regions.segments.byteCount == job.count * 512 else { return .init(table: regions.end) }
    var position = 0
    for segment in regions.segments {
      buffer.copy(from: segment, at: position)
      position += segment.count
    }
    for entry in stride(from: 0, to: job.count * 512, by: 8) {
      let value = buffer.load(entry, as: UInt64.self)
      let lba = value & 0xFFFF_FFFF_FFFF
      let count = value >> 48
      guard count > 0 else { continue }
      guard lba <= store.size / 512, count <= store.size / 512 - lba else {
        return .init(hasFailed: true, table: regions.end)
      }
      do { try store.discard(at: lba * 512, count: count * 512) } catch {
        return .init(hasFailed: true, table: regions.end)
      }
    }
    return .init(sectors: job.count, table: regions.end)
  }
}
