import Memory

/// What the user may say about how an image starts.
public struct BootOptions: Sendable {
  /// The mode to start in; nil for what the format says, and real mode for a flat image.
  public var mode: CPUMode?
  /// Where a flat image goes; nil for the layout's place. Other formats have their own.
  public var loadAddress: GuestAddress?

  /// Options with nothing said, or with what is given.
  public init(mode: CPUMode? = nil, loadAddress: GuestAddress? = nil) {
    self.mode = mode
    self.loadAddress = loadAddress
  }
}
