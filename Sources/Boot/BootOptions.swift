import Memory

/// What the user may say about how an image starts.
package struct BootOptions: Sendable {
  /// The mode to start in; nil for what the format says, and real mode for a flat image.
  package var mode: CPUMode?
  /// Where a flat image goes; nil for the layout's place. Other formats have their own.
  package var loadAddress: GuestAddress?
  /// Linux's initial RAM disks, which it gets as one, or the modules of a PVH or Multiboot kernel.
  package var initrds: [BootFile]
  /// What a kernel is told; nil and an empty text are the same to it.
  package var commandLine: String?

  /// Options with nothing said, or with what is given.
  package init(
    mode: CPUMode? = nil, loadAddress: GuestAddress? = nil, initrds: [BootFile] = [],
    commandLine: String? = nil
  ) {
    self.mode = mode
    self.loadAddress = loadAddress
    self.initrds = initrds
    self.commandLine = commandLine
  }
}
