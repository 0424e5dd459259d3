import Host
import Memory

/// Makes saves that are made onto each other, of parts as the input says, and reads them as a machine that
/// goes on with them: they are refused, or a machine's memory comes of them.
///
/// The input: parts, each a byte for which (255 begins the next save), two for how many bytes it has, and
/// these. The checksums of parts are made right, which no input would find.
@_cdecl("LLVMFuzzerTestOneInput")
public func savesFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  _ = try? SavedMachine(bytes: input)
  var chain = SavedChain()
  for parts in saves(input) {
    let machine = SavedMachine(sections: parts)
    do throws(RestoreError) {
      let again = try SavedMachine(bytes: machine.bytes)
      precondition(again == machine, "read otherwise")
      _ = try? again.spec()
      try chain.append(SavedLink("save", again, (file, file), (fileLength, 0)))
    } catch { return 0 }
  }
  guard let last = chain.links.last, last.base == nil else { return 0 }
  let saved = chain.memory
  let isGood = (try? saved.verify()) != nil
  if let memory = try? saved.makeMemory(isShareable: false) {
    var writer = SavedMemoryWriter(onto: saved)
    guard let table = try? writer.write(memory, to: empty()) else { fatalError("can't be written") }
    precondition(writer.pages?.count == 0, "nothing was changed")
    precondition(!isGood || table == saved.table, "other checksums")
  }
  let isFlat = (try? chain.flatten(state: empty(), memory: empty()) { _, _ in }) != nil
  precondition(isFlat == isGood, "what is good can be copied, and nothing else")
  return 0
}

private let names = ["memory", "origin", "base", "spec", "disks", "engine", "input", "device/rtc"]

private func saves(_ input: [UInt8]) -> [[SavedMachine.Section]] {
  var saves: [[SavedMachine.Section]] = [[]]
  var place = 0
  while place < input.count {
    let name = input[place]
    place += 1
    guard name != 255 else {
      saves.append([])
      continue
    }
    guard input.count - place >= 2 else { break }
    let count = Int(input[place]) | Int(input[place + 1]) << 8
    let bytes = Array(input.dropFirst(place + 2).prefix(count))
    place += 2 + count
    saves[saves.count - 1].append(
      .init(name: names[Int(name) % names.count], version: name < 128 ? 1 : 2, bytes: bytes))
  }
  return saves
}

private let fileLength: UInt64 = 1 << 20
/// Some of it is data.
private let file = {
  let file = empty()
  try! file.setLength(fileLength)
  try! file.writeAll([UInt8](repeating: 1, count: 0x3000).span, at: 0x1_1000)
  return SharedDescriptor(file)
}()

private func empty() -> FileDescriptor { try! FileDescriptor(unnamedIn: "/dev/shm") }
