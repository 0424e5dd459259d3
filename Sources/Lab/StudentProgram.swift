/// A program in C that a student wrote, compiled in a directory that goes with this object.
///
/// It is run for what it prints, with bounds on its time and on what it writes. It is not locked in: it
/// has the rights of whoever grades it.
struct StudentProgram {
  /// Why there is no program.
  struct NotCompiled: Error {
    /// What the compiler said first.
    let words: String
  }

  private let workshop: Workshop
  /// Seconds that a run may take.
  private let seconds: Int
  private static let mostBytes = 128 << 10

  /// The compilers that serve, the first that is there.
  private static let compilers = ["cc", "gcc", "clang"]
  /// What the shell ends with if there is none.
  private static let noCompiler = 99

  /// Takes `source`.
  init(_ source: [UInt8], seconds: Int) throws(LabError) {
    workshop = try Workshop()
    self.seconds = seconds
    try workshop.write("vmm.c", source)
  }

  /// Compiles it with the host's compiler.
  func compile() throws(LabError) -> NotCompiled? {
    let find = Self.compilers.map { "command -v \($0)" }.joined(separator: " || ")
    let end = try workshop.run(
      "cc=$(\(find)) || exit \(Self.noCompiler); \"$cc\" -O1 -o vmm vmm.c -lpthread 2>words",
      seconds: 60, bytes: 64 << 20)
    switch end {
    case .exited(0): return nil
    case .exited(Self.noCompiler):
      throw .unexpected(
        "no C compiler is in PATH (\(Self.compilers.joined(separator: ", "))); on Debian: "
          + "sudo apt-get install gcc libc6-dev")
    case .overdue: return NotCompiled(words: "the compiler was not done in time")
    default: return NotCompiled(words: workshop.line("words") { $0.contains("error") })
    }
  }

  /// Runs it on a guest that is a file with `image`, with `input` as its standard input.
  func run(
    _ image: [UInt8], input: [UInt8]
  ) throws(LabError) -> (end: Workshop.End, output: [UInt8], words: String) {
    try workshop.write("guest.bin", image)
    try workshop.write("input", input)
    let end = try workshop.run(
      "exec ./vmm guest.bin <input >output 2>words", seconds: seconds, bytes: Self.mostBytes)
    return (
      end, workshop.read("output", limit: Self.mostBytes),
      String(workshop.line("words").prefix(100))
    )
  }
}
