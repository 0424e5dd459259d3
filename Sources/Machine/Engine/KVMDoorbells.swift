import Host
import Devices
import KVM
import Memory

/// Lets KVM raise doorbells' events without an exit.
final class KVMDoorbells: DoorbellHost {
  private struct Connection {
    let doorbell: Doorbell
    let place: BusAddress
  }

  private struct State {
    var vm: VM?
    var connections: [Connection] = []
  }

  private let state = RankedMutex(.kvm, State())

  @discardableResult
  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool {
    state.withLock { state in
      if let vm = state.vm {
        do { try vm.connect(place.kvm, to: doorbell) } catch { return false }
      }
      state.connections.append(Connection(doorbell: doorbell, place: place))
      return true
    }
  }

  func disconnect(_ doorbell: Doorbell, at place: BusAddress) {
    state.withLock { state in
      guard
        let index = state.connections.firstIndex(where: {
          $0.doorbell === doorbell && $0.place == place
        })
      else { return }
      state.connections.remove(at: index)
      try? state.vm?.connect(place.kvm, to: doorbell, disconnect: true)
    }
  }

  /// Goes to `vm` from now on. What it refuses reaches the devices.
  func connect(to vm: VM) {
    state.withLock { state in
      state.vm = vm
      state.connections.removeAll { connection in
        do {
          try vm.connect(connection.place.kvm, to: connection.doorbell)
          return false
        } catch { return true }
      }
    }
  }
}

extension BusAddress {
  fileprivate var kvm: VM.Doorbell {
    switch self {
    case .port(let port): .port(port)
    case .memory(let address): .memory(GuestAddress(address))
    }
  }
}

extension VM {
  fileprivate func connect(
    _ place: VM.Doorbell, to doorbell: Devices.Doorbell, disconnect: Bool = false
  ) throws(KVMError) {
    try connect(
      place, width: UInt32(doorbell.width), value: doorbell.value, to: doorbell.event,
      disconnect: disconnect)
  }
}
