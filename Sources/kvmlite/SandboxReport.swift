import Host
import Machine

/// What of the sandbox this host has: found out by copies of this process that go into it as a run does.
struct SandboxReport {
  typealias Layer = Confinement.Layer

  /// All layers, each with whether it is there; nil for what whoever asks doesn't need.
  let layers: [(layer: Layer, isThere: Bool?)]
  /// Why a run would end before it, with 71; nil where it would not.
  let trouble: String?

  /// Tries it. This process has no other threads.
  static func make() -> SandboxReport {
    do throws(Errno) {
      let run = try Subprocess.result {
        do throws(Failure) {
          var spec = VMConfiguration()
          spec.limits = .trial
          let sandbox = try RunSandbox(Session.Settings(), spec)
          return try text(sandbox.limited() + (sandbox.layers() ?? []))
        } catch { return error.message }
      }
      // A run asks for it where it has no namespaces.
      let alone = try Subprocess.result {
        text((try? Confinement().enter(nil, violation: nil)) ?? [])
      }
      let found = layers(run)
      guard !found.isEmpty else {
        return Self(layers: [], trouble: run.isEmpty ? "who goes into it is ended" : run)
      }
      let all = found + layers(alone).filter { $0.kind == .landlock }
      let layers = Layer.Kind.allCases.map { kind -> (layer: Layer, isThere: Bool?) in
        guard let layer = all.first(where: { $0.kind == kind }) else {
          return (Layer(kind, lack: nil), nil)
        }
        return (layer, layer.lack == nil)
      }
      return Self(layers: layers, trouble: nil)
    } catch { return Self(layers: [], trouble: error.description) }
  }

  // MARK: From one process to the other

  private static func text(_ layers: [Layer]) -> String {
    layers.map { layer in
      "\(layer.kind.rawValue)\t\(layer.number.map(String.init) ?? "")\t\(layer.lack ?? "")\n"
    }.joined()
  }

  private static func layers(_ text: String) -> [Layer] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      guard words.count == 3, let kind = Layer.Kind(rawValue: words[0]) else { return nil }
      return Layer(kind, number: Int(words[1]), lack: words[2].isEmpty ? nil : words[2])
    }
  }
}

extension Confinement.Layer.Kind {
  /// What it is good for.
  var use: String {
    switch self {
    case .userNamespace: "what rights are left count for nothing outside"
    case .fileNamespace: "no file can be reached"
    case .networkNamespace: "nor the network"
    case .queueNamespace: "nor message queues and shared memory of others"
    case .nameNamespace: "the host keeps its name"
    case .coreDumps: "memory isn't left in a file"
    case .openFiles: "no more files than there may be"
    case .user: "root becomes a user whom nobody else is"
    case .capabilities: "no rights beyond a user's"
    case .dumpable: "no other process of this user's looks into it"
    case .newRights: "no set-user-ID program gives rights back"
    case .landlock: "stands in for namespaces: no files, TCP ports, signals"
    case .violations: "a system call that is refused is told of"
    case .systemCalls: "none but those that a thread's work needs"
    case .memoryLimit: "limits.memory is kept"
    case .processorLimit: "limits.cpus is kept"
    case .threadLimit: "limits.threads is kept"
    case .diskLimit: "limits.read and limits.write are kept"
    }
  }

  /// What is so without it, though the rest stands; empty where that says it.
  var without: String {
    switch self {
    case .fileNamespace: "Landlock stands in, where it is there; "
    case .user: "a guest that breaks out has root's number, without its capabilities; "
    case .systemCalls: "a guest that breaks out may ask the kernel for anything; "
    default: ""
    }
  }

  /// Why somebody has no need for it.
  var needless: String { self == .userNamespace ? "root needs none" : "only root becomes another" }
}
