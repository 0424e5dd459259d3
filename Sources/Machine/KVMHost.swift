import Host
import KVM
import Synchronization

/// The host's KVM with all that a machine needs of it before its configuration is known.
struct KVMHost: Sendable {
  let system: System
  /// What CPUID can answer here.
  let cpuid: CPUID
  /// An empty VM.
  let vm: VM

  init() throws(KVMError) {
    system = try System()
    let version = try system.version()
    guard version == System.apiVersion else {
      throw KVMError("KVM_GET_API_VERSION", .invalidArgument)
    }
    vm = try system.makeVM()
    cpuid = try system.supportedCPUID()
  }
}

/// Opens KVM and makes an empty VM on a thread of its own, while the program does something else.
///
/// The kernel's part of a start is half of it, and the rest needn't wait for it: the command line
/// prepares the host while it reads its options.
public final class HostPreparation: Sendable {
  private let result: SharedResult
  private let thread: HostThread?

  private final class SharedResult: Sendable {
    let value = Mutex<Result<KVMHost, KVMError>?>(nil)
  }

  /// Starts.
  public init() {
    let result = SharedResult()
    self.result = result
    thread = try? HostThread(name: "prepare") {
      let host: Result<KVMHost, KVMError>
      do throws(KVMError) { host = .success(try KVMHost()) } catch { host = .failure(error) }
      result.value.withLock { $0 = host }
    }
  }

  /// Waits for the host. To be called at most once.
  func finish() throws(KVMError) -> KVMHost {
    thread?.join()
    guard let host = result.value.withLock({ $0 }) else { return try KVMHost() }
    return try host.get()
  }
}
