import Host

/// `kvmlite backend block` as a process of its own, which serves one virtual machine, or some at
/// once, and ends.
final class BackEndProcess {
  /// Where it listens.
  let socket: String
  /// The process.
  let child: ChildProgram
  private let words: FileDescriptor
  private var text = ""

  /// Starts `program` with the disk image `image` and `options`, as `kvmlite backend block` takes them;
  /// the socket is in `directory`; it has `more` arguments. It listens when this returns.
  init(
    _ program: String, image: String, _ options: String, in directory: String,
    more: [String] = []
  ) throws(LabError) {
    let image = image.replacing(",", with: ",,") + options
    let socket = directory + "/socket"
    let pipe = try host { () throws(Errno) in try Pipe() }
    do throws(Errno) {
      child = try ChildProgram(
        program, ["backend", "block", socket, image, "--queues", "1", "--once"] + more,
        standardError: pipe.writing)
    } catch { throw .unexpected("\(program) can't be started for the back end: \(error)") }
    self.socket = socket
    words = pipe.closeWriting()
    try wait(for: "serves")
  }

  /// What it has said up to `word` and not told before.
  @discardableResult
  func wait(for word: String) throws(LabError) -> [String] {
    let poller = try host { () throws(Errno) in
      let poller = try Poller()
      _ = try poller.add(words, tag: 0)
      return poller
    }
    while !text.contains(word) || text.last != "\n" {
      guard poller.next(milliseconds: 30_000) != nil else {
        throw .overdue("the back end, process \(child.identifier),")
      }
      let more = try host { () throws(Errno) in try words.read(atMost: 4096) }
      guard !more.isEmpty else {
        throw .unexpected("the back end ended before it said '\(word)'; it said: \(text)")
      }
      text += String(decoding: more, as: UTF8.self)
    }
    defer { text = "" }
    return text.split(separator: "\n").map(String.init)
  }
}
