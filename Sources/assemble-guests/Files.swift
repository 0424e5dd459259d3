import Glibc

/// A failure of this tool or of one that it started, as a line for the build's log.
struct Failure: Error {
  var message: String
}

/// The whole file at `path`.
func readFile(_ path: String) throws(Failure) -> [UInt8] {
  let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { throw Failure(message: "\(path): \(errorText())") }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = unsafe buffer.withUnsafeMutableBytes {
      unsafe read(descriptor, $0.baseAddress, $0.count)
    }
    guard count >= 0 else { throw Failure(message: "\(path): \(errorText())") }
    if count == 0 { return bytes }
    bytes += buffer[..<count]
  }
}

/// Makes `text` the content of the file at `path`.
func writeFile(_ path: String, _ text: String) throws(Failure) {
  let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard descriptor >= 0 else { throw Failure(message: "\(path): \(errorText())") }
  defer { close(descriptor) }
  var rest = Array(text.utf8)[...]
  while !rest.isEmpty {
    let count = unsafe rest.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
    guard count > 0 else { throw Failure(message: "\(path): \(errorText())") }
    rest = rest.dropFirst(count)
  }
}

/// Runs a program to its end. What it prints goes where this program's output goes.
func run(_ program: String, _ arguments: [String]) throws(Failure) {
  var words: [UnsafeMutablePointer<CChar>?] = unsafe ([program] + arguments).map {
    unsafe strdup($0)
  }
  unsafe words.append(nil)
  defer { for index in unsafe words.indices { unsafe free(words[index]) } }
  var child: pid_t = 0
  let error = unsafe posix_spawn(&child, program, nil, nil, words, environ)
  guard error == 0 else { throw Failure(message: "\(program): \(errorText(error))") }
  var status: Int32 = 0
  while unsafe waitpid(child, &status, 0) < 0 {
    guard errno == EINTR else { throw Failure(message: "waitpid: \(errorText())") }
  }
  // The program has said what is wrong; this only tells which it was.
  guard status == 0 else { throw Failure(message: "\(program) failed") }
}

/// Prints a line on standard error.
func complain(_ line: String) {
  let bytes = Array("\(line)\n".utf8)
  _ = unsafe bytes.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
}

private func errorText(_ error: Int32 = errno) -> String {
  unsafe String(cString: strerror(error))
}
