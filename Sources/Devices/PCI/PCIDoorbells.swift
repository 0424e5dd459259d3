import Host

/// A function's doorbells, which move with its ranges.
final class PCIDoorbells: Sendable {
  private struct Bell {
    let doorbell: Doorbell
    let bar: Int
    let offset: UInt64
    var place: BusAddress?
  }

  private struct State {
    var bells: [Bell] = []
    /// Where each range is; nil while it isn't decoded.
    var ranges: [BusAddress?] = Array(repeating: nil, count: 6)
  }

  private let host: any DoorbellHost
  private let state = RankedMutex(.messages, State())

  init(_ host: any DoorbellHost) { self.host = host }

  func add(_ doorbell: Doorbell, bar: Int, offset: UInt64) {
    precondition((0..<6).contains(bar), "no such register")
    state.withLock { state in
      let place = state.ranges[bar]?.advanced(by: offset)
      if let place { host.connect(doorbell, at: place) }
      state.bells.append(Bell(doorbell: doorbell, bar: bar, offset: offset, place: place))
    }
  }

  func remove(_ doorbell: Doorbell) {
    state.withLock { state in
      for bell in state.bells where bell.doorbell === doorbell {
        if let place = bell.place { host.disconnect(doorbell, at: place) }
      }
      state.bells.removeAll { $0.doorbell === doorbell }
    }
  }

  /// The range of register `bar` is at `range` now.
  func move(bar: Int, to range: BusAddress?) {
    state.withLock { state in
      state.ranges[bar] = range
      for index in state.bells.indices where state.bells[index].bar == bar {
        let bell = state.bells[index]
        if let place = bell.place { host.disconnect(bell.doorbell, at: place) }
        let place = range?.advanced(by: bell.offset)
        if let place { host.connect(bell.doorbell, at: place) }
        state.bells[index].place = place
      }
    }
  }
}

extension BusAddress {
  fileprivate func advanced(by offset: UInt64) -> BusAddress {
    switch self {
    case .port(let port): .port(port &+ UInt16(truncatingIfNeeded: offset))
    case .memory(let address): .memory(address &+ offset)
    }
  }
}
