import CLinux

/// Which system calls a thread may make, as a program for the kernel's filter machine.
///
/// Corresponds to `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`.
package struct SystemCallFilter: Sendable {
  /// What becomes of a system call.
  package enum Verdict: Equatable, Sendable {
    /// It is made.
    case allow
    /// It isn't, and fails with this error.
    case fail(Int32)
    /// It is made if argument `index`, as far as `mask` goes in its lower half, is one of these.
    case allowIf(index: Int, mask: UInt32 = .max, [UInt32])
  }

  /// One system call, by number.
  package struct Rule: Sendable {
    package let number: Int
    package let verdict: Verdict

    package init(_ number: Int, _ verdict: Verdict = .allow) {
      (self.number, self.verdict) = (number, verdict)
    }
  }

  /// One instruction of classic BPF (Linux, Documentation/networking/filter.rst).
  package struct Instruction: Equatable, Sendable {
    package var code: UInt16
    package var ifTrue: UInt8 = 0
    package var ifFalse: UInt8 = 0
    package var operand: UInt32

    /// Loads a word of `struct seccomp_data`.
    static func load(_ offset: Int) -> Self { Self(code: 0x20, operand: UInt32(offset)) }
    static func and(_ mask: UInt32) -> Self { Self(code: 0x54, operand: mask) }
    static func jump(_ count: Int) -> Self { Self(code: 0x05, operand: UInt32(count)) }
    static func ifEqual(_ value: UInt32, _ then: Int, else other: Int) -> Self {
      Self(code: 0x15, ifTrue: UInt8(then), ifFalse: UInt8(other), operand: value)
    }
    static func ifAtLeast(_ value: UInt32, _ then: Int, else other: Int) -> Self {
      Self(code: 0x35, ifTrue: UInt8(then), ifFalse: UInt8(other), operand: value)
    }
    static func end(_ value: UInt32) -> Self { Self(code: 0x06, operand: value) }
  }

  /// `struct seccomp_data`'s fields, by their offsets.
  private enum Offset {
    static let number = 0
    static let architecture = 4
    static let address = 8
    static func argument(_ index: Int) -> Int { 16 + index * 8 }
  }

  /// The program.
  package let program: [Instruction]

  /// Allows what `rules` say, each for another system call; all others are violations. A call whose
  /// second argument is `hot`'s request is allowed before anything else is asked. From `exempt`, an address
  /// behind a system call's instruction, all is allowed. With `error`, what isn't allowed fails with it
  /// instead of being a violation.
  package init(
    _ rules: [Rule], hot: (call: Int, request: UInt32)? = nil, exempt: UInt64? = nil,
    error: Int32? = nil
  ) {
    var program: [Instruction] = [
      .load(Offset.architecture), .ifEqual(CLINUX_ARCHITECTURE, 1, else: 0),
      .end(CLINUX_FILTER_KILL),
    ]
    if let exempt {
      program += [
        .load(Offset.address), .ifEqual(UInt32(truncatingIfNeeded: exempt), 0, else: 3),
        .load(Offset.address + 4), .ifEqual(UInt32(exempt >> 32), 0, else: 1),
        .end(CLINUX_FILTER_ALLOW),
      ]
    }
    program.append(.load(Offset.number))
    if let hot {
      program += [
        .ifEqual(UInt32(hot.call), 0, else: 4), .load(Offset.argument(1)),
        .ifEqual(hot.request, 0, else: 1), .end(CLINUX_FILTER_ALLOW), .load(Offset.number),
      ]
    }
    let refusal = Instruction.end(
      error.map { CLINUX_FILTER_ERRNO | UInt32($0) } ?? CLINUX_FILTER_TRAP)
    self.program = program + Self.tree(Self.pieces(rules, refusal)[...])
  }

  /// The numbers from `start` up to the next piece's, and what is done with them.
  private struct Piece {
    let start: UInt32
    let code: [Instruction]
  }

  private static func pieces(_ rules: [Rule], _ refusal: Instruction) -> [Piece] {
    var pieces: [Piece] = []
    var next: UInt32 = 0
    func add(_ piece: Piece) {
      if pieces.last?.code != piece.code { pieces.append(piece) }
    }
    for rule in byNumber(rules) {
      let number = UInt32(rule.number)
      if number > next { add(Piece(start: next, code: [refusal])) }
      add(Piece(start: number, code: code(rule.verdict, refusal)))
      next = number + 1
    }
    add(Piece(start: next, code: [refusal]))
    return pieces
  }

  /// By rising number. (The library's sort makes a list of ranges, whose type costs each start a look
  /// through all conformances of the program.)
  private static func byNumber(_ rules: [Rule]) -> [Rule] {
    var rules = rules
    for end in rules.indices {
      var place = end
      while place > 0, rules[place - 1].number > rules[place].number {
        rules.swapAt(place - 1, place)
        place -= 1
      }
    }
    return rules
  }

  private static func code(_ verdict: Verdict, _ refusal: Instruction) -> [Instruction] {
    switch verdict {
    case .allow: return [.end(CLINUX_FILTER_ALLOW)]
    case .fail(let error): return [.end(CLINUX_FILTER_ERRNO | UInt32(error))]
    case .allowIf(let index, let mask, let values):
      var code: [Instruction] = [.load(Offset.argument(index))]
      if mask != .max { code.append(.and(mask)) }
      for (place, value) in values.enumerated() {
        code.append(.ifEqual(value, values.count - place, else: 0))
      }
      return code + [refusal, .end(CLINUX_FILTER_ALLOW)]
    }
  }

  /// Halves the numbers until one piece is left: the kernel asks this for each of them beforehand.
  private static func tree(_ pieces: ArraySlice<Piece>) -> [Instruction] {
    guard pieces.count > 1 else { return pieces.first?.code ?? [] }
    let middle = pieces.startIndex + pieces.count / 2
    let (lower, upper) = (tree(pieces[..<middle]), tree(pieces[middle...]))
    let start = pieces[middle].start
    return lower.count <= 255
      ? [.ifAtLeast(start, lower.count, else: 0)] + lower + upper
      : [.ifAtLeast(start, 0, else: 1), .jump(lower.count)] + lower + upper
  }

  /// Has it judge the calling thread and those that it starts from now on. It can't be taken back.
  package func install() throws(Errno) {
    guard unsafe withInstructions({ unsafe clinux_filter($0, $1) }) == 0 else {
      throw Errno.current
    }
  }

  /// Calls `body` with the program as the kernel takes it: it copies as many instructions as it is told of.
  func withInstructions<Result>(
    _ body: (UnsafeMutablePointer<sock_filter>?, UInt16) -> Result
  ) -> Result {
    var program = program.map {
      sock_filter(code: $0.code, jt: $0.ifTrue, jf: $0.ifFalse, k: $0.operand)
    }
    return unsafe program.withUnsafeMutableBufferPointer {
      unsafe body($0.baseAddress, UInt16($0.count))
    }
  }
}
