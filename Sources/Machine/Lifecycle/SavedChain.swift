import Devices
import Host
import Memory

/// When and as what a machine was saved.
package struct SavedOrigin: Sendable, Equatable {
  /// A number that no other save has.
  let id: [UInt8]
  /// Nanoseconds since 1970.
  package let time: Int64

  static let idCount = 16

  /// Those of a save that is made now.
  init() throws(Errno) {
    var id = [UInt8](repeating: 0, count: Self.idCount)
    var span = id.mutableSpan
    try RandomBytes.fill(&span)
    self.id = id
    time = Clock.realtimeNanoseconds
  }

  init(_ state: StateReader) throws(StateError) {
    id = try state.readBytes("id", count: Self.idCount)
    time = try state.read("time")
  }

  var bytes: [UInt8] {
    var state = StateWriter()
    state.write("id", id)
    state.write("time", time)
    return state.bytes
  }
}

/// The save that another one was made onto.
package struct SavedBase: Sendable, Equatable {
  /// Its folder; unless it begins with a slash as seen from the newer save's.
  package let path: String
  let id: [UInt8]
  /// The pages of memory that the newer one has itself.
  package let pages: SavedPages

  private static let longestPath = 4096

  init(path: String, id: [UInt8], pages: SavedPages) {
    (self.path, self.id, self.pages) = (path, id, pages)
  }

  init(_ state: StateReader, pageCount: Int) throws(StateError) {
    let path = try state.readBytes("path", limit: Self.longestPath)
    guard !path.isEmpty, !path.contains(0) else { throw .impossible("path") }
    self.path = String(decoding: path, as: UTF8.self)
    id = try state.readBytes("id", count: SavedOrigin.idCount)
    let bytes = try state.readBytes("pages", count: SavedPages.byteCount(pageCount))
    guard let pages = SavedPages(bytes, pageCount: pageCount) else { throw .impossible("pages") }
    self.pages = pages
  }

  var bytes: [UInt8] {
    var state = StateWriter()
    state.write("path", Array(path.utf8))
    state.write("id", id)
    state.write("pages", pages.bytes)
    return state.bytes
  }

  /// Its folder, for whom the newer save's is `folder`.
  func path(from folder: String) -> String {
    guard !path.hasPrefix("/"), let folder = FileName.withoutLinks(folder) else { return path }
    var names = folder.split(separator: "/")
    for name in path.split(separator: "/") {
      if name == ".." { _ = names.popLast() } else { names.append(name) }
    }
    return "/" + names.joined(separator: "/")
  }
}

/// A save with its files open.
package struct SavedLink: Sendable {
  /// The folder.
  package let path: String
  /// What is in it.
  package let machine: SavedMachine
  /// When it was made; nil if it doesn't say.
  package let origin: SavedOrigin?
  /// What it was made onto, if that is so.
  package let base: SavedBase?
  /// The file `state`, and the file `memory`.
  package let files: (state: SharedDescriptor, memory: SharedDescriptor)
  /// How long that file is, and how much of it is on disk, in bytes.
  package let sizes: (length: UInt64, allocated: UInt64)
  let table: SavedMemoryTable

  /// Bytes of `state`: more is nothing that was saved.
  private static let longestState: UInt64 = 1 << 30

  /// That at `path`, whose files may be anybody's.
  package init(
    _ path: String, state: SharedDescriptor, memory: SharedDescriptor
  ) throws(RestoreError) {
    let memoryFacts: FileFacts
    var bytes: [UInt8]
    do throws(Errno) {
      let facts = try state.file.facts()
      guard facts.kind == .regular, facts.length <= Self.longestState else {
        throw .fileTooLarge
      }
      bytes = [UInt8](repeating: 0, count: Int(facts.length))
      var span = bytes.mutableSpan
      let count = try state.file.readAll(into: &span, at: 0)
      bytes.removeLast(bytes.count - count)
      memoryFacts = try memory.file.facts()
    } catch { throw .file(error) }
    try self.init(
      path, SavedMachine(bytes: bytes), (state, memory),
      (memoryFacts.length, memoryFacts.allocated))
  }

  /// The same of bytes that have been read, with a memory of these `sizes`.
  init(
    _ path: String, _ machine: SavedMachine, _ files: (SharedDescriptor, SharedDescriptor),
    _ sizes: (length: UInt64, allocated: UInt64)
  ) throws(RestoreError) {
    typealias Name = SavedMachine.Name
    let table = try machine.read(Name.memory, SavedMemoryTable.init)
    (self.path, self.machine, self.files, self.sizes) = (path, machine, files, sizes)
    self.table = table
    origin = machine.has(Name.origin) ? try machine.read(Name.origin, SavedOrigin.init) : nil
    base =
      machine.has(Name.base)
      ? try machine.read(Name.base) { (state) throws(StateError) in
        try SavedBase(state, pageCount: table.pageCount)
      } : nil
    if let missing = table.regions.first(where: { $0.offset + $0.count > sizes.length }) {
      throw .damagedMemory(missing.start)
    }
  }
}

/// A save, and those that it was made onto, the newest first.
package struct SavedChain: Sendable {
  /// Them, as far as they were opened.
  package private(set) var links: [SavedLink] = []
  /// How many there may be: each has to be there and open.
  package static let longest = 8

  /// None yet.
  package init() {}

  /// Adds the next one, which the last one was made onto.
  package mutating func append(_ link: SavedLink) throws(RestoreError) {
    if let newest = links.first {
      guard let base = links.last?.base, link.origin?.id == base.id else {
        throw .otherBase(link.path)
      }
      guard link.table.regions == newest.table.regions else { throw .base(link.path, .memory) }
    }
    links.append(link)
  }

  /// Those whose files are these: `state` and `memory` of each in turn.
  init(_ files: [SharedDescriptor]) throws(RestoreError) {
    for index in stride(from: 0, to: files.count - 1, by: 2) {
      try append(SavedLink("the base", state: files[index], memory: files[index + 1]))
    }
    if let missing = links.last?.base { throw .base(missing.path, .file(.noSuchFile)) }
  }

  /// The newest one's memory. They are all there.
  package var memory: SavedMemoryFile {
    SavedMemoryFile(
      links[0].table, links.map(\.files.memory), links.dropLast().compactMap(\.base?.pages))
  }
}

/// Why there is no save that needs no other.
package enum FlattenError: Error {
  /// The save isn't good.
  case saved(RestoreError)
  /// The new one can't be written.
  case writing(Errno)
}

extension SavedChain {
  /// Writes the newest one to two open files, which are empty, so that it needs no other, and returns when
  /// they are on stable storage. All of its memory is looked at.
  package func flatten(
    state: borrowing FileDescriptor, memory: borrowing FileDescriptor,
    progress: (_ done: UInt64, _ all: UInt64) -> Void
  ) throws(FlattenError) {
    let contents = self.memory
    let sections = links[0].machine.sections.filter { $0.name != SavedMachine.Name.base }
    var failure: Errno?
    do throws(RestoreError) {
      do throws(Errno) { try memory.setLength(contents.table.byteCount) } catch {
        failure = error
        throw .file(error)
      }
      try contents.read(progress) { (bytes, place) throws(RestoreError) in
        do throws(Errno) { try SavedMemoryWriter.write(bytes, to: memory, at: place) } catch {
          failure = error
          throw .file(error)
        }
      }
    } catch { throw failure.map { .writing($0) } ?? .saved(error) }
    do throws(Errno) {
      try memory.synchronizeData()
      try state.writeAll(SavedMachine(sections: sections).bytes.span)
      try state.synchronizeData()
    } catch { throw .writing(error) }
  }
}
