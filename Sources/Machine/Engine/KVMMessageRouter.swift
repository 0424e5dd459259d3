import Host
import CKVM
import Devices
import KVM

/// Takes message-signalled interrupts from events to the processors: an irqfd and a GSI for each.
///
/// Before there are controllers it only remembers, and what was raised stays in the events.
final class KVMMessageRouter: MessageRouter {
  private struct Route {
    let event: SharedEvent
    /// The table's entry; it stays while the event isn't connected.
    var message: InterruptMessage?
    var isConnected = false
  }

  private struct State {
    var vm: VM?
    var routes: [Route] = []
  }

  private let state = RankedMutex(.kvm, State())

  func makeRoute(for event: SharedEvent) -> any MessageRoute {
    state.withLock { state in
      state.routes.append(Route(event: event))
      return KVMMessageRoute(self, state.routes.count - 1)
    }
  }

  fileprivate func set(_ index: Int, _ message: InterruptMessage?) {
    state.withLock { state in
      let old = state.routes[index]
      if let message, message != old.message {
        state.routes[index].message = message
        if let vm = state.vm {
          do { try vm.setRouting(Self.table(state.routes)) } catch {
            // KVM refuses an address that means nothing to it, and keeps its old table.
            state.routes[index].message = old.message
            Self.connect(&state.routes[index], false, vm, index)
            return
          }
        }
      }
      if old.isConnected != (message != nil) {
        Self.connect(&state.routes[index], message != nil, state.vm, index)
      }
    }
  }

  private static func connect(
    _ route: inout Route, _ isConnected: Bool, _ vm: VM?, _ index: Int
  ) {
    guard route.isConnected != isConnected else { return }
    route.isConnected = isConnected
    guard let vm else { return }
    let gsi = Layout.firstMessageInterrupt + UInt32(index)
    try? vm.connect(route.event.event, toGSI: gsi, disconnect: !isConnected)
    // KVM sends what it finds raised, but leaves it so; what comes later it takes itself.
    if isConnected { route.event.event.consume() }
  }

  /// Goes to the controllers of `vm` from now on, and brings them what was raised.
  func connect(to vm: VM) throws(KVMError) {
    try state.withLock { (state) throws(KVMError) in
      // Linux refuses an event that another virtual machine has.
      for (index, route) in state.routes.enumerated() where route.isConnected {
        let gsi = Layout.firstMessageInterrupt + UInt32(index)
        try? state.vm?.connect(route.event.event, toGSI: gsi, disconnect: true)
      }
      state.vm = vm
      guard state.routes.contains(where: { $0.message != nil }) else { return }
      try vm.setRouting(Self.table(state.routes))
      for index in state.routes.indices where state.routes[index].isConnected {
        state.routes[index].isConnected = false
        Self.connect(&state.routes[index], true, vm, index)
      }
    }
  }

  /// The routes of the controllers' inputs, which a new table replaces, and the messages.
  private static func table(_ routes: [Route]) -> [kvm_irq_routing_entry] {
    var entries = InterruptRouting.inputs
    for (index, route) in routes.enumerated() {
      guard let message = route.message else { continue }
      entries.append(
        .message(
          gsi: Layout.firstMessageInterrupt + UInt32(index), address: message.address,
          data: message.data))
    }
    return entries
  }
}

private final class KVMMessageRoute: MessageRoute {
  private let router: KVMMessageRouter
  private let index: Int

  init(_ router: KVMMessageRouter, _ index: Int) {
    self.router = router
    self.index = index
  }

  func set(_ message: InterruptMessage?) { router.set(index, message) }
}
