import Devices
import Host
import KVM
import Memory

/// Takes a machine that another kvmlite sends: its memory while it still runs there, then the rest.
package final class MigrationTarget: Sendable {
  private let stream: MigrationStream

  /// Over `stream`, at whose other end somebody is about to send one.
  package init(_ stream: MigrationStream) { self.stream = stream }

  /// Why it doesn't come.
  package enum Trouble: Error, Sendable {
    case stream(MigrationStream.Trouble)
    case restore(RestoreError)
  }

  /// What has come: all that a machine needs to go on.
  package struct Arrived: Sendable {
    package let machine: SavedMachine
    package let memory: GuestMemory
  }

  /// Receives the machine. `told` gets what it is, before anything of its memory comes, and may refuse;
  /// `progress` how many bytes of memory have come.
  package func receive(
    told: (VMConfiguration) throws(RestoreError) -> Void = { _ throws(RestoreError) in },
    progress: (UInt64) -> Void = { _ in }
  ) throws(Trouble) -> Arrived {
    do throws(Trouble) {
      let memory = try begin(told)
      do throws(MigrationStream.Trouble) { try stream.send(.accept) } catch {
        throw .stream(error)
      }
      return try receiveAll(into: memory, progress)
    } catch {
      if case .restore(let error) = error { refuse("\(error)") }
      throw error
    }
  }

  private func begin(
    _ told: (VMConfiguration) throws(RestoreError) -> Void
  ) throws(Trouble) -> GuestMemory {
    let hello: [UInt8]
    do throws(MigrationStream.Trouble) {
      guard try stream.take(MigrationStream.mark.count) == MigrationStream.mark else {
        throw .nonsense("this is no machine of kvmlite's")
      }
      hello = try stream.next(.hello)
    } catch { throw .stream(error) }
    do throws(RestoreError) {
      let saved = try SavedMachine(bytes: hello)
      let spec = try saved.spec()
      try told(spec)
      let host: KVMHost
      do { host = try KVMHost() } catch { throw .machine(.kvm(error)) }
      _ = try saved.cpuids(spec, host)
      let memory = try MemoryLayoutTable.memory(saved.fields(SavedMachine.Name.memory))
      guard memory.ramSize == spec.memorySize else { throw .memory }
      return memory
    } catch { throw .restore(error) }
  }

  private func receiveAll(
    into memory: GuestMemory, _ progress: (UInt64) -> Void
  ) throws(Trouble) -> Arrived {
    var received: UInt64 = 0
    do throws(MigrationStream.Trouble) {
      while true {
        let frame = try stream.next()
        switch frame.kind {
        case .pages:
          // What the length is of has the address in it.
          let count: UInt32 = frame.bytes.number(at: 8)
          let view = try Self.view(memory, frame.bytes.number(at: 0), UInt64(count - 8))
          try stream.receive(into: view)
          received += UInt64(view.count)
        case .zeros:
          guard frame.bytes.count == 16 else { throw .nonsense("zeros of no length") }
          let view = try Self.view(memory, frame.bytes.number(at: 0), frame.bytes.number(at: 8))
          view.giveBack()
          received += UInt64(view.count)
        case .state:
          do { return Arrived(machine: try SavedMachine(bytes: frame.bytes), memory: memory) } catch
          {
            throw .nonsense("\(error)")
          }
        default: throw .nonsense("\(frame.kind) instead of memory")
        }
        progress(received)
      }
    } catch { throw .stream(error) }
  }

  private static func view(
    _ memory: GuestMemory, _ address: UInt64, _ count: UInt64
  ) throws(MigrationStream.Trouble) -> MemoryView {
    let page = GuestMemory.pageSize
    guard address % page == 0, count % page == 0, count > 0,
      let view = try? memory.writableView(at: GuestAddress(address), count: count)
    else { throw .nonsense("\(count) bytes of memory at \(GuestAddress(address))") }
    return view
  }

  // MARK: Once it is made

  /// Says that the machine is made and could run, and waits until it is this process's.
  package func takeOver() throws(MigrationStream.Trouble) {
    try stream.send(.ready)
    _ = try stream.next(.go)
  }

  /// Says that it runs.
  package func runs() { try? stream.send(.running) }

  /// Says why it doesn't, and never will.
  package func refuse(_ why: String) { try? stream.send(.refuse, Array(why.utf8.prefix(4096))) }
}

/// How a machine's memory lies, and what is in its ROMs, which nobody changes.
enum MemoryLayoutTable {
  /// A machine has RAM below and above the hole, and few ROMs.
  private static let mostRegions: UInt32 = 16
  private static let mostROM: UInt64 = 32 << 20

  static func bytes(of memory: GuestMemory) -> [UInt8] {
    var table = StateWriter()
    let roms = memory.regions.filter { $0.kind == .rom }
    table.write("ram", memory.ramSize)
    table.write("roms", UInt32(roms.count))
    for (number, rom) in roms.enumerated() {
      table.group("rom\(number)") {
        $0.write("start", rom.start.value)
        $0.write("bytes", (try? memory.read(Int(rom.count), at: rom.start)) ?? [])
      }
    }
    return table.bytes
  }

  /// New memory like that; the table may be anybody's.
  static func memory(_ table: StateReader) throws(RestoreError) -> GuestMemory {
    let size: UInt64
    var roms: [(start: GuestAddress, contents: [UInt8])] = []
    do throws(StateError) {
      let page = GuestMemory.pageSize
      size = try table.read("ram", in: page...GuestMemory.largestSize)
      guard size % page == 0 else { throw .impossible("ram") }
      for number in 0..<(try table.read("roms", in: 0...mostRegions)) {
        let fields = try table.group("rom\(number)")
        let contents = try fields.readBytes("bytes", limit: Int(mostROM))
        let start = GuestAddress(try fields.read("start"))
        let isInRAM =
          start.value < min(size, GuestMemory.holeStart)
          || start.value >= GuestMemory.holeEnd
        guard !contents.isEmpty, contents.count % Int(page) == 0, start.value % page == 0, !isInRAM,
          start.value + UInt64(contents.count) <= GuestMemory.holeEnd,
          !roms.contains(where: {
            start.value < $0.start.value + UInt64($0.contents.count)
              && $0.start.value < start.value + UInt64(contents.count)
          })
        else { throw .impossible("rom") }
        roms.append((start, contents))
      }
    } catch { throw .section(SavedMachine.Name.memory, error) }
    do { return try GuestMemory(ramSize: size, roms: roms) } catch {
      throw .machine(.host("can't reserve \(size >> 20) MiB of memory: \(error)"))
    }
  }
}
