import Host
import Memory
import Network

/// The receiving half of a pair of queues (virtio 1.2, 5.1.6.4).
///
/// A frame is taken from the back end only when the guest has posted a buffer; one that needs more
/// buffers than there are waits here for them.
final class VirtioNetReceiver: Sendable {
  /// At most so many frames until the driver is told.
  private static let batch = 32
  /// At most so many frames in a turn, dropped ones too.
  private static let mostInTurn = 1024

  private struct State {
    /// The frame that waits, with its header; 0 without one.
    var frameCount = 0
    /// Buffers that were taken and not yet filled: the first `held` of these.
    var chains = [DescriptorChain()]
    var held = 0
    var heldBytes = 0
    var frames: (moved: UInt64, dropped: UInt64) = (0, 0)
  }

  private let backEnd: any NetworkBackEnd
  private let pair: Int
  private let frame: MemoryView
  private let state = RankedMutex(.device, State())

  init(_ backEnd: any NetworkBackEnd, pair: Int) throws(Errno) {
    self.backEnd = backEnd
    self.pair = pair
    frame = try MemoryView(scratch: NetworkFrame.bufferCount)
  }

  /// How many frames the guest got, and how many it could not get.
  var frames: (moved: UInt64, dropped: UInt64) { state.withLock { $0.frames } }

  /// Forgets buffers and frame: the queue is over.
  func forget() {
    state.withLock { state in
      (state.frameCount, state.held, state.heldBytes) = (0, 0, 0)
    }
  }

  /// Fills the guest's buffers for as long as there are some and frames for them. Returns why there
  /// will be no more frames, if that is so.
  func serve(
    _ queue: ActiveQueue, allowed: NetworkOffloads
  ) throws(RingFault) -> NetworkError? {
    try state.withLock { (state) throws(RingFault) in
      var count = 0
      queue.silenceDoorbell()
      repeat {
        while true {
          do throws(ReceiveFailure) {
            guard try receiveOne(&state, queue, allowed) else { break }
          } catch {
            queue.flush()
            switch error {
            case .ring(let fault): throw fault
            case .network(let failure): return failure
            }
          }
          count += 1
          if count % Self.batch == 0 { queue.flush() }
          if count == Self.mostInTurn {
            queue.flush()
            queue.askForTurn()
            return nil
          }
        }
        queue.flush()
        // Without a frame it is the back end that gives the next turn.
        if state.held > 0 && state.frameCount == 0 { return nil }
      } while !queue.shouldStop && queue.awaitDoorbell()
      return nil
    }
  }

  private enum ReceiveFailure: Error {
    case ring(RingFault)
    case network(NetworkError)
  }

  /// Moves a frame, or drops one; false if there is none, or too few buffers for it.
  private func receiveOne(
    _ state: inout State, _ queue: ActiveQueue, _ allowed: NetworkOffloads
  ) throws(ReceiveFailure) -> Bool {
    if state.held == 0, try !takeBuffer(&state, queue) { return false }
    queue.begin()
    if state.frameCount == 0 {
      switch try receiveFrame() {
      case .nothing: return false
      case .frame(let count):
        var header = VirtioNetHeader(frame)
        // Such as one that came before the guest's driver changed.
        guard count > 0, header.makeSound(forGuestWith: allowed) else {
          state.frames.dropped &+= 1
          return true
        }
        header.store(in: frame, buffers: 0)
        state.frameCount = count
      }
    }
    let isMergeable = queue.features.contains(NetFeature.mergeableBuffers)
    while state.heldBytes < state.frameCount {
      guard isMergeable, state.held < queue.size else {
        // The guest's largest buffer, or all of them, can't hold it (5.1.6.4).
        state.frameCount = 0
        state.frames.dropped &+= 1
        return true
      }
      guard try takeBuffer(&state, queue) else { return false }
    }
    place(&state, queue)
    return true
  }

  private func receiveFrame() throws(ReceiveFailure) -> NetworkInput {
    do throws(NetworkError) {
      let input = try backEnd.receive(into: frame, queue: pair)
      guard case .frame(let count) = input else { return .nothing }
      guard count >= NetworkFrame.headerCount, count <= frame.count else { return .frame(0) }
      return input
    } catch { throw .network(error) }
  }

  private func takeBuffer(
    _ state: inout State, _ queue: ActiveQueue
  ) throws(ReceiveFailure) -> Bool {
    if state.chains.count == state.held { state.chains.append(DescriptorChain()) }
    do throws(RingFault) {
      guard try queue.take(&state.chains[state.held]) else { return false }
      let count = state.chains[state.held].writableCount
      guard count >= VirtioNetHeader.count else {
        throw RingFault(queue: queue.index, .request("has no room for a frame's header"))
      }
      state.held += 1
      state.heldBytes += count
      return true
    } catch { throw .ring(error) }
  }

  /// Fills as many buffers as the frame needs, which the driver sees at once: it counts on finding
  /// the others with the first one.
  private func place(_ state: inout State, _ queue: ActiveQueue) {
    var used = 0
    var covered = 0
    while covered < state.frameCount {
      covered += state.chains[used].writableCount
      used += 1
    }
    frame.store(UInt16(used), 10)
    var done = 0
    for (index, chain) in state.chains[0..<used].enumerated() {
      let count = min(chain.writableCount, state.frameCount - done)
      chain.fill(from: frame.slice(done, count: count))
      if index == used - 1 {
        queue.request = DeviceRequest(
          "frame", .toGuest, bytes: UInt64(state.frameCount - VirtioNetHeader.count))
      }
      queue.stage(chain.head, written: UInt32(count))
      done += count
    }
    queue.publish()
    state.frames.moved &+= 1
    for index in used..<state.held { state.chains.swapAt(index - used, index) }
    state.held -= used
    state.heldBytes -= covered
    state.frameCount = 0
  }
}
