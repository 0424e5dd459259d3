import Glibc
import Host
import Memory
import Synchronization
import Testing

@testable import Storage
import TestSupport

@Suite("Disks on files that fail", .limited)
struct FaultTests {
  private static let size = 256 << 10

  private func makeImage(clusterBits: Int) throws -> FaultyFile {
    let file = FaultyFile()
    _ = try Qcow2Image.make(.init(size: UInt64(Self.size), clusterBits: clusterBits), in: file)
    try file.flush()
    return file
  }

  private func open(_ file: FaultyFile, base: (any BlockStore)? = nil) throws -> Qcow2Disk {
    try Qcow2Disk(file, Qcow2Image.readHeader(file), base: base, isReadOnly: false)
  }

  /// Writes at random; what is flushed goes into `safe`, what may be there besides into `maybe`.
  private func work(
    _ disk: Qcow2Disk, _ numbers: inout SplitMix, steps: Int, safe: inout [UInt8],
    maybe: inout [Set<UInt8>]
  ) throws {
    var model = safe
    for step in 0..<steps {
      let start = Int(numbers.next() % UInt64(Self.size / 512)) * 512
      let count = min(Self.size - start, Int(1 + numbers.next() % 20) * 512)
      let byte = numbers.next() % 4 == 0 ? 0 : UInt8(truncatingIfNeeded: step % 250 + 1)
      for sector in start / 512..<(start + count) / 512 { maybe[sector].insert(byte) }
      if byte == 0 {
        try disk.writeZeroes(at: UInt64(start), count: UInt64(count), mayUnmap: step % 2 == 0)
      } else {
        try disk.write([UInt8](repeating: byte, count: count), at: UInt64(start))
      }
      for sector in start / 512..<(start + count) / 512 { model[sector] = byte }
      if numbers.next() % 12 == 0 {
        try disk.flush()
        safe = model
        maybe = safe.map { [$0] }
      }
    }
  }

  /// Each sector holds one byte all over, one of those that may be there.
  private func verify(_ disk: Qcow2Disk, _ maybe: [Set<UInt8>], _ what: String) throws {
    for sector in maybe.indices {
      let bytes = try disk.read(512, at: UInt64(sector * 512))
      guard bytes.allSatisfy({ $0 == bytes[0] }), maybe[sector].contains(bytes[0]) else {
        Issue.record("\(what), sector \(sector): \(bytes[0]), not one of \(maybe[sector])")
        return
      }
    }
  }

  @Test(
    "a power cut at any moment: no damage, and nothing flushed is lost", arguments: [9, 12, 16])
  func powerCuts(clusterBits: Int) throws {
    for seed in 0..<Trials.rounds(20) {
      var numbers = SplitMix(UInt64(seed))
      let file = try makeImage(clusterBits: clusterBits)
      var safe = [UInt8](repeating: 0, count: Self.size / 512)
      var maybe: [Set<UInt8>] = safe.map { [$0] }
      // The disk goes with the power: what its end would flush must not be there.
      let disk = try open(file)
      try work(
        disk, &numbers, steps: 10 + Int(numbers.next() % 100), safe: &safe, maybe: &maybe)
      // Half of the cuts come in the middle of a flush.
      if seed % 2 == 0 {
        file.state.withLock { $0.callsLeft = Int(numbers.next() % 12) }
        try? disk.flush()
      }
      let bytes = file.afterPowerCut(&numbers)
      let after = FaultyFile(bytes)
      let found = try DiskCheck.run(after, Qcow2Image.readHeader(after), repairs: true)
      #expect(found.isSound, "seed \(seed): \(found.complaints)")
      let again = try DiskCheck.run(after, Qcow2Image.readHeader(after), repairs: false)
      #expect(again.leakedClusters == 0 && again.isSound)
      try verify(open(after), maybe, "seed \(seed)")
    }
  }

  @Test(
    "disk full, I/O errors: the call fails, nothing traps, what was safe stays",
    arguments: [StorageError.host(.noSpace), .host(.inputOutput), .truncated], [true, false])
  func failures(error: StorageError, staysBroken: Bool) throws {
    for calls in stride(from: 0, to: 120, by: 120 / Trials.rounds(40)) {
      var numbers = SplitMix(UInt64(calls))
      let file = try makeImage(clusterBits: 12)
      var safe = [UInt8](repeating: 0, count: Self.size / 512)
      var maybe: [Set<UInt8>] = safe.map { [$0] }
      do {
        let disk = try open(file)
        file.state.withLock {
          $0.callsLeft = calls
          $0.error = error
          $0.staysBroken = staysBroken
        }
        var failed = false
        do {
          try work(disk, &numbers, steps: 100, safe: &safe, maybe: &maybe)
        } catch {
          failed = true
        }
        #expect(failed || calls > 20)
        // A machine goes on after an error.
        do {
          try work(disk, &numbers, steps: 20, safe: &safe, maybe: &maybe)
          try disk.flush()
        } catch {}
      }
      let after = FaultyFile(file.state.withLock { $0.bytes })
      let found = try DiskCheck.run(after, Qcow2Image.readHeader(after), repairs: false)
      #expect(found.isSound, "after \(calls) calls: \(found.complaints)")
    }
  }

