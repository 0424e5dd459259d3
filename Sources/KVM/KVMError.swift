import Host

/// A request to KVM that the kernel refused.
package struct KVMError: Error, Equatable, Sendable {
  /// What was asked: the ioctl's name, such as `KVM_CREATE_VM`, or `open` and `mmap`.
  package let operation: Operation
  /// Why the kernel refused.
  package let errno: Errno

  /// A request's name, as the kernel's documentation spells it.
  package struct Operation: Equatable, Sendable, ExpressibleByStringLiteral {
    /// The name.
    package let name: StaticString
    /// Wraps a name.
    package init(stringLiteral name: StaticString) { self.name = name }
    /// Whether both have the same name.
    package static func == (left: Operation, right: Operation) -> Bool {
      left.name.description == right.name.description
    }
  }

  /// The failure of `operation` with `errno`.
  package init(_ operation: Operation, _ errno: Errno) {
    self.operation = operation
    self.errno = errno
  }
}

extension KVMError: CustomStringConvertible {
  /// The ioctl and the reason: `KVM_CREATE_VM: Cannot allocate memory (ENOMEM)`.
  package var description: String { "\(operation.name): \(errno)" }
}

/// Passes on what an ioctl returned, or throws its `errno` with the name of the request.
@discardableResult
@inline(__always)
func check(
  _ operation: KVMError.Operation, _ result: @autoclosure () -> Int32
) throws(KVMError) -> Int32 {
  let result = result()
  guard result >= 0 else { throw KVMError(operation, .current) }
  return result
}

// Sound where `request` is made for a `State` and keeps no pointer to it, as the wrappers of ioctls do.

/// What `request` makes of `state`.
func get<State>(
  _ operation: KVMError.Operation, _ descriptor: Int32, _ state: State,
  _ request: (Int32, UnsafeMutablePointer<State>?) -> Int32
) throws(KVMError) -> State {
  var state = state
  try check(operation, unsafe request(descriptor, &state))
  return state
}

/// Has `request` take `state`.
func set<State>(
  _ operation: KVMError.Operation, _ descriptor: Int32, _ state: State,
  _ request: (Int32, UnsafePointer<State>?) -> Int32
) throws(KVMError) {
  var state = state
  try check(operation, unsafe request(descriptor, &state))
}
