/// Commands that run another one with a file open that a shell can't open. Each has the command as its
/// last arguments.
package enum OpenFiles {
  /// With a queue of the tap interface `name` at this number; its frames have virtio-net headers, or
  /// not.
  package static func tap(_ name: String, at number: Int, hasHeaders: Bool = true) -> [String] {
    python(
      """
      tap = os.open("/dev/net/tun", os.O_RDWR)
      TUNSETIFF, TAP, NO_PI, HEADERS = 0x400454ca, 2, 0x1000, \(hasHeaders ? "0x4000" : "0")
      fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"\(name)", TAP | NO_PI | HEADERS))
      os.dup2(tap, \(number))
      """)
  }

  /// With a Unix socket that listens at `path` at this number.
  package static func listener(at path: String, as number: Int) -> [String] {
    python(
      """
      listener = socket.socket(socket.AF_UNIX)
      listener.bind("\(path)")
      listener.listen(8)
      os.dup2(listener.fileno(), \(number))
      """)
  }

  private static func python(_ script: String) -> [String] {
    [
      "python3", "-c",
      "import fcntl, os, socket, struct, sys\n\(script)\nos.execv(sys.argv[1], sys.argv[1:])",
    ]
  }
}
