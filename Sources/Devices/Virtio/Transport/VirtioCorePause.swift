extension VirtioCore {
  /// Whether the device stands still, or shall.
  struct Pause {
    var isOn = false
    /// Hears of it, once.
    var still: (@Sendable () -> Void)?
    /// Whether queues are served somewhere else.
    var isRemoteAtWork = false
    /// Which pause this is: a remote may tell of the end of one that was called off.
    var number: UInt64 = 0
  }
}

extension VirtioCore.State {
  /// Who is to hear now that the device stands still; nil if it doesn't, or they have heard.
  mutating func takeStill() -> (@Sendable () -> Void)? {
    guard pause.still != nil, !pause.isRemoteAtWork,
      !queues.contains(where: { $0.isInTurn })
    else { return nil }
    return pause.still.take()
  }
}

extension VirtioCore: Pausable {
  /// Lets each queue end with the request that it is at. Registers go on working: what they start or
  /// stop is seen to after the pause.
  package func pause(_ still: @escaping @Sendable () -> Void) {
    let number = update { state in
      state.pause.number &+= 1
      state.pause.isOn = true
      state.pause.still = still
      state.pause.isRemoteAtWork = device.remote != nil
      for queue in state.queues { queue.active?.hold(true) }
      return state.pause.number
    }
    device.remote?.pause { [weak self] in
      self?.update { state in
        if state.pause.number == number { state.pause.isRemoteAtWork = false }
      }
    }
  }

  /// Gives each queue a turn: doorbells may have been taken for nothing meanwhile.
  package func resume() {
    update { state in
      state.pause.isOn = false
      state.pause.still = nil
      for (index, queue) in state.queues.enumerated() where queue.active != nil {
        queue.active?.hold(false)
        signals.wake(queue: index)
      }
    }
    device.remote?.resume()
  }
}
