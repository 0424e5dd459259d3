import Devices
import Host
import Memory
import Storage

/// A machine that stood still, taken out of its process but for its memory: what it is, and the state of
/// each of its parts.
package struct SavedMachine: Sendable, Equatable {
  /// A part's state.
  package struct Section: Sendable, Equatable {
    /// Which part's: `spec`, `engine`, `input`, `memory`, `disks`, `origin`, `base`, `suspended`, `end`, or
    /// `device/` and the name that the inventory has for it.
    package let name: String
    /// Which form the bytes have.
    package let version: UInt32
    /// The state, as the part writes it.
    package let bytes: [UInt8]

    /// A part's state.
    package init(name: String, version: UInt32, bytes: [UInt8]) {
      (self.name, self.version, self.bytes) = (name, version, bytes)
    }
  }

  /// All parts' states.
  package let sections: [Section]

  /// The names of sections, and the form in which each is written.
  enum Name {
    static let spec = "spec"
    static let engine = "engine"
    static let input = "input"
    /// How a folder's memory lies in its file.
    static let memory = "memory"
    /// What the files of disks were like.
    static let disks = "disks"
    /// When it was saved, and a number.
    static let origin = "origin"
    /// Which save it was made onto.
    static let base = "base"
    /// Without bytes: it is there, or not.
    static let suspended = "suspended"
    /// How its run ended, as JSON, if that is over: for those who look at it.
    static let end = "end"
    static func device(_ name: String) -> String { "device/" + name }
    static let version: UInt32 = 1
  }

  /// A machine of these parts.
  package init(sections: [Section]) { self.sections = sections }

  /// The same with one more section.
  func with(_ name: String, _ bytes: [UInt8]) -> SavedMachine {
    SavedMachine(sections: sections + [Section(name: name, version: Name.version, bytes: bytes)])
  }

  /// The bytes of the section `name`.
  func bytes(_ name: String) throws(RestoreError) -> [UInt8] {
    guard let section = sections.first(where: { $0.name == name }) else {
      throw .missing(section: name)
    }
    guard section.version == Name.version else {
      throw .version(section: name, section.version)
    }
    return section.bytes
  }

  /// Whether the guest had suspended it to RAM.
  var isSuspended: Bool { has(Name.suspended) }

  /// How its run had ended, as JSON; nil if it hadn't.
  package var end: JSON? {
    sections.first { $0.name == Name.end }.flatMap { try? JSON(parsing: $0.bytes) }
  }

  /// The fields of the section `name`.
  func fields(_ name: String) throws(RestoreError) -> StateReader {
    let bytes = try bytes(name)
    do { return try StateReader(bytes) } catch { throw .section(name, error) }
  }

  /// Whether there is a section `name`.
  func has(_ name: String) -> Bool { sections.contains { $0.name == name } }

  /// What the section `name` says.
  func read<Value>(
    _ name: String, _ parse: (StateReader) throws(StateError) -> Value
  ) throws(RestoreError) -> Value {
    let fields = try fields(name)
    do { return try parse(fields) } catch { throw .section(name, error) }
  }

  /// What the machine was, with each device's place.
  package func spec() throws(RestoreError) -> VMConfiguration {
    let text = try bytes(Name.spec)
    do { return try VMConfiguration(json: text) } catch { throw .spec(error) }
  }
}

/// Why a machine can't be saved now.
package enum SaveError: Error, Sendable {
  /// KVM didn't give a state.
  case kvm(KVMTrouble)
  /// The run is over.
  case hasEnded
  /// It has something that isn't saved; which, and why.
  case unsavable(String)
  /// A disk can't be made ready for it.
  case disk(String, StorageError)
  /// The files can't be written.
  case file(Errno)
  /// What it is to be made onto is none for it.
  case base(RestoreError)

  /// What KVM said.
  package typealias KVMTrouble = String
}

extension SaveError: CustomStringConvertible {
  /// In a sentence.
  package var description: String {
    switch self {
    case .kvm(let trouble): "KVM doesn't give the machine's state: \(trouble)"
    case .hasEnded: "the machine has ended"
    case .unsavable(let what): "it can't be saved: \(what)"
    case .disk(let id, let error): "it can't be saved: \(id): \(error)"
    case .file(let error): "it can't be saved: \(error)"
    case .base(let error): "it can't be saved onto that: \(error)"
    }
  }
}

/// Why there is no machine that goes on where a saved one stood.
package indirect enum RestoreError: Error, Sendable {
  /// The bytes are something else.
  case notSaved
  /// They are in a form that this kvmlite doesn't know.
  case form(UInt32)
  /// They end, or go on, where a section should have ended: at this offset.
  case cut(offset: Int)
  /// A section isn't as it was written.
  case damaged(section: String)
  /// There are two of that name.
  case twice(section: String)
  /// There is none of that name.
  case missing(section: String)
  /// The machine has no such part.
  case unknown(section: String)
  /// It is in a form that this kvmlite doesn't know.
  case version(section: String, UInt32)
  /// The spec isn't one.
  case spec(SpecError)
  /// A part doesn't take its state.
  case section(String, StateError)
  /// The memory isn't that of this machine.
  case memory
  /// Some of the memory, from this address on, isn't as it was saved.
  case damagedMemory(GuestAddress)
  /// The save that it was made onto is no good; its path, and why.
  case base(String, RestoreError)
  /// Another save is where the one was that it was made onto: its path.
  case otherBase(String)
  /// This one is made onto one, and that one onto another, and so on without an end.
  case longChain(String)
  /// A disk isn't what it was; which, and its path.
  case disk(String, String)
  /// A file of the folder can't be read.
  case file(Errno)
  /// This host hasn't got what the guest may count on, each in words.
  case processor([String])
  /// The machine can't be made.
  case machine(MachineError)
}

extension RestoreError: CustomStringConvertible {
  /// What is wrong with what.
  package var description: String {
    switch self {
    case .notSaved: "this is no saved machine"
    case .form(let form): "a saved machine of form \(form), which this kvmlite doesn't know"
    case .cut(let offset): "the saved machine is damaged: it breaks off at byte \(offset)"
    case .damaged(let name): "the saved machine is damaged: \(name) has another checksum"
    case .twice(let name): "the saved machine is damaged: it has two parts \(name)"
    case .missing(let name): "the saved machine is damaged: it lacks \(name)"
    case .unknown(let name): "the saved machine has \(name), which it has no device for"
    case .version(let name, let version):
      "\(name) was saved in form \(version), which this kvmlite doesn't know"
    case .spec(let error): "the saved machine's spec: \(error.message)"
    case .section(let name, let error): "the saved machine is damaged: \(name): \(error)"
    case .memory: "the memory isn't that of the saved machine"
    case .damagedMemory(let address):
      "the saved machine is damaged: its memory at \(address) isn't what was saved"
    case .base(let path, .file(let error)):
      "it was made onto \(path), which can't be read: \(error); put that save back there"
    case .base(let path, let error): "it was made onto \(path): \(error)"
    case .otherBase(let path):
      "it was made onto a save that was at \(path), where there is another one now"
    case .longChain(let path):
      "\(path) is made onto a save that is made onto one, and so on: more than "
        + "\(SavedChain.longest) in all"
    case .disk(let id, let path):
      "\(id): \(path) isn't as it was when the machine was saved: what the guest knows of it would "
        + "spoil it"
    case .file(let error): "the saved machine can't be read: \(error)"
    case .processor(let lacks):
      "this host can't go on with the saved machine: it lacks \(lacks.joined(separator: ", ")) "
        + "(a machine whose cpu is baseline needs less)"
    case .machine(let error): error.description
    }
  }
}
