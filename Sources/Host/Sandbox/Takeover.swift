import CLinux
import Glibc

/// Stands where a guest that took over a thread would: in debug builds alone, for tests.
package enum Takeover {
  #if DEBUG
    /// Makes the system call that the environment's `KVMLITE_TAKEOVER` names, `ROLE:CALL:A:B:...` in
    /// decimal, if the calling thread is for that role, and says what came of it.
    package static func act(as role: ThreadRole) {
      guard let text = HostEnvironment.variable("KVMLITE_TAKEOVER") else { return }
      let words = text.split(separator: ":")
      guard words.first.map(String.init) == role.rawValue, words.count >= 2 else { return }
      // A path's address is what /etc/passwd stands for.
      let path = unsafe strdup("/etc/passwd")
      let numbers = words.dropFirst().map { word in
        word == "path" ? Int64(Int(bitPattern: path)) : Int64(word) ?? 0
      }
      let arguments = (1...6).map { $0 < numbers.count ? numbers[$0] : 0 }
      // Whatever it does is what is tested.
      let result = unsafe arguments.withUnsafeBufferPointer {
        unsafe clinux_raw_call(numbers[0], $0.baseAddress, nil)
      }
      try? FileDescriptor(borrowing: 2).writeAll("it went on: \(result)\n")
    }
  #else
    @inline(__always)
    package static func act(as role: ThreadRole) {}
  #endif
}