  @Test("once a flush has failed, all fail: the host has forgotten what it failed to write")
  func flushes() throws {
    let file = try makeImage(clusterBits: 16)
    let disk = try open(file)
    try disk.write([1], at: 0)
    file.state.withLock { $0.failsNextFlush = true }
    #expect(throws: StorageError.host(.inputOutput)) { try disk.flush() }
    #expect(throws: StorageError.host(.inputOutput)) { try disk.flush() }
  }

  @Test("tables that a full disk has no room for cost no space, however often a guest tries")
  func tablesWithoutRoom() throws {
    let file = try makeImage(clusterBits: 9)
    do {
      let disk = try open(file)
      try disk.write([1], at: 0)
      file.state.withLock { state in
        state.error = .host(.noSpace)
        state.callsLeft = 0
      }
      for _ in 0..<20 {
        #expect(throws: StorageError.host(.noSpace)) { try disk.write([1], at: 64 << 10) }
      }
      file.state.withLock { $0.callsLeft = nil }
      try disk.flush()
    }
    let found = try DiskCheck.run(file, Qcow2Image.readHeader(file), repairs: false)
    #expect(found.isSound && found.leakedClusters == 0)
  }

  @Test("a flush beside one that fails fails too: the host tells only one of them")
  func flushesAtOnce() throws {
    let flushes = FlushFailure()
    let hasRun = Atomic<Bool>(false)
    let second = Mutex<StorageError?>(nil)
    let thread = Mutex<HostThread?>(nil)
    #expect(throws: StorageError.host(.inputOutput)) {
      try flushes.flushing { () throws(StorageError) in
        let started = try? HostThread.start(name: "flush") {
          do throws(StorageError) {
            try flushes.flushing { hasRun.store(true, ordering: .relaxed) }
          } catch { second.withLock { $0 = error } }
        }
        // Time for the other to go wrong: it must not run now, however long this takes.
        for _ in 0..<100_000 where !hasRun.load(ordering: .relaxed) { sched_yield() }
        thread.withLock { $0 = started }
        throw .host(.inputOutput)
      }
    }
    try #require(thread.withLock { $0 }).join()
    let ran = hasRun.load(ordering: .relaxed)
    #expect(!ran)
    #expect(second.withLock { $0 } == .host(.inputOutput))
  }

  @Test("lost space is found and freed; wrong refcounts and flags are set right")
  func repairs() throws {
    let file = try makeImage(clusterBits: 12)
    do {
      let disk = try open(file)
      try disk.write([UInt8](repeating: 5, count: 50_000), at: 0)
    }
    let header = try Qcow2Image.readHeader(file)
    var tables = try Qcow2Tables(file, header)
    let firstData = try #require(try tables.entry(of: 0).hostClusters(header)?.lowerBound)
    _ = try tables.allocate(3)
    try tables.setRefcount(firstData, 0)
    try tables.writeBack()
    let found = try DiskCheck.run(file, header, repairs: true)
    #expect(found.wrongRefcounts == 1 && found.leakedClusters >= 2 && found.isRepaired)
    let again = try DiskCheck.run(file, header, repairs: false)
    #expect(again.isSound && again.leakedClusters == 0)
    #expect(try open(file).read(50_000, at: 0) == [UInt8](repeating: 5, count: 50_000))
  }

  @Test("refcounts of clusters beyond the file's end, which a power cut can leave, are lost space")
  func refcountsBeyondTheEnd() throws {
    let file = try makeImage(clusterBits: 12)
    let header = try Qcow2Image.readHeader(file)
    var tables = try Qcow2Tables(file, header)
    // More than one slice of the refcounts.
    for cluster in UInt64(4)..<2000 { try tables.setRefcount(cluster, 1) }
    try tables.writeBack()
    do {
      let disk = try open(file)
      try disk.write([UInt8](repeating: 5, count: 50_000), at: 0)
      try disk.flush()
    }
    #expect(try DiskCheck.run(file, header, repairs: true).isSound)
    #expect(try open(file).read(50_000, at: 0) == [UInt8](repeating: 5, count: 50_000))
  }

  @Test("what a guest lets go is used again even if it never flushes")
  func neverFlushed() throws {
    let scratch = try Scratch()
    var new = DiskImage.NewImage()
    new.size = 64 << 20
    new.clusterSize = 2 << 20
    try DiskImage.create(scratch.file("image"), new)
    let disk = try DiskImage.open(scratch.file("image"), .init()).store
    for _ in 0..<9 {
      for cluster in UInt64(0)..<32 { try disk.write([1], at: cluster << 21) }
      try disk.discard(at: 0, count: 64 << 20)
    }
    // 256 MiB that wait to be freed, the disk's 64, and tables: not 9 times the disk.
    #expect(try FileFacts(of: scratch.file("image")).length < 400 << 20)
  }

  @Test("refcounts that are gone are counted anew")
  func newRefcounts() throws {
    let file = try makeImage(clusterBits: 12)
    do {
      let disk = try open(file)
      try disk.write([UInt8](repeating: 5, count: 50_000), at: 0)
    }
    let header = try Qcow2Image.readHeader(file)
    try file.writeZeros(at: header.refcountTableOffset, count: 4096)
    let found = try DiskCheck.run(file, header, repairs: true)
    #expect(!found.isSound)
    let repaired = try Qcow2Image.readHeader(file)
    let again = try DiskCheck.run(file, repaired, repairs: false)
    #expect(again.isSound && again.leakedClusters == 0)
    #expect(try open(file).read(50_000, at: 0) == [UInt8](repeating: 5, count: 50_000))
  }
}
