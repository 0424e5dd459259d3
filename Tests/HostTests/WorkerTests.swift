import Host
import Synchronization
import TestSupport
import Testing

/// Notes what happened, for threads to wait for.
private final class Log: Sendable {
  private let words = Guarded<[String]>([])

  func add(_ word: String) {
    words.locked { $0.append(word) }
    words.wakeAll()
  }

  var all: [String] { words.locked { $0 } }

  /// What happened, once it is at least `count` things.
  func wait(for count: Int) throws -> [String] {
    let deadline = Deadline(seconds: 30).nanoseconds
    try #require(words.waits(until: deadline) { $0.count >= count }, "\(count) things: \(all)")
    return all
  }
}

/// Holds a thread up until it is opened.
private final class Gate: Sendable {
  private let isOpen = Guarded(false)

  func wait() { isOpen.waiting { $0 ? () : nil } }

  func open() {
    isOpen.locked { $0 = true }
    isOpen.wakeAll()
  }
}

@Suite("A worker", .limited)
struct WorkerTests {
  private let worker: Worker
  private let log = Log()

  init() throws { worker = try Worker(name: "test") }

  @Test("does jobs in their order, each after the last")
  func jobs() throws {
    defer { worker.stop() }
    for number in 0..<100 { try worker.post { [log] in log.add("\(number)") } }
    #expect(try log.wait(for: 100) == (0..<100).map { "\($0)" })
  }

  @Test("calls for each event, and for a file for as long as there is something in it")
  func files() throws {
    let event = try Event()
    let pipe = try Pipe()
    let number = pipe.reading.number
    defer { worker.stop() }
    try worker.watch(event) { [log] in log.add("event") }
    try worker.watch(pipe.reading, on: .level) { [log] in
      // One byte of two: only a level tells of the other.
      _ = try? FileDescriptor(borrowing: number).read(atMost: 1)
      log.add("byte")
    }
    event.raise()
    #expect(try log.wait(for: 1) == ["event"])
    event.raise()
    #expect(try log.wait(for: 2) == ["event", "event"])
    try pipe.writing.writeAll([1, 2].span)
    #expect(try log.wait(for: 4) == ["event", "event", "byte", "byte"])
  }

  @Test("calls a timer when its time has come, and not at a time that was taken back")
  func timers() throws {
    defer { worker.stop() }
    let late = worker.makeTimer { [log] in log.add("late") }
    let early = worker.makeTimer { [log] in log.add("early \(Clock.monotonicNanoseconds)") }
    try late.set(Clock.monotonicNanoseconds + 3_600_000_000_000)
    // An earlier time than the one that the thread sleeps for by now.
    let time = Clock.monotonicNanoseconds + 2_000_000
    try early.set(time)
    let words = try log.wait(for: 1)
    let then = try #require(UInt64(words[0].dropFirst("early ".count)))
    #expect(words[0].hasPrefix("early") && then >= time)
    try late.set(nil)
    try early.set(0)
    #expect(try log.wait(for: 2).allSatisfy { $0.hasPrefix("early") })
  }

  @Test("stands still after what it is at, and then does what came meanwhile")
  func pause() throws {
    defer { worker.stop() }
    let (entered, gate) = (Gate(), Gate())
    let event = try Event()
    try worker.watch(event) { [log] in log.add("event") }
    let timer = worker.makeTimer { [log] in log.add("timer") }
    try worker.post { [log] in
      entered.open()
      gate.wait()
      log.add("job under way")
    }
    entered.wait()
    // It is in the middle of something: nobody waits for it here.
    worker.pause { [log] in log.add("still") }
    try worker.post { [log] in log.add("job") }
    #expect(log.all == [])
    gate.open()
    #expect(try log.wait(for: 2) == ["job under way", "still"])
    event.raise()
    try timer.set(1)
    // A second pause of one that stands still says so at once, after whatever would have been begun.
    worker.pause { [log] in log.add("still") }
    #expect(try log.wait(for: 3) == ["job under way", "still", "still"])
    worker.resume()
    #expect(Set(try log.wait(for: 6).dropFirst(3)) == ["event", "job", "timer"])
  }

  @Test("goes on when a pause is called off before its end")
  func calledOff() throws {
    let (entered, gate) = (Gate(), Gate())
    defer { worker.stop() }
    try worker.post {
      entered.open()
      gate.wait()
    }
    entered.wait()
    worker.pause { [log] in log.add("still") }
    worker.resume()
    gate.open()
    try worker.post { [log] in log.add("job") }
    #expect(try log.wait(for: 1) == ["job"])
  }

  @Test("has nothing to wait for without a thread")
  func neverStarted() {
    worker.pause { [log] in log.add("still") }
    #expect(log.all == ["still"])
    worker.stop()
  }

  @Test("starts in a pause, and waits for its end")
  func startsPaused() throws {
    worker.pause {}
    try worker.post { [log] in log.add("job") }
    worker.pause { [log] in log.add("still") }
    #expect(try log.wait(for: 1) == ["still"])
    worker.resume()
    #expect(try log.wait(for: 2) == ["still", "job"])
    worker.stop()
  }

  @Test("ends in a pause, and gets a handler out that waits for the host")
  func ends() throws {
    let pipe = try Pipe()
    let number = pipe.reading.number
    let entered = Gate()
    try worker.post { [log, worker] in
      entered.open()
      repeat {
        do throws(Errno) {
          _ = try FileDescriptor(borrowing: number).read(atMost: 1, goesOn: false)
        } catch {
          log.add("\(error == .interrupted)")
        }
      } while !worker.isStopping
    }
    entered.wait()
    worker.stop()
    #expect(log.all.last == "true")
    #expect(throws: Errno.self) { try worker.post {} }
    let other = try Worker(name: "other")
    try other.start()
    other.pause {}
    other.stop()
  }

  @Test("says so when there is no thread to be had")
  func noThread() throws {
    let hasThread = Mutex(false)
    let worker = try Worker(name: "test") { (name, body) throws(Errno) in
      guard hasThread.withLock({ $0 }) else { throw .tryAgain }
      return try HostThread.start(name: name, body)
    }
    let timer = worker.makeTimer { [log] in log.add("timer") }
    #expect(throws: Errno.tryAgain) { try worker.start() }
    #expect(throws: Errno.tryAgain) { try worker.post { [log] in log.add("never") } }
    #expect(throws: Errno.tryAgain) { try timer.set(1) }
    // Nobody waits for the thread that isn't there.
    worker.pause { [log] in log.add("still") }
    worker.resume()
    hasThread.withLock { $0 = true }
    try worker.post { [log] in log.add("job") }
    #expect(try log.wait(for: 2) == ["still", "job"])
    worker.stop()
  }
}
