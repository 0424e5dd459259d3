import Host

/// Why an image can't be booted, in words for whoever started kvmlite.
package struct BootError: Error, Equatable, Sendable {
  /// Where the remedy lies.
  package enum Cause: Sendable {
    /// The image contradicts itself or its format, or has been cut short.
    case malformed
    /// The image is sound as far as it was read, but nothing that kvmlite boots.
    case unsupported
    /// An option contradicts the image.
    case options
    /// The guest has no memory where the image must go.
    case memory
  }

  /// Where the remedy lies.
  package let cause: Cause
  /// What is wrong with which image, where, and what to do next.
  package let message: Advice

  init(_ cause: Cause, _ message: Advice) {
    self.cause = cause
    self.message = message
  }
}

extension BootError: CustomStringConvertible {
  /// The message.
  package var description: String { message.description }
}
