import Host
import Machine

// Saves that are made onto others, and what is done about it.

extension NewFolder {
  /// Makes it, has `write` fill it, and puts it in its place.
  func fill(_ write: () throws(Failure) -> Void) throws(Failure) {
    if let refusal = SavedFolder.refusal(of: self) { throw Failure(status: 64, message: refusal) }
    do throws(Errno) { try make() } catch {
      throw Failure(
        status: error == .noSpace ? 71 : 66,
        message: "\(path): no folder can be made beside it: \(error)")
    }
    do throws(Failure) {
      try write()
      do throws(Errno) { try keep() } catch {
        throw Failure(status: 71, message: "\(path): can't be put in its place: \(error)")
      }
    } catch {
      remove()
      throw error
    }
  }

  /// Its two files.
  func makeFiles() throws(Failure) -> (state: SharedDescriptor, memory: SharedDescriptor) {
    do throws(Errno) {
      return (try makeFile(SavedFolder.state), try makeFile(SavedFolder.memory))
    } catch { throw Failure(status: 71, message: "\(path): can't be made: \(error)") }
  }
}

/// The save that another one is made onto.
struct EarlierSave {
  private let chain: SavedChain
  /// Its folder, as the new one knows it.
  private let path: String

  /// That in the folder `path`, if `machine` can be saved onto it, to `place`.
  init(_ path: String, of machine: KnownMachine, for place: NewFolder) throws(Failure) {
    var chain = SavedChain()
    do throws(RestoreError) { try chain.open(path) } catch { throw Failure(error, path) }
    self.chain = chain
    guard chain.links.count < SavedChain.longest else {
      throw Failure(
        status: 64,
        message: "\(path): is made onto \(chain.links.count - 1) others already, and no more are "
          + "possible: kvmlite save --flatten \(path)")
    }
    guard chain.links[0].origin != nil else {
      throw Failure(
        status: 64,
        message: "\(path): is of an older kvmlite: save the machine anew, without --onto")
    }
    guard !chain.links.contains(where: { FileName.withoutLinks($0.path) == place.path }) else {
      throw Failure(
        status: 64,
        message: "\(place.path): can't be replaced by a save that needs it: "
          + "give another name")
    }
    if let now = try? machine.places.readSpec(), let then = try? chain.links[0].machine.spec(),
      now.memorySize != then.memorySize
    {
      throw Failure(
        status: 64,
        message: "\(path): is of a machine with \(byteCount(then.memorySize)) of memory, and "
          + "\(machine.name) has \(byteCount(now.memorySize)): give a save of \(machine.name)")
    }
    self.path = Self.path(path, from: place.path)
  }

  private static func path(_ path: String, from folder: String) -> String {
    let parent = FileName.directory(of: folder)
    guard let path = FileName.withoutLinks(path), let parent = FileName.withoutLinks(parent),
      let name = folder.split(separator: "/").last
    else { return FileName.absolute(path) }
    return FileName.relative(path, from: parent + "/" + name)
  }

  var members: [JSON.Member] { [JSON.Member("onto", JSON(.string(path)))] }

  var files: [Int32] {
    chain.links.flatMap { [$0.files.state.file.number, $0.files.memory.file.number] }
  }
}

/// A save that needs others, and is to need none.
struct FlattenedSave {
  private let folder: String

  init(_ folder: String) { self.folder = folder }

  func make() throws(Failure) -> Int32 {
    var chain = SavedChain()
    do throws(RestoreError) { try chain.open(folder) } catch { throw Failure(error, folder) }
    guard chain.links.count > 1 else {
      Message.note("\(folder): needs no other save")
      return 0
    }
    let place = SavedFolder.new(folder)
    try place.fill { () throws(Failure) in try write(chain, place) }
    return 0
  }

  private func write(_ chain: SavedChain, _ place: NewFolder) throws(Failure) {
    let (state, memory) = try place.makeFiles()
    var progress = LateProgress()
    defer { progress.end() }
    do throws(FlattenError) {
      try chain.flatten(state: state.file, memory: memory.file) { progress.show($0, of: $1) }
    } catch {
      switch error {
      case .saved(let error): throw Failure(error, folder)
      case .writing(let error):
        throw Failure(status: 71, message: "\(place.path): can't be written: \(error)")
      }
    }
  }
}
