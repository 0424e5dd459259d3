import Host
import KVM
import Memory

/// Why an experiment came to nothing.
package enum LabError: Error, CustomStringConvertible {
  /// KVM refused a request.
  case kvm(KVMError)
  /// The host refused a system call.
  case host(Errno)
  /// A guest did nothing that leaves it for too long; the words say which.
  case overdue(String)
  /// A guest did what it was not made for; the words say what.
  case unexpected(String)

  /// In a sentence.
  package var description: String {
    switch self {
    case .kvm(let error): "\(error)"
    case .host(let error): "\(error)"
    case .overdue(let what): "\(what) did not leave the guest in time"
    case .unexpected(let what): what
    }
  }
}

/// Runs `body` with KVM's errors as the lab's.
func kvm<Result>(_ body: () throws(KVMError) -> Result) throws(LabError) -> Result {
  do { return try body() } catch { throw .kvm(error) }
}

/// Runs `body` with the host's errors as the lab's.
func host<Result: ~Copyable>(_ body: () throws(Errno) -> Result) throws(LabError) -> Result {
  do { return try body() } catch { throw .host(error) }
}

/// A directory for an experiment's files.
func makeDirectory() throws(LabError) -> TemporaryDirectory {
  do { return try TemporaryDirectory() } catch {
    throw .unexpected("no directory can be made in $TMPDIR, or in /tmp without it: \(error)")
  }
}

/// Runs `body`, whose addresses are the lab's own, with errors as the lab's.
func inMemory<Result>(
  _ body: () throws(GuestMemory.OutOfBounds) -> Result
) throws(LabError) -> Result {
  do { return try body() } catch { throw .unexpected("\(error)") }
}
